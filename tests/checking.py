"""Annotations are checked at run time as the product checks them, but made ready when first needed.

Writing the check of a function takes beartype about a millisecond. Of the thousands of functions of
the package a process of tests calls few, and some are defined inside others, anew at every call.
"""

import inspect

import beartype

_eager = beartype.beartype
_known = {}


def lazily(function):
    """Checks as beartype does; what is written the same, in the same place, shares one check."""
    what = _identity(function)
    if what not in _known:
        _known[what] = _first_when_called(function)
    return _known[what]


def _identity(function):
    """jaxtyping has beartype check a function that returns nothing, or what it is given as such."""
    signature = inspect.signature(function)
    arguments = tuple(
        (it.name, it.kind, it.annotation, it.default is it.empty)
        for it in signature.parameters.values()
    )
    return function.__module__, function.__qualname__, arguments, signature.return_annotation


def _first_when_called(function):
    checked = None

    def call(*args, **kwargs):
        nonlocal checked
        if checked is None:
            checked = _eager(function)
        return checked(*args, **kwargs)

    return call
