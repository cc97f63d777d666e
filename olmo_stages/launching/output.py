"""Standard output and error of a launching process and of its jobs."""

import contextlib
import io
import sys
from typing import Any

_STREAMS = ((1, "stdout"), (2, "stderr"))


class Tolerant(io.FileIO):
    """A stream that costs no result when its disk is full or its reader is gone."""

    def write(self, data: Any) -> Any:  # noqa: ANN401  (any buffer; nothing where it would wait)
        """Write what can be written; the rest counts as written, too."""
        with contextlib.suppress(OSError):
            return super().write(data)
        return len(data)


def tolerate() -> None:
    """Let what cannot be printed be dropped: jobs may be a week's work, and write files."""
    for descriptor, name in _STREAMS:
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(_raw(stream), Tolerant):
            continue
        with contextlib.suppress(OSError, ValueError):
            if stream.fileno() == descriptor:
                stream.flush()
                setattr(sys, name, _like(stream, descriptor))


def _raw(stream: io.TextIOWrapper) -> Any:  # noqa: ANN401  (of whatever kind)
    return getattr(stream.buffer, "raw", stream.buffer)


def _like(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    raw: Any = Tolerant(descriptor, "w", closefd=False)
    is_buffered = hasattr(stream.buffer, "raw")  # not so under PYTHONUNBUFFERED
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if is_buffered else raw,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
