"""What a reader of vectors must know of the stages, the examples and the nulls behind them."""

from collections.abc import Iterator, Sequence

import numpy as np

from olmo_stages.estimates import unequal_groups
from olmo_stages.types import Activations, Stage
from olmo_stages.vectors.found import LEVEL, Found

FEWEST_GROUPS = 10
"""Groups of the rarer class below which intervals are rough."""

KEPT = 0.25
"""Correlation of the relabellings with the labels from which on they are worth a warning."""

APART = 0.1
"""Difference of the cosine with and without dominant dimensions that is worth a warning."""


def caveats(found: Sequence[Found], stage: Stage, reference: Stage | None) -> list[str]:
    """What a reader must know of stage, reference and vectors, one sentence each."""
    said: list[str] = []
    if reference is None:
        said.append(
            f"{stage.label} has no reference: cosines with another stage, transfer and shift are "
            "left out"
        )
    else:
        said += _of_pair(found[0], stage, reference)
    for one in found:
        prefix = "" if len(found) == 1 else f"{one.contrast.trait}: "
        said += [prefix + sentence for sentence in _of_trait(one)]
    return said


def _of_pair(found: Found, stage: Stage, reference: Stage) -> list[str]:
    pair = f"{stage.label} and {reference.label}"
    if found.same:
        return [f"{pair} have the same weights: their vectors are the same, whatever they are of"]
    if related(stage, reference):
        return []
    return [
        f"{pair} share no known ancestor: separately trained models have coordinates of their own, "
        "so cosine, transfer and shift between them mean nothing"
    ]


def related(one: Stage, other: Stage) -> bool:
    """Whether two stages come from the same initial weights, so that they share coordinates."""
    if one.random_init is not None or other.random_init is not None:
        return one == other
    return bool(_ancestors(one) & _ancestors(other))


def _ancestors(stage: Stage) -> set[tuple[str, str, str]]:
    """Every checkpoint that it comes from, but for the revision."""
    found: set[tuple[str, str, str]] = set()
    for it in stage.lineage():
        found.add((it.name, it.size, it.source))
        for member in it.members:
            found |= _ancestors(member.stage)
    return found


def _of_trait(found: Found) -> Iterator[str]:
    contrast, n_layers = found.contrast, len(found.turns)
    if contrast.n_left_out:
        yield f"{contrast.n_left_out} examples without a counterpart are left out"
    fewest = min(len(np.unique(contrast.groups[contrast.labels == c])) for c in (0, 1))
    if fewest < FEWEST_GROUPS:
        yield (
            f"a class occurs in {fewest} groups; intervals over fewer than {FEWEST_GROUPS} are "
            "rough"
        )
    if found.compared:
        yield from _of_null(found)
    weak = {getattr(found.where, name): sum(found.unreliable(name)) for name in found.sides()}
    if any(weak.values()):
        counts = " and ".join(f"{n} of {n_layers} layers of {label}" for label, n in weak.items())
        yield f"reliability is not above zero in {counts}: what is said of vectors there is noise"
    if found.compared:
        raw, standardised = (
            found.numbers(lambda turn: turn.cosine.value, variant)
            for variant in ("raw", "standardised")
        )
        gap = np.nan_to_num(np.abs(raw - standardised))
        if gap.max() > APART:
            at = int(gap.argmax())
            yield (
                f"a few dominant dimensions decide the cosine: at layer {found.where.layers[at]} "
                f"it is {raw[at]:.3f} with them and {standardised[at]:.3f} with them scaled down; "
                "read both variants"
            )


def _of_null(found: Found) -> Iterator[str]:
    contrast, nulls = found.contrast, found.nulls
    if not len(nulls.relabelled):
        yield "no null of relabelling was drawn: analysis.n_permutations=0"
        return
    unequal = unequal_groups(contrast.labels, [str(group) for group in contrast.groups])
    if not nulls.exchangeable:
        yield (
            "no label can change places (groups of one label exchange it with groups of the same "
            "size, and here no such group has the other label): no null of relabelling and no p"
        )
    elif nulls.n_distinct < 1 / LEVEL:
        yield (
            f"only {nulls.n_distinct} different relabellings are possible: no p can fall below "
            f"{1 / nulls.n_distinct:.2g}"
        )
    kept = nulls.kept(contrast.labels)
    if nulls.exchangeable and nulls.relabelled.pairs is None and kept > KEPT:
        yield (
            f"few labels can change places (groups of one label exchange it with groups of the "
            f"same size): the relabelled contrasts are still {kept:.0%} the trait's own, so their "
            "cosines are not those of labels that say nothing, and p errs on the large side"
        )
    if nulls.relabelled.pairs is not None:
        yield (
            "the null of pca pairs examples of one label at random: such differences hold what "
            "varies between texts and cancels within the data's pairs, so p and z say whether the "
            "trait's axis is more alike than theirs, not whether the labels say anything"
        )
    if unequal and nulls.exchangeable:
        yield (
            f"{unequal} groups hold both labels unequally often; their examples were relabelled "
            "one by one, so p is too small if they are paraphrases of one another"
        )


def of_reading(acts: Activations, other: Activations | None) -> list[str]:
    """What must be known of how the texts were read, one sentence each.

    Args:
        acts: one layer of the stage.
        other: one layer of the reference.
    """
    n = len(acts.ids)
    said: list[str] = []
    if other is not None:
        differ = sum(a != b for a, b in zip(acts.token_ids, other.token_ids, strict=True))
        if differ:
            said.append(
                f"{acts.stage.label} and {other.stage.label} see different token ids in {differ} "
                f"of {n} examples: a turned vector may be one of other tokens"
            )
    counts = [f"{count} {reason}" for reason, count in acts.left_out.items() if count]
    if counts:
        said.append(f"tokens left out of {n} texts: {', '.join(counts)}")
    for count, what in (
        (acts.n_at_sink, "are read at the attention sink, sequence position 0"),
        (acts.n_truncated, "were longer than the context and lost their beginning"),
        (acts.n_joined, "have prompt and response tokenised apart and joined"),
    ):
        if count:
            said.append(f"{count} of {n} texts {what}")
    return said
