"""Files and Hugging Face data sets, read as rows of named values; nothing is interpreted here.

Texts are never parsed for anything: csv keeps them as strings (a text `NA` stays `NA`). A JSON list
of two has columns `[0]` and `[1]`.
"""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_stages.errors import DataError
from olmo_stages.looking import is_looking, make

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Row:
    """One row: where it stands in its source, for error messages, and its values by column."""

    where: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class Table:
    """What was read.

    Args:
        source: name of the file or data set, for error messages.
        rows: the rows in order.
        columns: names of all columns.
        class_names: names of the classes of columns that hold class indices.
    """

    source: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_file(path: str, separator: str | None = None) -> Table:
    """Read jsonl, json, csv, tsv or parquet, by extension.

    Args:
        path: the file.
        separator: of csv columns; None = found out from the header.

    Returns:
        The rows; never empty.

    Raises:
        DataError: the file is missing, empty, unreadable, not UTF-8, or of another kind.
    """
    file = Path(path).expanduser()
    reader = _READERS.get(file.suffix.lower())
    if file.is_dir():
        raise DataError(
            f"{path} is a folder; read it with data=hub data.path={path}, or with data=folder if "
            "it holds positive.txt and negative.txt"
        )
    if reader is None:
        raise DataError(f"{path}: cannot read {file.suffix or 'no extension'!r}; use {KINDS}")
    if not file.exists():
        raise DataError(f"{path} does not exist (looked from {Path.cwd()})")
    try:
        rows = tuple(reader(file, separator))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path} holds no rows")
    return Table(str(path), rows, _columns(rows))


def read_hub(
    path: str, *, split: str | None = None, subset: str | None = None, revision: str | None = None
) -> Table:
    """Read a data set of the Hugging Face hub, or a local folder of one.

    Args:
        path: hub id or folder.
        split: which split; may be None where there is only one.
        subset: which configuration of the data set.
        revision: branch, tag or commit on the hub.

    Returns:
        The rows; never empty.

    Raises:
        DataError: it cannot be found or reached, the split does not exist, or it is empty.
    """
    dataset = _load(path, split=split, subset=subset, revision=revision)
    source = f"{path}[{split}]" if split else path
    names = {
        column: tuple(feature.names)
        for column, feature in dataset.features.items()
        if hasattr(feature, "names")
    }
    rows = tuple(Row(f"row {n}", row) for n, row in enumerate(dataset, start=1))
    if not rows:
        raise DataError(f"{source} holds no rows")
    return Table(source, rows, tuple(dataset.column_names), names)


def _load(path: str, *, split: str | None, subset: str | None, revision: str | None) -> Any:  # noqa: ANN401 (datasets is imported late)
    import datasets
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    folder = Path(path).expanduser()
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            found = datasets.load_from_disk(str(folder))
        else:
            where = str(folder) if folder.is_dir() else path
            with _kept_where(where) as place:
                found = datasets.load_dataset(
                    where, name=subset, revision=revision, cache_dir=place
                )
    except (DatasetsError, HfHubHTTPError, OSError, ValueError) as error:
        if not folder.is_dir():
            make(f"data set {path} of the hub")
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"data set {path!r} cannot be loaded: {reason}; check data.path and data.subset, and "
            "without a network download it first or give a local folder"
        ) from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        raise DataError(
            f"data set {path!r} has no split {split!r}; set data.split to one of "
            + ", ".join(map(str, found))
        )
    return found[split]


@contextmanager
def _kept_where(where: str) -> Iterator[str | None]:
    """Where the library keeps what it reads; None = in its own place.

    Whoever only looks reads from there too, but is given another place, which goes: even reading
    leaves locks behind. Of the hub nothing is asked then.
    """
    if not is_looking():
        yield None
        return
    from datasets import config

    before = config.HF_HUB_OFFLINE
    with tempfile.TemporaryDirectory() as place:
        if not Path(where).is_dir():
            for kept in Path(config.HF_DATASETS_CACHE).glob("*/"):
                (Path(place) / kept.name).symlink_to(kept)
        config.HF_HUB_OFFLINE = True
        try:
            yield place
        finally:
            config.HF_HUB_OFFLINE = before


def _jsonl(file: Path, separator: str | None) -> Iterator[Row]:
    del separator
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _object(f"line {number}", parse_json(line, f"{file}, line {number}"), file)


def _json(file: Path, separator: str | None) -> Iterator[Row]:
    del separator
    text = file.read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    content = parse_json(text, str(file))
    if isinstance(content, dict):
        content = _from_columns(content, file)
    if not isinstance(content, list):
        raise DataError(f"{file} holds neither a list of objects or pairs nor an object of columns")
    for number, item in enumerate(content, start=1):
        yield _object(f"row {number}", item, file)


def parse_json(text: str, where: str) -> Any:  # noqa: ANN401 (any JSON)
    """Read JSON.

    Args:
        text: the JSON.
        where: what it is, for the error message.

    Raises:
        DataError: it is none, or nested too deeply to be data.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        hint = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{where} is not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply to be data") from error
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where} is not readable JSON: {error}") from error


def _object(where: str, item: object, file: Path) -> Row:
    if isinstance(item, list) and len(item) == 2:
        return Row(where, {f"[{place}]": part for place, part in enumerate(item)})
    if not isinstance(item, dict):
        raise DataError(
            f"{file}, {where}: expected an object with columns or a pair [positive, negative], "
            f"got {item!r:.60}"
        )
    return Row(where, item)


def _from_columns(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    lengths = {len(v) if isinstance(v, list) else None for v in content.values()}
    if len(lengths) != 1 or None in lengths:
        raise DataError(
            f"{file} is one object, and its values are not columns of equal length; "
            "write a list of objects"
        )
    rows = zip(*content.values(), strict=True)
    return [dict(zip(content, values, strict=True)) for values in rows]


def _csv(file: Path, separator: str | None) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        first = lines.readline()
        lines.seek(0)
        used = separator or ("\t" if file.suffix.lower() == ".tsv" else _separator(first, file))
        reader = csv.reader(lines, delimiter=used, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, file)
            number = 0
            for values in reader:
                if not values:
                    continue
                number += 1
                where = f"row {number} (line {reader.line_num})"
                if len(values) != len(header):
                    raise DataError(
                        f"{file}, {where}: {len(values)} fields, but the header has {len(header)}; "
                        f"quote texts that hold the separator {used!r}"
                    )
                yield Row(where, dict(zip(header, values, strict=True)))
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num}: broken csv ({error})") from error


def _separator(header: str, file: Path) -> str:
    counts = {candidate: header.count(candidate) for candidate in SEPARATORS}
    best = max(counts, key=lambda candidate: counts[candidate])
    rivals = [c for c in SEPARATORS if c != best and counts[c] == counts[best] > 0]
    if rivals:
        raise DataError(
            f"{file}: the header could be split at {best!r} or {rivals[0]!r}; set data.separator"
        )
    return best


def _check_header(header: list[str], file: Path) -> None:
    repeated = [name for name in header if header.count(name) > 1]
    if repeated:
        raise DataError(f"{file}: column {repeated[0]!r} occurs twice in the header; rename one")


def _parquet(file: Path, separator: str | None) -> Iterator[Row]:
    del separator
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(file).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file} is not a readable parquet file: {error}") from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"row {number}", values)


def _columns(rows: tuple[Row, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for row in rows for name in row.values))


_READERS: Mapping[str, Callable[[Path, str | None], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
KINDS = ", ".join(_READERS)
