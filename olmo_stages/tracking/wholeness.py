"""Whether an offline run is whole on disk: W&B's service says nothing when the disk is full."""

import struct
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

# Of LevelDB's log, in which W&B keeps a run: a header of its own, then records cut at blocks.
_START = 7
_BLOCK = 32768
_HEAD = struct.Struct("<IHB")
_ENDS_RECORD = frozenset({1, 4})
_POLL_S = 0.02


def becomes_whole(place: Path, patience_s: float = 5.0) -> bool:
    """Whether a run that was just ended ends with that on disk, too.

    Args:
        place: folder of an offline run.
        patience_s: how long to wait for the service, which writes a moment later.
    """
    deadline = time.monotonic() + patience_s
    while not (whole := is_whole(place)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return whole


def is_whole(place: Path) -> bool:
    """Whether a run ends on disk as W&B ends a run.

    Args:
        place: folder of an offline run.
    """
    from wandb.proto import wandb_internal_pb2

    for file in place.glob("run-*.wandb"):
        last = deque(_records(file.read_bytes()), maxlen=1)
        # Its fields are made when it is imported.
        record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(last[0] if last else b"")
        return record.WhichOneof("record_type") == "exit"
    return False


def _records(content: bytes) -> Iterator[bytes]:
    """The records up to the end, or to where the file is cut."""
    at, record = _START, b""
    while at + _HEAD.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD.size:
            at += left
            continue
        _, length, kind = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        if not kind or at + length > len(content):
            return
        record += content[at : at + length]
        at += length
        if kind in _ENDS_RECORD:
            yield record
            record = b""
