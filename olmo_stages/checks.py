"""Types at the doors: values that a command line or a file gives, and the arrays of an analysis.

What lies behind them is checked by the tests, in which every function is: ready-made checks of all
would double the time that a small job needs to start, and some functions are called thousands of
times.
"""

from beartype import beartype
from jaxtyping import jaxtyped

checked = jaxtyped(typechecker=beartype)
"""Refuse arguments of a class or a function that are not of the types or the shapes it says."""
