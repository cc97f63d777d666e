"""Snapshots of hub repositories: what a model needs, at one commit. Does not import torch."""

from pathlib import Path

from olmo_stages.atomic import REFUSALS, disk_trouble, refusal
from olmo_stages.errors import ModelError, StoreError
from olmo_stages.looking import is_looking, make
from olmo_stages.models import adapter_files, digests
from olmo_stages.revisions import hub
from olmo_stages.types import Stage

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
    adapter_files.CONFIG,
]


def small_files(stage: Stage) -> tuple[Path, str | None]:
    """Download what is not weights.

    Args:
        stage: its source is a hub repo id.

    Returns:
        The snapshot, and its commit where it is known.

    Raises:
        ModelError: there is no such repository or revision, or the hub is not in reach.
        StoreError: the hub's cache is full or cannot be written.
    """
    path = _snapshot(stage, hub.pin(stage) or stage.revision, _SMALL_FILES)
    is_whole = (path / "config.json").is_file() and digests.tokenizer_files(path)
    if not is_whole and not adapter_files.holds_adapter(path):  # a cache may hold a part of them
        make(f"small files of {stage.source} at revision {stage.revision}")
    return path, path.name if hub.is_commit(path.name) else None


def weights(stage: Stage, path: Path, commit: str | None) -> None:
    """Download the weights of a snapshot by name: what the index does not name stays away.

    Some repositories also hold the weights as .bin, pickled and twice the download, and some a
    second set of shards.

    Args:
        stage: the stage.
        path: the snapshot, with its small files.
        commit: of the snapshot, should the branch move meanwhile.

    Raises:
        ModelError: the index is not one, or the hub is not in reach.
        StoreError: the hub's cache is full or cannot be written.
    """
    _snapshot(stage, commit or stage.revision, digests.weight_names(path))


def adapter_weights(stage: Stage, path: Path, commit: str | None) -> None:
    """Download the weights of an adapter.

    Args:
        stage: the stage.
        path: the snapshot, with its small files.
        commit: of the snapshot.

    Raises:
        ModelError: the repository holds a model too, or the hub is not in reach.
        StoreError: the hub's cache is full or cannot be written.
    """
    if not (path / digests.INDEX).is_file() and hub.has_file(stage.source, commit, digests.SINGLE):
        raise ModelError(
            f"stage {stage.label}: {stage.source} holds an adapter ({adapter_files.CONFIG}) and a "
            f"model ({digests.SINGLE}); download the one that is meant, and give its directory"
        )
    _snapshot(stage, commit or stage.revision, [adapter_files.WEIGHTS])


def _snapshot(stage: Stage, revision: str, patterns: list[str]) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                stage.source,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=["*/*"],  # a pattern's * goes into folders
                local_files_only=is_looking(),
            )
        )
    # All of the hub's errors are one of the first two: unknown id or revision, gated, no
    # connection. The third is that of its library for large files, for a disk that is full.
    except (OSError, ValueError, RuntimeError) as error:
        refused = refusal(error)
        if refused is not None and refused.errno in REFUSALS:
            place = Path(huggingface_hub.constants.HF_HUB_CACHE)
            raise StoreError(disk_trouble(place, refused, "HF_HUB_CACHE=DIR")) from error
        if isinstance(error, RuntimeError):
            raise
        if hub.is_misspelt(stage):
            said = hub.unknown_revision(stage)
            raise ModelError(f"{said} (as far as is known here: no hub in reach)") from error
        make(f"{stage.source} at revision {stage.revision}")
        raise ModelError(
            f"stage {stage.label}: {stage.source} at revision {stage.revision} is neither a "
            f"directory nor in reach on the hub ({type(error).__name__}); check the id and the "
            "revision, connect or log in (hf auth login), or give a local directory"
        ) from error
