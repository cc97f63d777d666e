"""What did each post-training stage do to this model? Experiments across the stages of OLMo 3."""

from os import PathLike
from typing import TYPE_CHECKING

from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from olmo_stages.vectors.files import TraitVector

__version__ = "0.1.0"

_CHECKED = ("analyses", "dominant", "similarity", "vectors")
"""Analyses and what computes with arrays but is not called thousands of times; of all else only the
doors are checked, see `olmo_stages.checks`."""

# Here rather than in run.py, because a Slurm worker imports the package but never executes run.py.
install_import_hook([f"{__name__}.{it}" for it in _CHECKED], "beartype.beartype")


def load_vector(path: str | PathLike[str]) -> "TraitVector":
    """Read a trait vector that `olmo-stages export` wrote; see olmo_stages.vectors.files.

    Raises:
        DataError: there is no such file, it is damaged, holds something else, is of a later
            version, or has a vector that is zero or not finite.
    """
    from olmo_stages.vectors.files import load  # late: a config must not wait for numpy

    return load(path)
