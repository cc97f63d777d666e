"""From a stage to its checkpoint on this machine and its identity. Does not import torch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from olmo_stages.errors import ModelError
from olmo_stages.models import adapter_files, digests
from olmo_stages.revisions import hub
from olmo_stages.stages import MINIATURE
from olmo_stages.types import Stage

ATTENTION = "sdpa"
"""Attention implementation; part of an activation's identity."""

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
        digest: identity of weights that were computed from other checkpoints; None for others.
    """

    path: Path
    commit: str | None
    digest: str | None = None


def locate(stage: Stage, cache: Path) -> Checkpoint:
    """Find a stage's checkpoint; build it (miniature family) or download it where needed.

    Args:
        stage: its source is `miniature`, a local directory, or a hub repo id.
        cache: folder under which the miniature family, averages and merged adapters are kept.

    Returns:
        The directory, which holds a config and safetensors weights.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be reached.
        StoreError: an average or a merged adapter cannot be written.
    """
    if stage.members:
        found = _averaged(stage, cache)
    elif stage.source == MINIATURE:
        from olmo_stages import miniature  # late: building needs the trainers

        found = Checkpoint(
            miniature.ensure(stage.name, stage.revision, root=cache / MINIATURE), None
        )
    elif (path := Path(stage.source).expanduser()).is_dir():
        is_adapter = adapter_files.holds_adapter(path)
        found = _adapted(stage, path, cache) if is_adapter else Checkpoint(path, None)
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
        a local directory; one of what it was made from for an average or a merged adapter; one of
        config and seed for a random initialisation.
    """
    if stage.random_init is not None:
        return digests.random_digest(checkpoint.path, stage.random_init)
    if (known := checkpoint.commit or checkpoint.digest) is not None:
        return known
    return digests.weights_digest(checkpoint.path, cache)


def _averaged(stage: Stage, cache: Path) -> Checkpoint:
    if stage.random_init is not None:  # all members have the same shape and tokenizer
        member = max(stage.members, key=lambda it: it.gives_tokenizer)
        return locate(replace(member.stage, random_init=stage.random_init), cache)
    from olmo_stages.models import soup  # late: it imports torch

    ingredients: list[soup.Ingredient] = []
    for it in stage.members:
        found = locate(it.stage, cache)
        digest = model_digest(it.stage, found, cache)
        ingredients.append(
            soup.Ingredient(it.stage.label, found.path, digest, it.weight, it.gives_tokenizer)
        )
    path, digest = soup.ensure_soup(ingredients, cache)
    return Checkpoint(path, None, digest)


def _adapted(stage: Stage, path: Path, cache: Path) -> Checkpoint:
    adapter = adapter_files.read_adapter(path)
    base = adapter_files.base_stage(stage, adapter)
    found = locate(replace(base, random_init=stage.random_init), cache)
    if stage.random_init is not None:
        return Checkpoint(adapter_files.ensure_untrained(adapter, found.path, cache), None)
    adapter_files.check_base(stage, adapter, found.path, cache)
    from olmo_stages.models import adapters  # late: it imports torch

    digest = model_digest(base, found, cache)
    merged, digest = adapters.ensure_merged(adapter, found.path, digest, cache)
    return Checkpoint(merged, None, digest)


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
