"""The rows behind a figure, as the figure says which of its result it draws."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from olmo_stages.errors import StoreError
from olmo_stages.records import read_file
from olmo_stages.report.kept import Kept

_OF_JOBS = "jobs"
"""What a figure of all jobs together says it is of, where it draws their own numbers."""

_NAMES = ("metric", "variant", "trait", "stage", "reference")
"""What of its rows a figure may say; what it does not say may be anything."""


def meta_of(drawn: Any) -> Mapping[str, Any]:  # noqa: ANN401  (JSON of a user's own analysis)
    """What a figure says of itself."""
    return part_of(part_of(drawn, "layout"), "meta")


def part_of(drawn: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401  (JSON of a user's analysis)
    """One part of a figure; nothing where it has none, or something else."""
    found = drawn.get(name) if isinstance(drawn, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def draws(meta: Mapping[str, Any], metric: str, variant: str) -> bool:
    """Whether a figure of all jobs together draws such numbers of the jobs."""
    return (
        meta.get("of") == _OF_JOBS
        and metric in _listed(meta.get("metric"))
        and variant in _listed(meta.get("variant"))
    )


def rows_behind(
    kept: Kept, key: str, meta: Mapping[str, Any], jobs: Sequence[Kept] = ()
) -> pd.DataFrame:
    """The rows that a figure draws.

    Args:
        kept: the result that it is of.
        key: its name.
        meta: what it says of itself.
        jobs: those that were put together, where the result is of several.

    Returns:
        Measurements: those that it names, or those of the metric of its name; or rows of the table
        of the result that it names.

    Raises:
        StoreError: the table is damaged, or cannot be searched for what the figure names.
    """
    if name := str(part_of(meta, "table").get("name", "")):
        return _of_table(kept, name, part_of(meta, "table"))
    frames = [it.frame for it in jobs] if meta.get("of") == _OF_JOBS else [kept.frame]
    return pd.concat([_named(it, key, meta) for it in frames])


def _named(frame: pd.DataFrame, key: str, meta: Mapping[str, Any]) -> pd.DataFrame:
    named = {name: meta[name] for name in _NAMES if name in meta}
    if not named:
        return frame.loc[frame["metric"] == key]
    chosen = pd.Series(data=True, index=frame.index)
    for name, values in named.items():
        chosen &= frame[name].isin(_listed(values))
    return frame.loc[chosen]


def _of_table(kept: Kept, name: str, table: Mapping[str, Any]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    path = part_of(kept.mark, "tables").get(name)
    if path is None:
        return pd.DataFrame()
    wanted = part_of(table, "where")
    content = io.BytesIO(read_file(kept.folder, kept.mark, path))
    known = [it for it in wanted if it in pq.read_schema(content).names]
    if len(known) < len(wanted):
        return pd.DataFrame()
    filters = [(column, "==", wanted[column]) for column in known]
    try:
        found = pq.read_table(content, filters=filters or None)
    except (ValueError, TypeError, NotImplementedError) as error:  # pyarrow's are among these
        raise StoreError(f"table {name!r} cannot be searched for {dict(wanted)}") from error
    most = table.get("most")
    return (found.slice(0, most) if isinstance(most, int) else found).to_pandas()


def _listed(values: object) -> list[object]:
    return values if isinstance(values, list) else [values]
