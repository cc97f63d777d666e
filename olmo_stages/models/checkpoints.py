"""From a stage to its checkpoint on this machine and its identity. Does not import torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from olmo_stages.errors import ModelError
from olmo_stages.looking import is_looking
from olmo_stages.models import adapter_files, borrowed, digests, released, snapshots
from olmo_stages.revisions.names import MAIN
from olmo_stages.stages import MINIATURE, lookup
from olmo_stages.types import Stage

ATTENTION = "sdpa"
"""Attention implementation; part of an activation's identity."""


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


def locate(stage: Stage, cache: Path, *, weights: bool = True) -> Checkpoint:
    """Find a stage's checkpoint; build it (miniature family) or download it where needed.

    Args:
        stage: its source is `miniature`, a local directory, or a hub repo id.
        cache: folder under which the miniature family, averages and merged adapters are kept.
        weights: whether they must be there; False = config and tokenizer are enough, and nothing
            large is downloaded or computed. A random initialisation needs none.

    Returns:
        The directory, which holds a config and safetensors weights. The config of a released
        stage is the released one.

    Raises:
        ModelError: there is no such checkpoint, it cannot be reached, or it is not what its name
            says.
        StoreError: an average or a merged adapter cannot be written.
    """
    weights = weights and stage.random_init is None
    if stage.members:
        found = _averaged(stage, cache) if weights else _shape_of_average(stage, cache)
    elif stage.source == MINIATURE:
        from olmo_stages import miniature  # late: building needs the trainers

        found = Checkpoint(
            miniature.ensure(stage.name, stage.revision, root=cache / MINIATURE), None
        )
    elif (path := Path(stage.source).expanduser()).is_dir():
        _check_no_revision(stage)
        is_adapter = adapter_files.holds_adapter(path)
        found = _adapted(stage, path, cache, weights) if is_adapter else Checkpoint(path, None)
    elif adapter_files.HUB_ID.fullmatch(stage.source):
        found = _downloaded(stage, cache, weights)
    else:
        hub_id, _, revision = stage.source.partition("@")
        spelt = revision and adapter_files.HUB_ID.fullmatch(hub_id)
        hint = f" (did you mean model.path={hub_id} model.revision={revision}?)" if spelt else ""
        raise ModelError(
            f"stage {stage.label}: directory {stage.source} does not exist; give a directory in "
            f"Hugging Face format or a hub id like allenai/Olmo-3-1025-7B{hint}"
        )
    digests.read_config(found.path)
    released.check_release(stage, found.path)
    # A commit says which weights they are, wherever they may be.
    if weights and not (is_looking() and found.commit):
        digests.weight_files(found.path)
    return _with_tokenizer(stage, found, cache)


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


def _shape_of_average(stage: Stage, cache: Path) -> Checkpoint:
    # All members have the same shape and tokenizer.
    member = max(stage.members, key=lambda it: it.gives_tokenizer)
    return locate(replace(member.stage, random_init=stage.random_init), cache, weights=False)


def _averaged(stage: Stage, cache: Path) -> Checkpoint:
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


def _check_no_revision(stage: Stage) -> None:
    """Refuse a revision of a directory, which would be a name and no other weights.

    A directory in place of a released repository is told by its revision which it stands for.

    Raises:
        ModelError: says so.
    """
    if stage.size == "custom" and stage.revision != MAIN:
        raise ModelError(
            f"stage {stage.label}: {stage.source} is a directory, which has no revision "
            f"{stage.revision}; give the directory of that checkpoint, and model.revision={MAIN}"
        )


def _downloaded(stage: Stage, cache: Path, weights: bool) -> Checkpoint:  # noqa: FBT001
    path, commit = snapshots.small_files(stage)
    if adapter_files.holds_adapter(path):
        snapshots.adapter_weights(stage, path, commit)
        return _adapted(stage, path, cache, weights)
    if weights and not (is_looking() and commit):
        snapshots.weights(stage, path, commit)
    return Checkpoint(path, commit)


def _with_tokenizer(stage: Stage, found: Checkpoint, cache: Path) -> Checkpoint:
    """Beside the tokenizer of another stage, where it was released without one."""
    told = released.release_of(stage)
    if told is None or told.tokenizer_from is None or (found.path / "tokenizer.json").is_file():
        return found
    giver = lookup(told.tokenizer_from, stage.size)
    tokenizer = locate(giver, cache, weights=False).path
    return replace(found, path=borrowed.ensure_joined(found.path, giver, tokenizer, cache))


def _adapted(stage: Stage, path: Path, cache: Path, weights: bool) -> Checkpoint:  # noqa: FBT001
    adapter = adapter_files.read_adapter(path)
    base = adapter_files.base_stage(stage, adapter)
    found = locate(replace(base, random_init=stage.random_init), cache, weights=weights)
    if not weights:
        return Checkpoint(adapter_files.ensure_untrained(adapter, found.path, cache), None)
    adapter_files.check_base(stage, adapter, found.path, cache)
    from olmo_stages.models import adapters  # late: it imports torch

    digest = model_digest(base, found, cache)
    merged, digest = adapters.ensure_merged(adapter, found.path, digest, cache)
    return Checkpoint(merged, None, digest)
