"""Stages that are averages of others: what is averaged, under which name, beside which parent."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from olmo_stages.checks import checked
from olmo_stages.errors import ConfigError
from olmo_stages.stages import MINIATURE, catalogue, custom, lookup
from olmo_stages.types import Member, Stage

_NAME_DIGITS = 6
_TOLERANCE = 1e-6
_NOTHING = 1e-12


@checked
def soup(
    *,
    of: Sequence[str] | str | None,
    weights: Sequence[float | int] | None,
    name: str | None,
    parent: str | None,
    tokenizer: str | None,
    size: str,
) -> Stage:
    """A weighted average of checkpoints as a stage of its own.

    Neither the order of the members nor the scale of positive weights is part of it.

    Args:
        of: members, each `NAME[@REVISION]` of a stage in this size, a local directory in Hugging
            Face format, or a hub id.
        weights: one for each member; None = equal. Positive weights are divided by their sum;
            with a negative one (task arithmetic) they must sum to 1 as given.
        name: how tables call it; default: `soup-` and a digest of members and weights.
        parent: `NAME[@REVISION]` that it is compared with; None = the nearest stage that every
            member is or comes from, if there is one.
        tokenizer: the member, spelt as in `of`, whose tokenizer and chat template it takes; None
            where the members' are the same.
        size: size of members and parent.

    Returns:
        The stage; its `source` names members and weights.

    Raises:
        ConfigError: no members, an unknown one, or weights that cannot be used.
    """
    spelt = [of] if isinstance(of, str) else list(of or ())
    if not spelt:
        raise ConfigError(
            "model=soup needs model.of=[STAGE@REVISION,...], e.g. "
            "model.of=[base@stage1-step100,base]"
        )
    shares = _shares(spelt, weights)
    if tokenizer is not None and tokenizer not in spelt:
        raise ConfigError(
            f"model.tokenizer={tokenizer} is no member of the soup; choose from {', '.join(spelt)}"
        )
    members = _members([_member(it, size) for it in spelt], shares)
    if tokenizer is not None:
        chosen = _member(tokenizer, size)
        members = [Member(it.stage, it.weight, it.stage == chosen) for it in members]
    source = " + ".join(map(_told, members))
    exact = [(it.weight.hex(), _told(it)) for it in members]
    digest = hashlib.sha256(repr(exact).encode()).hexdigest()
    own = all(it.stage.size == "custom" for it in members)
    return Stage(
        name=name or f"soup-{digest[:_NAME_DIGITS]}",
        size="custom" if own else size,
        source=source,
        parent=_shared([it.stage for it in members]) if parent is None else lookup(parent, size),
        members=tuple(members),
    )


def is_miniature(stage: Stage) -> bool:
    """Whether a stage is of the miniature family, or averages one that is."""
    return stage.source == MINIATURE or any(is_miniature(it.stage) for it in stage.members)


def common_root(stage: Stage) -> Stage:
    """The first root of an average's members; the average itself where they have several."""
    roots = [it.stage.lineage()[0] for it in stage.members]
    return roots[0] if len({root.name for root in roots}) == 1 else stage


def _shares(spelt: Sequence[str], weights: Sequence[float | int] | None) -> list[float]:
    if weights is None:
        return [1 / len(spelt)] * len(spelt)
    given = f"model.weights={list(weights)}"
    if len(weights) != len(spelt):
        raise ConfigError(
            f"{given} are {len(weights)} for the {len(spelt)} members of model.of; give one each"
        )
    if not all(math.isfinite(it) and it != 0 for it in weights):
        raise ConfigError(f"{given}: a weight must be a number other than 0; leave that member out")
    total = math.fsum(weights)
    if min(weights) < 0 and abs(total - 1) > _TOLERANCE:
        raise ConfigError(
            f"{given} sum to {total:g}; with a weight below 0 they must sum to 1 as given, e.g. "
            "[1,-1,1] or [1.5,-0.5]"
        )
    return [it / total for it in weights]


def _member(spelt: str, size: str) -> Stage:
    name, _, revision = spelt.partition("@")
    if name in catalogue():
        return lookup(spelt, size)
    path = Path(spelt).expanduser()
    if path.is_dir():
        return custom(path=str(path.resolve()), name=None, parent=None, revision="main", size=size)
    if "/" in spelt:
        return custom(path=name, name=None, parent=None, revision=revision or "main", size=size)
    return lookup(spelt, size)  # which says what there is


def _members(stages: Sequence[Stage], shares: Sequence[float]) -> list[Member]:
    """Each checkpoint once, in an order that is not the caller's."""
    totals: dict[Stage, float] = {}
    for stage, share in zip(stages, shares, strict=True):
        totals[stage] = totals.get(stage, 0.0) + share
    kept = [Member(stage, weight) for stage, weight in totals.items() if abs(weight) > _NOTHING]
    return sorted(kept, key=lambda it: (_spelt(it.stage), it.stage.size))


def _spelt(stage: Stage) -> str:
    revision = "" if stage.revision == "main" else f"@{stage.revision}"
    return f"{stage.source}{revision}" if stage.size == "custom" else stage.label


def _told(member: Member) -> str:
    tokenizer = " (its tokenizer)" if member.gives_tokenizer else ""
    return f"{member.weight:.6g} {_spelt(member.stage)}{tokenizer}"


def _shared(stages: Sequence[Stage]) -> Stage | None:
    """The nearest stage that all are or come from; of a single one its parent."""
    if len(stages) == 1:
        return stages[0].parent
    shared: Stage | None = None
    for level in zip(*(stage.lineage() for stage in stages), strict=False):
        if len(set(level)) > 1:
            break
        shared = level[0]
    return shared
