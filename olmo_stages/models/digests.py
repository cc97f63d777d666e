"""Identity of weights and tokenizers by their content. Does not import torch."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.looking import is_looking, make

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
RANDOM_INIT_VERSION = "transformers-init-weights-2"
"""Which initialisation `random_init` means; raise it when that changes."""

_TOKENIZER_FILES = re.compile(
    r"tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt"
    r"|.*\.jinja|tokenizer\.model|spiece\.model"
)
_READ_ON_THE_WAY = 2**30  # bytes of weights that are read by whoever only looks, in seconds
BOOKKEEPING = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


def read_config(path: Path) -> dict[str, Any]:
    """Read `config.json` of a checkpoint directory.

    Raises:
        ModelError: it is not there or is not JSON.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        inside = sorted(it.parent.name for it in path.glob("*/config.json"))
        shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        hint = f": one of its folders, {shown}?" if inside else ""
        raise ModelError(
            f"{path}: there is no config.json; give a directory in Hugging Face format{hint}"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: config.json cannot be read ({error}); give a directory in Hugging Face format"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(
            f"{path}: config.json holds no settings but {type(config).__name__}; save it again"
        )
    return config


def weight_files(path: Path) -> tuple[Path, ...]:
    """List the safetensors files that transformers would load, in its order of preference.

    `model.safetensors` comes before an index, and an index before other files: some released
    revisions carry a second set of shards that their index does not name.

    Raises:
        ModelError: no safetensors file, or one that the index names is missing.
    """
    if (path / SINGLE).is_file():
        return (path / SINGLE,)
    if not (path / INDEX).is_file():
        raise ModelError(_why_no_weights(path))
    names = weight_names(path)[1:]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        others = f", as are {len(missing) - 1} others of {len(names)}" if missing[1:] else ""
        raise ModelError(
            f"{path}: {missing[0]} is named by {INDEX} but missing{others}; download it again"
        )
    return tuple(path / name for name in names)


def weight_names(path: Path) -> list[str]:
    """Names under which transformers looks for weights: the single file, then those of the index.

    Raises:
        ModelError: the index is not one.
    """
    try:
        index = json.loads((path / INDEX).read_text()) if (path / INDEX).is_file() else None
        names = sorted(set(index["weight_map"].values())) if index else []
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{path / INDEX}: cannot be read ({type(error).__name__}); download it again"
        ) from error
    if outside:
        raise ModelError(
            f"{path / INDEX}: names {outside[0]}, which is not in the checkpoint's own directory; "
            "put all shards beside their index"
        )
    return [SINGLE, *names]


def _why_no_weights(path: Path) -> str:
    others = sorted(file.name for file in path.glob("*.safetensors"))
    if others:
        return (
            f"{path}: {others[0]} without {INDEX}; download the index too, or name a single file "
            f"{SINGLE}"
        )
    if any(path.glob("*.bin")):
        return (
            f"{path}: no *.safetensors file (pickled .bin weights are never loaded); convert it, "
            "e.g. AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR) where you "
            "trust its source"
        )
    return f"{path}: no *.safetensors file; save the model with save_pretrained()"


def config_digest(path: Path) -> str:
    """Digest of the architecture: config.json without the fields that only keep books."""
    return digest(architecture(path))


def architecture(path: Path) -> dict[str, Any]:
    """The fields of config.json that do not only keep books."""
    return {key: value for key, value in read_config(path).items() if key not in BOOKKEEPING}


def weights_digest(path: Path, cache: Path) -> str:
    """Digest of a local checkpoint: the content of its weight files and its config.

    Args:
        path: checkpoint directory in Hugging Face format.
        cache: folder where digests are kept with the sizes and modification times of the files
            they were made from, so that large weights are hashed once.
    """
    files = weight_files(path)
    stats = [file.stat() for file in files]
    seen = [
        [file.name, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)
    ]
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]
    record = cache / "digests" / f"{name}.json"
    contents = _recorded(record, seen)
    if contents is None:
        if sum(stat.st_size for stat in stats) > _READ_ON_THE_WAY:
            make(f"the digest of {path}, which no job has read yet")
        contents = [file_digest(file) for file in files]
        _record(record, {"files": seen, "contents": contents})
    named = {file.name: content for file, content in zip(files, contents, strict=True)}
    return digest({"config": config_digest(path), "weights": named})


def random_digest(path: Path, seed: int) -> str:
    """Digest of a random initialisation: it depends on the config and the seed, on no weight."""
    return digest({"config": config_digest(path), "init": RANDOM_INIT_VERSION, "seed": seed})


def tokenizer_digest(path: Path) -> str:
    """Digest of the tokenizer's files, its chat template included.

    Raises:
        ModelError: the directory has no tokenizer.
    """
    files = tokenizer_files(path)
    if not files:
        raise ModelError(f"{path}: no tokenizer files; copy them there with save_pretrained()")
    return digest({file.name: file_digest(file) for file in files})


def tokenizer_files(path: Path) -> tuple[Path, ...]:
    """The files of a directory that belong to a tokenizer, its chat template included."""
    return tuple(
        sorted(it for it in path.iterdir() if it.is_file() and _TOKENIZER_FILES.fullmatch(it.name))
    )


def digest(content: object) -> str:
    """SHA-256 of the JSON of `content`, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _recorded(record: Path, seen: list[list[Any]]) -> list[str] | None:
    try:
        content = json.loads(record.read_text())
    except (OSError, ValueError):
        return None
    return content["contents"] if content.get("files") == seen else None


def _record(record: Path, content: dict[str, Any]) -> None:
    if is_looking():
        return
    temporary = record.with_name(f"{record.name}.tmp.{os.getpid()}")
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content))
        temporary.replace(record)
    except OSError:
        # A cache that cannot be written costs hashing again, nothing else.
        temporary.unlink(missing_ok=True)
