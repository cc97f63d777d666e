"""Files whose names carry the digest of their content, and safetensors without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors import SafetensorError, deserialize

from olmo_stages.atomic import write_file
from olmo_stages.errors import StoreError

_DTYPES = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64}


def write_digested(folder: Path, stem: str, content: bytes) -> str:
    """Write `stem.DIGEST.safetensors` and return its name."""
    name = f"{stem}.{xxhash.xxh3_128_hexdigest(content)}.safetensors"
    write_file(folder / name, content)
    return name


def read_digested(path: Path) -> bytes:
    """Read a file and check it against the digest in its name.

    Raises:
        StoreError: it is damaged, missing or unreadable.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {_remedy(path)}") from error
    if xxhash.xxh3_128_hexdigest(content) != path.name.split(".")[-2]:
        raise StoreError(f"{path} is damaged: its content does not fit its digest; {_remedy(path)}")
    return content


def tensors(content: bytes) -> dict[str, np.ndarray]:
    """Decode safetensors without torch; bfloat16 becomes float32, which holds it exactly."""
    found: dict[str, np.ndarray] = {}
    for name, tensor in deserialize(content):
        data, shape = tensor["data"], tensor["shape"]
        if tensor["dtype"] == "BF16":
            bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
            found[name] = bits.view(np.float32).reshape(shape)
        else:
            found[name] = np.frombuffer(data, dtype=_DTYPES[tensor["dtype"]]).reshape(shape)
    return found


def metadata(content: bytes) -> Mapping[str, str]:
    """Metadata in the header of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header.get("__metadata__", {})


def is_sound(path: Path, expected: Mapping[str, str]) -> bool:
    """Whether a file is undamaged and its metadata is as expected."""
    try:
        content = read_digested(path)
        return dict(metadata(content)) == dict(expected) and bool(deserialize(content))
    except (StoreError, SafetensorError, ValueError):
        return False


def _remedy(path: Path) -> str:
    return f"delete the folder {path.parent} to have it computed again"
