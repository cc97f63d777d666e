"""Where the report of one or more sweeps goes."""

from collections.abc import Sequence
from pathlib import Path

from olmo_stages.atomic import safe_name


def folder_of(sweeps: Sequence[Path]) -> Path:
    """Return where the report of sweeps goes: into the one, or beside them all.

    Returns:
        SWEEP/report, or OUTPUTS/reports/NAME1+NAME2 of the first sweep's OUTPUTS.
    """
    return sweeps[0] / "report" if len(sweeps) == 1 else folder_of_several(sweeps)


def folder_of_several(sweeps: Sequence[Path]) -> Path:
    """Where the report of several sweeps goes: OUTPUTS/reports/NAME1+NAME2 of the first one."""
    names = "+".join(sweep.resolve().name for sweep in sweeps)
    return sweeps[0].resolve().parent.parent / "reports" / safe_name(names)
