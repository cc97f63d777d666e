"""Checkpoints that were released without a tokenizer, beside that of another stage.

Imports no torch.
"""

import json
from pathlib import Path

from olmo_stages.models import derived, digests
from olmo_stages.types import Stage

_GIVER = "tokenizer of"


def ensure_joined(path: Path, giver: Stage, tokenizer: Path, cache: Path) -> Path:
    """A directory with the config and weights of one checkpoint and the tokenizer of another.

    Args:
        path: the checkpoint; its files are linked to, not copied.
        giver: the stage whose tokenizer is taken.
        tokenizer: its checkpoint directory.
        cache: the cache folder.

    Returns:
        The directory, named by what is in it.

    Raises:
        ModelError: the other checkpoint has no tokenizer either.
        StoreError: it cannot be written.
    """
    own = {file.name for file in digests.tokenizer_files(path)}
    kept = sorted(it.resolve() for it in path.iterdir() if it.is_file() and it.name not in own)
    names = sorted(it.name for it in path.iterdir() if it.is_file() and it.name not in own)
    cut = digests.tokenizer_digest(tokenizer)

    def write(folder: Path) -> None:
        for name in names:
            (folder / name).symlink_to((path / name).resolve())
        derived.copy_small(digests.tokenizer_files(tokenizer), folder)

    key = digests.digest(["borrowed", [str(it) for it in kept], names, cut])
    record = {"weights": str(path), _GIVER: giver.label, "tokenizer": cut}
    return derived.ensure(key, cache, write, record)


def giver_of(path: Path) -> str | None:
    """Label of the stage whose tokenizer a checkpoint directory has; None if it has its own."""
    try:
        return json.loads((path / derived.RECORD).read_text(encoding="utf-8")).get(_GIVER)
    except (OSError, ValueError, AttributeError):
        return None
