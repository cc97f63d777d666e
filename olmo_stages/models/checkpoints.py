"""From a stage to its checkpoint on this machine and its identity. Does not import torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from olmo_stages.errors import ModelError
from olmo_stages.models import digests
from olmo_stages.revisions import hub
from olmo_stages.stages import MINIATURE
from olmo_stages.types import Stage

ATTENTION = "sdpa"
"""Attention implementation; part of an activation's identity."""

QUANTISATION = "none"
"""Quantisation of the weights; part of an activation's identity."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SMALL_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
    digests.INDEX,
]
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory on this machine.

    Args:
        path: directory in Hugging Face format.
        commit: commit of the hub repository; None for a local directory.
    """

    path: Path
    commit: str | None


def locate(stage: Stage, cache: Path) -> Checkpoint:
    """Find a stage's checkpoint; build it (miniature family) or download it where needed.

    Args:
        stage: its source is `miniature`, a local directory, or a hub repo id.
        cache: folder under which the miniature family is kept.

    Returns:
        The directory, which holds a config and safetensors weights.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be reached.
    """
    if stage.source == MINIATURE:
        from olmo_stages import miniature  # late: building needs the trainers

        found = Checkpoint(
            miniature.ensure(stage.name, stage.revision, root=cache / MINIATURE), None
        )
    elif (path := Path(stage.source).expanduser()).is_dir():
        found = Checkpoint(path, None)
    elif _HUB_ID.fullmatch(stage.source):
        found = _download(stage)
    else:
        raise ModelError(
            f"stage {stage.label}: directory {stage.source} does not exist; give a directory in "
            "Hugging Face format or a hub id like allenai/Olmo-3-1025-7B"
        )
    digests.read_config(found.path)
    if stage.random_init is None:
        digests.weight_files(found.path)
    return found


def model_digest(stage: Stage, checkpoint: Checkpoint, cache: Path) -> str:
    """Identity of the weights that `load` would give.

    Args:
        stage: trained or randomly initialised.
        checkpoint: where it lies.
        cache: folder that remembers the digests of large files.

    Returns:
        The commit for a hub snapshot, whatever the spelling of its id; a digest of the content for
        a local directory; a digest of config and seed for a random initialisation.
    """
    if stage.random_init is not None:
        return digests.random_digest(checkpoint.path, stage.random_init)
    if checkpoint.commit is not None:
        return checkpoint.commit
    return digests.weights_digest(checkpoint.path, cache)


def _download(stage: Stage) -> Checkpoint:
    """Small files first, then the weights by name: what the index does not name stays away.

    Some repositories also hold the weights as .bin, pickled and twice the download, and some a
    second set of shards.
    """
    path = _snapshot(stage, hub.pin(stage) or stage.revision, _SMALL_FILES)
    commit = path.name if _COMMIT.fullmatch(path.name) else None
    if stage.random_init is None:
        # At the commit of the small files, should the branch move meanwhile.
        path = _snapshot(stage, commit or stage.revision, digests.weight_names(path))
    return Checkpoint(path, commit)


def _snapshot(stage: Stage, revision: str, patterns: list[str]) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                stage.source,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],  # a pattern's * goes into folders
            )
        )
    # All of the hub's errors are one or the other: unknown id or revision, gated, no connection.
    except (OSError, ValueError) as error:
        raise ModelError(
            f"stage {stage.label}: {stage.source} at revision {stage.revision} is neither a "
            f"directory nor in reach on the hub ({type(error).__name__}); check the id and the "
            "revision, connect or log in (hf auth login), or give a local directory"
        ) from error
