"""Results as files: written before anything else hears of them, whole or not at all."""

import dataclasses
import hashlib
import importlib.metadata
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from olmo_stages.atomic import OUTPUTS, restore_folder, safe_name, write_folder
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.headlines import restored, stored
from olmo_stages.provenance import Times, now, provenance, redact, redact_arguments
from olmo_stages.statuses import State, Status, read_statuses, write_status
from olmo_stages.tables import Tables, numbers, texts
from olmo_stages.tables import parquet as table_parquet
from olmo_stages.types import Measurement, Result, Stage

__all__ = [
    "Job",
    "Recorded",
    "State",
    "Status",
    "Times",
    "is_finished",
    "locate",
    "now",
    "provenance",
    "read",
    "read_file",
    "read_statuses",
    "redact",
    "redact_arguments",
    "write",
    "write_status",
]

SCHEMA = 3
"""Version of the folder's layout; a folder of another version counts as unfinished."""

MEASUREMENTS = "measurements.parquet"
TENSORS = "tensors.safetensors"
PROVENANCE = "provenance.json"
TRACKING = "tracking.json"
"""Where a tracker notes what it sent; not a part of the result."""

_MARK = "result.json"
_ROWS = "measurements.jsonl"
_FIGURES = "figures"
_TABLES = "tables"
_OWN = frozenset({MEASUREMENTS, TENSORS, TRACKING, _MARK, _ROWS, PROVENANCE, _FIGURES, _TABLES})

# Arrow's and pandas' names of the types of a measurement's fields.
_KINDS: Mapping[object, tuple[str, str]] = {
    str: ("string", "str"),
    int: ("int64", "Int64"),
    int | None: ("int64", "Int64"),
    float: ("float64", "float64"),
    float | None: ("float64", "float64"),
}


@dataclass(frozen=True)
class Job:
    """One analysis of one stage: what it is, and where its result lives.

    Args:
        analysis: name of the analysis.
        stage: the stage that is measured.
        reference: the other side, where the analysis compares.
        data: name of the data set.
        identity: everything else that changes a number, as JSON-like data.
    """

    analysis: str
    stage: Stage
    reference: Stage | None
    data: str
    identity: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Identity of the job in 64 hexadecimal digits, the same in every process."""
        parts = {"analysis": self.analysis, "data": self.data, "identity": self.identity}
        stages = {"stage": _describe(self.stage), "reference": _describe(self.reference)}
        return hashlib.sha256(canonical_json({**parts, **stages}).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        """Short identity, used as the id of the tracked run."""
        return self.digest[:16]

    def folder(self, root: Path) -> Path:
        """Where the result lives under `root`; named by what is run, never by number or time.

        Returns:
            `root/analysis/stage.size[.vs.reference]/data.digest`.
        """
        compared = f"{safe_name(self.stage.label)}.{safe_name(self.stage.size)}"
        if self.reference is not None:
            compared += f".vs.{safe_name(self.reference.label)}"
        name = f"{safe_name(self.data)}.{self.digest[:12]}"
        return root / safe_name(self.analysis) / compared / name

    def describe(self) -> dict[str, Any]:
        """Return the job as JSON data, for provenance and the sweep's table."""
        return {
            "analysis": self.analysis,
            "stage": _describe(self.stage),
            "reference": _describe(self.reference),
            "data": self.data,
            "identity": json.loads(canonical_json(self.identity)),
            "digest": self.digest,
            "run_id": self.run_id,
        }

    def about(self) -> dict[str, str]:
        """Return the columns that tell jobs of a sweep apart."""
        return {
            "stage": self.stage.label,
            "reference": "" if self.reference is None else self.reference.label,
            "size": self.stage.size,
            "analysis": self.analysis,
            "data": self.data,
        }


@dataclass(frozen=True, eq=False)
class Recorded:
    """A result read back.

    Args:
        result: as it was written.
        provenance: as it was written.
        digest: identity of the result's files; changes when a number changes.
    """

    result: Result
    provenance: Mapping[str, Any]
    digest: str


def write(folder: Path, result: Result, provenance: Mapping[str, Any]) -> None:
    """Write a result so that it is either there whole or not at all.

    An older result of the folder stays readable until the new one is complete; what others put
    into the folder stays.

    Args:
        folder: the job's folder.
        result: what the analysis returned.
        provenance: what `provenance` collected, or any JSON-like mapping.

    Raises:
        StoreError: if the disk is full, the place cannot be written, or a tensor or value of the
            result cannot be stored.
    """
    figures = {name: f"{_FIGURES}/{safe_name(name)}.json" for name in result.figures}
    tables = {name: f"{_TABLES}/{safe_name(name)}.parquet" for name in result.tables}
    files = {
        MEASUREMENTS: parquet(result.measurements),
        _ROWS: _json_lines(result.measurements),
        TENSORS: _safetensors(result.tensors),
        **{figures[name]: text.encode() for name, text in result.figures.items()},
        **{tables[name]: table_parquet(name, it) for name, it in result.tables.items()},
        PROVENANCE: _pretty(provenance),
    }
    mark = {
        "schema": SCHEMA,
        "job": provenance.get("job"),
        "headline": stored(result.headline),
        "warnings": list(result.warnings),
        "figures": figures,
        "tables": tables,
        "files": {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
    }
    write_folder(folder, {**files, _MARK: _pretty(mark)}, _OWN, OUTPUTS)


def read(folder: Path, *, tensors: bool = True) -> Recorded:
    """Read a result back, every file that is read checked against its digest.

    Args:
        folder: the job's folder.
        tensors: False leaves the tensors, often most of a result, where they are; the result then
            has none.

    Returns:
        A result whose tables, which may be large too, are read when they are asked for. They are
        checked now, unless tensors are left out.

    Raises:
        StoreError: if there is no finished result, or a file of it is damaged.
    """
    import pyarrow.parquet as pq

    mark = read_mark(folder)
    tables: dict[str, str] = mark.get("tables", {})
    figures = {name: read_file(folder, mark, it).decode() for name, it in mark["figures"].items()}
    rows = pq.ParquetFile(io.BytesIO(read_file(folder, mark, MEASUREMENTS))).read().to_pylist()
    if tensors:
        for name in (_ROWS, *tables.values()):
            read_file(folder, mark, name)
    result = Result(
        measurements=tuple(Measurement(**row) for row in rows),
        tensors=safetensors.numpy.load(read_file(folder, mark, TENSORS)) if tensors else {},
        figures=figures,
        headline=restored(mark["headline"]),
        warnings=tuple(mark["warnings"]),
        tables=Tables({name: folder / path for name, path in tables.items()}),
    )
    return Recorded(result, json.loads(read_file(folder, mark, PROVENANCE)), mark_digest(mark))


def read_file(folder: Path, mark: Mapping[str, Any], name: str) -> bytes:
    """Read one file of a result, checked against its digest.

    Args:
        folder: of the result.
        mark: what `read_mark` says of it.
        name: `MEASUREMENTS`, `PROVENANCE`, or what the mark says of figures and tables.

    Raises:
        StoreError: it is gone or damaged, or the mark does not list it.
    """
    try:
        content = (folder / name).read_bytes()
        expected = mark["files"][name]["sha256"]
    except (OSError, KeyError, TypeError) as error:
        raise StoreError(_damaged(folder, name)) from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise StoreError(_damaged(folder, name))
    return content


def locate(sweep_dir: Path, folder: Path) -> Path:
    """Where the result of a sweep's job is: beside the sweep, or as it was noted.

    A sweep is in OUTPUTS/sweeps, its jobs in OUTPUTS/ANALYSIS/STAGE/DATA. Notes are relative to
    where the sweep was launched; one that was moved, copied or is seen from another machine has
    its jobs beside it, and those of a copy are meant, not the originals.

    Args:
        sweep_dir: folder of the sweep.
        folder: as its status says.
    """
    given = [sweep_dir.parent.parent] if len(sweep_dir.parts) > 2 else []
    for outputs in (*given, sweep_dir.resolve().parent.parent):
        beside = outputs.joinpath(*folder.parts[-3:])
        restore_folder(beside)
        if beside.is_dir():
            return beside
    return folder


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds a whole result: its mark is known and every file has its size.

    Returns:
        False for a missing, partial or damaged folder, which is then simply done again.
    """
    restore_folder(folder)
    try:
        files = read_mark(folder)["files"]
        return all((folder / name).stat().st_size == it["size"] for name, it in files.items())
    except (OSError, KeyError, TypeError, AttributeError):  # StoreError is an OSError
        return False


def read_mark(folder: Path) -> dict[str, Any]:
    """Headline, warnings and file list of a result, without its numbers.

    Raises:
        StoreError: if there is no mark, or one of another version.

    Returns:
        The content of result.json.
    """
    restore_folder(folder)
    try:
        mark = json.loads((folder / _MARK).read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} holds no finished result; run its job again") from error
    if not isinstance(mark, dict) or mark.get("schema") != SCHEMA:
        raise StoreError(f"{folder}: result of another version; run its job again")
    return mark


def mark_digest(mark: Mapping[str, Any]) -> str:
    """Return the identity of the numbers that a mark lists."""
    measured = {name: it["sha256"] for name, it in mark["files"].items() if name != PROVENANCE}
    return hashlib.sha256(canonical_json(measured).encode()).hexdigest()


def canonical_json(value: Any) -> str:  # noqa: ANN401  (any JSON-like data)
    """The one text of JSON-like data: sorted keys, no spaces, no NaN.

    Returns:
        Text that is equal in every process and Python version.

    Raises:
        ConfigError: if `value` holds something that JSON has no word for.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"identity of a job must be plain JSON data: {error}") from error


def _describe(stage: Stage | None) -> dict[str, Any] | None:
    if stage is None:
        return None
    names = ("name", "size", "source", "revision", "random_init")
    return {"label": stage.label} | {name: getattr(stage, name) for name in names}


def parquet(measurements: Sequence[Measurement]) -> bytes:
    """Return measurements as a parquet file, in which pandas finds whole numbers whole."""
    import pyarrow as pa  # late: it takes a while to import
    import pyarrow.parquet as pq

    fields = dataclasses.fields(Measurement)
    kinds = [(it.name, pa.type_for_alias(_KINDS[it.type][0])) for it in fields]
    schema = pa.schema(kinds, metadata={"pandas": json.dumps(_of_pandas(pa.__version__))})
    columns = [_column([getattr(row, it.name) for row in measurements], it.type) for it in fields]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), buffer)
    return buffer.getvalue()


def _column(values: Sequence[Any], kind: object):  # noqa: ANN202  (pyarrow is imported late)
    """Return a column in which None and NaN are kept apart, which a frame would not."""
    if kind is str:
        return texts(values)
    present = np.array([it is not None for it in values], dtype=bool)
    known = np.array([0 if it is None else it for it in values], dtype=_KINDS[kind][0])
    return numbers(known, None if present.all() else present)


def _of_pandas(writer: str) -> dict[str, Any]:
    """Return what pandas writes into a parquet file, so that it reads whole numbers as nullable.

    Written out, because pandas takes longer to import than the numbers of a small job to compute.
    """
    columns = [
        {
            "name": it.name,
            "field_name": it.name,
            "pandas_type": "object" if it.type is str else _KINDS[it.type][0],
            "numpy_type": _KINDS[it.type][1],
            "metadata": None,
        }
        for it in dataclasses.fields(Measurement)
    ]
    return {
        "index_columns": [],
        "column_indexes": [],
        "columns": columns,
        "attributes": {},
        "creator": {"library": "pyarrow", "version": writer},
        "pandas_version": importlib.metadata.version("pandas"),
    }


def _json_lines(measurements: Sequence[Measurement]) -> bytes:
    lines = (json.dumps(_finite(dataclasses.asdict(row))) for row in measurements)
    return "".join(f"{line}\n" for line in lines).encode()


def _safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    # Only C order and native bytes survive the format.
    plain = {
        name: np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")
        for name, value in tensors.items()
    }
    try:
        return safetensors.numpy.save(plain)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        kinds = ", ".join(f"{name} {value.dtype}" for name, value in plain.items())
        raise StoreError(f"cannot store tensors ({kinds}): {error}; use float32") from error


def _pretty(value: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise StoreError(f"cannot write the result as JSON: {error}") from error


def _finite(value: Any) -> Any:  # noqa: ANN401  (JSON data; it has no word for NaN)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _damaged(folder: Path, name: str) -> str:
    return f"{folder / name} is damaged; run its job again"
