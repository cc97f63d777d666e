"""All measurements of sweeps as one table, for notebooks and other programs.

    from olmo_stages import results
    frame = results.load("outputs/sweeps/NAME")

A row is one number with what is needed to believe it; a job that has none is a row too, which says
why. docs/results.md says what every column is.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from olmo_stages.atomic import restore_folder, write_file
from olmo_stages.blocks import EMPTY, PER_ROW, TYPES, Block, of_table, once
from olmo_stages.errors import ConfigError
from olmo_stages.job_rows import of_across, of_folder, of_job
from olmo_stages.provenance import now, versions
from olmo_stages.statuses import read_statuses, sweeps_below

SCHEMA = 1
"""Version of the table: it rises when a column comes, goes or changes its meaning.

A file of another version is refused; a sweep's folder makes it anew.
"""

COLUMNS = ("kind", "state", "error", "sweep", *PER_ROW)
"""Names of the columns, in their order."""

_MARK = "result.json"
_OURS = "olmo_stages."
_REMEDY = "give the folder of a sweep (OUTPUTS/sweeps/NAME) or of a job's result"


def load(*places: str | Path) -> pd.DataFrame:
    """Read measurements into one tidy table.

    Args:
        *places: folders of sweeps, folders of results, or files that `save` wrote; in the order of
            the rows.

    Returns:
        One row a number, and one for each job that has none. A job that is in several places is
        there once, as the first of them has it. Texts are never null; numbers are NaN or NA where
        there is none.

    Raises:
        ConfigError: a place holds none of these, or a table of another version.
        StoreError: a file cannot be read.
    """
    if not places:
        raise ConfigError(f"load() needs a place: {_REMEDY}")
    paths = [Path(place).expanduser() for place in places]
    if len(paths) == 1 and paths[0].is_file():
        return _frame(_read(paths[0]))
    names = _names([path for path in paths if _is_sweep(path)])
    blocks: list[Block] = []
    for path in paths:
        restore_folder(path)
        if path.is_file():
            blocks += of_table(_read(path))
        elif path in names:
            blocks += _of_sweep(path, names[path], path / "across")
        elif (path / _MARK).is_file():
            blocks.append(of_folder(path, blocks))
        else:
            raise ConfigError(_nothing(path))
    return _joined(blocks)


def gather(sweeps: Sequence[Path], across: Sequence[Path] | None = None) -> pd.DataFrame:
    """Read sweeps into one tidy table.

    Args:
        sweeps: their folders.
        across: folders of the results that say what their jobs say together; None = all that
            are in the sweeps' own folders.

    Returns:
        The same as `load`.
    """
    blocks: list[Block] = []
    for path, name in _names(sweeps).items():
        blocks += _of_sweep(path, name, path / "across" if across is None else None)
    blocks += [of_across(it, blocks) for it in across or ()]
    return _joined(blocks)


def save(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a table, or rows of it, so that it is either there whole or not at all.

    Args:
        frame: rows of `load`, in any order.
        path: of a parquet file. In it, a number that is not defined is NaN, and one that does not
            exist is null.

    Raises:
        ConfigError: the frame has other columns, or values that these cannot hold.
        StoreError: the file cannot be written.
    """
    if odd := set(frame.columns) ^ set(COLUMNS):
        raise ConfigError(
            f"a table of measurements has all columns of olmo_stages.results.COLUMNS and no other; "
            f"this one differs in {', '.join(sorted(map(str, odd)))}"
        )
    try:
        table = pa.Table.from_pandas(frame[list(COLUMNS)], _schema(), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(f"not a table of measurements: {error}") from error
    # pandas has one NaN for both.
    values = pa.array(frame["value"].to_numpy(float), mask=(frame["kind"] == EMPTY).to_numpy(bool))
    table = table.set_column(COLUMNS.index("value"), "value", values)
    about = {
        f"{_OURS}schema": str(SCHEMA),
        f"{_OURS}version": str(versions(["olmo-stages"])["olmo-stages"]),
        f"{_OURS}made": now().isoformat(timespec="seconds"),
    }
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, **about}), buffer)
    write_file(Path(path), buffer.getvalue())


def _schema() -> pa.Schema:
    """Types of the columns, with pandas' own notes, so that it reads whole numbers as such."""
    kinds = {pa.string(): "str", pa.int64(): "Int64", pa.float64(): "float64"}
    types = {name: TYPES.get(name, pa.string()) for name in COLUMNS}
    empty = pd.DataFrame({name: pd.Series(dtype=kinds[it]) for name, it in types.items()})
    notes = pa.Table.from_pandas(empty, preserve_index=False).schema.metadata
    return pa.schema(list(types.items()), metadata=notes)


def _frame(table: pa.Table) -> pd.DataFrame:
    return table.cast(_schema()).to_pandas()


def _joined(blocks: Sequence[Block]) -> pd.DataFrame:
    return _frame(pa.concat_tables([it.whole().select(COLUMNS) for it in once(blocks)]))


def _read(path: Path) -> pa.Table:
    """Read a file that `save` wrote.

    Raises:
        ConfigError: it is none, or one of another version.
    """
    try:
        table = pq.read_table(io.BytesIO(path.read_bytes()))
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path} is no parquet file; {_REMEDY}") from error
    notes = table.schema.metadata or {}
    found = notes.get(f"{_OURS}schema".encode(), b"").decode()
    if not found:
        raise ConfigError(f"{path} is no table that olmo_stages.results.save wrote; {_REMEDY}")
    if found != str(SCHEMA):
        raise ConfigError(
            f"{path} has version {found} of the table, and this is version {SCHEMA}; "
            "olmo-stages report SWEEP makes it anew"
        )
    if not table.schema.equals(_schema()):
        raise ConfigError(
            f"{path} was changed: its columns are others; olmo-stages report SWEEP makes it anew"
        )
    return table


def _names(sweeps: Sequence[Path]) -> dict[Path, str]:
    """What sweeps are called: like their folders, where no two of these are called the same."""
    called = [place.name for place in {path.resolve() for path in sweeps}]
    return {
        path: path.resolve().name if called.count(path.resolve().name) == 1 else str(path)
        for path in sweeps
    }


def _of_sweep(path: Path, name: str, across: Path | None) -> list[Block]:
    blocks = [of_job(path, name, status) for status in read_statuses(path)]
    together = [of_across(it, blocks, name) for it in _results(across)]
    return [*blocks, *together]


def _results(folder: Path | None) -> list[Path]:
    """The folders of results in a folder."""
    if folder is None or not folder.is_dir():
        return []
    inner = sorted(it for it in folder.iterdir() if not it.name.startswith("."))
    return [it for it in inner if (it / _MARK).is_file()]


def _is_sweep(path: Path) -> bool:
    return path.is_dir() and bool(read_statuses(path))


def _nothing(path: Path) -> str:
    """What is wrong with a place, and what would do."""
    if not path.exists():
        return f"{path} does not exist; {_REMEDY}"
    if near := sweeps_below(path):
        return f"{path} is no sweep; give one or more of: {near}"
    return f"{path} holds no results; {_REMEDY}"
