"""The library for reports and workspaces, which takes seconds to import and deprecates itself."""

import importlib
import warnings
from typing import Any


def reports() -> Any:  # noqa: ANN401  (a module that is imported late)
    """Return the module for reports."""
    return _imported("wandb_workspaces.reports.v2.interface")


def workspaces() -> Any:  # noqa: ANN401  (a module that is imported late)
    """Return the module for workspaces."""
    return _imported("wandb_workspaces.workspaces")


def _imported(name: str) -> Any:  # noqa: ANN401  (a module that is imported late)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)
