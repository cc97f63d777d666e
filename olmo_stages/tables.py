"""Tables of results as parquet files: many rows, few columns, read when somebody asks for them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from olmo_stages.errors import StoreError
from olmo_stages.types import Table

_KINDS = "biufU"


def parquet(name: str, table: Table) -> bytes:
    """Return a table as a parquet file, small where texts repeat and floats are alike.

    A table of 200 000 tokens with float32 scores at 33 layers, a column a layer, is 22 MB; pandas
    reads chosen columns of it alone.

    Args:
        name: name of the table, for the message.
        table: columns of one length, by name: texts, truths, whole numbers or floats.

    Raises:
        StoreError: columns of different lengths, or of something else.
    """
    import pyarrow as pa  # late: it takes as long to import as all else
    import pyarrow.parquet as pq

    lengths = {column: len(values) for column, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise StoreError(f"cannot store table {name!r}: columns of different lengths, {lengths}")
    arrays = {column: _array(name, column, values) for column, values in table.items()}
    # Any: the stubs of pyarrow know only of all columns or none.
    floats: Any = [column for column, it in arrays.items() if pa.types.is_floating(it.type)]
    texts: Any = [column for column, it in arrays.items() if pa.types.is_string(it.type)]
    buffer = io.BytesIO()
    pq.write_table(
        pa.table(arrays),
        buffer,
        compression="zstd",
        use_dictionary=texts,
        use_byte_stream_split=floats,
    )
    return buffer.getvalue()


def numbers(values: np.ndarray, present: np.ndarray | None = None):  # noqa: ANN201  (pyarrow)
    """Return numbers as a column, null where they are not present.

    From its buffers, because whatever else makes an array of pyarrow imports pandas, if there is
    one, which takes longer than the numbers of a small job.
    """
    import pyarrow as pa

    plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    known = None if present is None else pa.py_buffer(np.packbits(present, bitorder="little"))
    kind = pa.from_numpy_dtype(plain.dtype)
    return pa.Array.from_buffers(kind, len(plain), [known, pa.py_buffer(plain)])


def texts(values: Sequence[str]):  # noqa: ANN201  (pyarrow is imported late)
    """Return texts as a column, likewise."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    if ends[-1] >= 2**31:  # what 32-bit offsets reach
        return pa.array(values, type=pa.string())
    offsets, text = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))
    return pa.Array.from_buffers(pa.string(), len(encoded), [None, offsets, text])


def _array(table: str, name: str, values: Sequence[str] | np.ndarray):  # noqa: ANN202  (pyarrow is imported late)
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        if values.ndim == 1 and values.dtype.kind in _KINDS:
            return numbers(values) if values.dtype.kind in "iuf" else pa.array(values)
        said = f"an array of {values.dtype} {values.shape}"
    else:
        try:
            return (
                texts(values)
                if set(map(type, values)) <= {str}
                else pa.array(values, type=pa.string())
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeError) as error:
            said = str(error)
    raise StoreError(
        f"cannot store column {name!r} of table {table!r}: {said}; give a list of texts or an "
        "array of numbers with one axis"
    )


class Tables(Mapping[str, Table]):
    """Tables on disk by name, each read when it is asked for and not kept.

    Args:
        files: where each lies.
    """

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = dict(files)

    def __getitem__(self, name: str) -> Table:
        """The columns of a table: arrays of numbers, and lists of texts.

        Raises:
            KeyError: there is no table of that name.
            StoreError: its file is gone or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._files[name]
        try:
            # Through memory: a mapped file that another job replaces would take the process along.
            found = pq.read_table(io.BytesIO(path.read_bytes()))
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{path} is damaged; run its job again") from error
        return {
            column: values.to_pylist() if pa.types.is_string(values.type) else values.to_numpy()
            for column, values in zip(found.column_names, found.columns, strict=True)
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
