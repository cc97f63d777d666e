"""The results of a sweep as one table, from its files alone."""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from olmo_stages.records import Recorded, is_finished, parquet, read
from olmo_stages.statuses import Status, read_statuses
from olmo_stages.types import Measurement

_LEADING = ("job", "analysis", "data", "size", "revision")


def gather(sweep_dir: Path, statuses: Sequence[Status] | None = None) -> pd.DataFrame:
    """All measurements of a sweep's finished jobs, one row each.

    Jobs that failed, run or are damaged on disk have no rows; `read_statuses` tells of them.

    Args:
        sweep_dir: folder of the sweep.
        statuses: its jobs; None = as found in the folder.

    Returns:
        The columns of `Measurement`, led by job, analysis, data, size and revision. Size and
        revision are those of the stage that the row is about.
    """
    jobs = read_statuses(sweep_dir) if statuses is None else statuses
    tables = [
        _table(status.job, read(Path(status.folder)))
        for status in jobs
        if status.folder is not None and is_finished(Path(status.folder))
    ]
    if tables:
        return pd.concat(tables, ignore_index=True)
    empty = pd.DataFrame({name: pd.Series(dtype="str") for name in _LEADING})
    return pd.concat([empty, _frame(())], axis="columns")


def _table(name: str, recorded: Recorded) -> pd.DataFrame:
    job = recorded.provenance["job"]
    frame = _frame(recorded.result.measurements)
    about_reference = pd.Series(data=False, index=frame.index)
    reference = job["reference"]
    if reference is not None:
        about_reference = frame["stage"] == reference["label"]
    other = reference or job["stage"]
    columns = {"job": name, "analysis": job["analysis"], "data": job["data"]}
    for field in ("size", "revision"):
        values = about_reference.map({True: other[field], False: job["stage"][field]})
        columns[field] = values.astype("str")
    return pd.concat([pd.DataFrame(columns, index=frame.index), frame], axis="columns")


def _frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(parquet(measurements)))
