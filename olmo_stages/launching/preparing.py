"""What jobs import anyway, imported once before they are forked.

It takes as long as many a small job does. Imports only: a process in which libraries have computed
in threads, or used a GPU, cannot be forked.
"""

import importlib
import sys
from collections.abc import Sequence

ALL = ("olmo_stages.experiment", "olmo_stages.report.show")
"""What every job imports."""

COMPUTING = (
    "olmo_stages.models.loading",
    "olmo_stages.models.forward",
    "transformers.models.olmo3.modeling_olmo3",
    "sklearn.linear_model",
    "pyarrow.parquet",
    "plotly.io",
)
"""What those import that compute; those that are done do not."""


def import_for_all(modules: Sequence[str]) -> None:
    """Import modules for all jobs that are forked from now on."""
    if sys.platform == "linux":  # elsewhere a process may not survive a fork after these
        for module in modules:
            importlib.import_module(module)
