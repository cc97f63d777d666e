"""What the cosine of two stages would be if the labels said nothing.

Three nulls, drawn once and used in every layer. `relabelled`: the same relabelling in both stages;
what they share besides the trait stays shared, so that only what the labels add counts.
`independent`: another relabelling in each stage; the cosine of unrelated vectors of these
activations, far wider than 1/sqrt(d_model) where few dimensions hold most of the variance.
`unrelated`: the groups split at random, balanced over the labels, the same in both stages; a
contrast that is really there in the texts but is about something else.

Kinds that work on pairs have no use for swapped labels: the axis of the differences does not change
when a pair is turned round. Their relabellings match every example at random with another one of
the same label. The differences then hold all that varies between texts but the trait, and if labels
and pairs said nothing the pairs of the data would be such pairs.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from olmo_stages.estimates import permuted_labels
from olmo_stages.vectors.contrast import Contrast, Targets


@dataclass(frozen=True, eq=False)
class Nulls:
    """Draws for one contrast.

    Args:
        relabelled: the relabellings.
        partner: for each of them, the one that the reference gets in the `independent` null.
        unrelated: the unrelated contrasts.
        n_distinct: how many vectors the relabellings and the labels themselves tell apart, up to
            sign.
    """

    relabelled: Targets
    partner: Int[np.ndarray, " permutation"]
    unrelated: Targets
    n_distinct: int

    def n_different(self, name: str) -> int:
        """How many vectors p is made of, at most: those of a null, up to sign, and the data's own.

        Draws that come again are no further evidence.
        """
        if name != "unrelated":
            return self.n_distinct
        return 1 + _n_up_to_sign(self.unrelated)

    def kept(self, labels: Int[np.ndarray, " row"]) -> float:
        """Mean correlation of the relabellings with the labels; 0 where all could change places.

        Args:
            labels: of the contrast.
        """
        own = labels - labels.mean()
        drawn = self.relabelled.labels - self.relabelled.labels.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(drawn, axis=1) * np.linalg.norm(own)
        return float((drawn @ own / np.where(lengths > 0, lengths, 1.0)).mean())

    @property
    def exchangeable(self) -> bool:
        """Whether any relabelling differs from the labels; if none does, every p is 1."""
        return self.n_distinct > 1


def draw(
    contrast: Contrast, n_permutations: int, n_unrelated: int, seed: int, *, pairs: bool = False
) -> Nulls:
    """Draw relabellings and unrelated contrasts.

    Args:
        contrast: the examples.
        n_permutations: number of relabellings; whole groups exchange their labels, see
            `olmo_stages.estimates.permuted_labels`.
        n_unrelated: number of unrelated contrasts.
        seed: the same seed and examples give the same draws, for any stage.
        pairs: whether the kind works on pairs.
    """
    rng = np.random.default_rng((seed, 1))
    if pairs:
        matched = [_matched(contrast.labels, rng) for _ in range(n_permutations)]
        relabelled = _stack(matched, len(contrast.rows), pairs=True)
        n_distinct = 1 + _n_up_to_sign(relabelled)
    else:
        names = [f"{group:09d}" for group in contrast.groups]
        drawn = permuted_labels(contrast.labels, names, n_permutations, seed).astype(np.int8)
        relabelled = Targets(drawn)
        every = 2 * np.concatenate([contrast.labels[None].astype(np.int8), drawn]) - 1
        n_distinct = len(np.unique(every * every[:, :1], axis=0))
    unrelated = [
        _contrast_of(contrast.labels, _halves(contrast, rng), rng, pairs=pairs)
        for _ in range(n_unrelated)
    ]
    return Nulls(
        relabelled=relabelled,
        partner=np.roll(np.arange(n_permutations), -1),
        unrelated=_stack(unrelated, len(contrast.rows), pairs=pairs),
        n_distinct=n_distinct,
    )


def _n_up_to_sign(targets: Targets) -> int:
    """How many of the targets differ by more than which side is called positive."""
    if targets.pairs is not None:
        pairs = np.sort(targets.pairs, axis=2)
        order = np.argsort(pairs[:, :, 0], axis=1, kind="stable")
        return len(np.unique(np.take_along_axis(pairs, order[:, :, None], axis=1), axis=0))
    sides = np.where(targets.labels < 0, 0, 2 * targets.labels - 1)
    first = np.take_along_axis(sides, np.argmax(sides != 0, axis=1)[:, None], axis=1)
    return len(np.unique(sides * first, axis=0))


def control(
    contrast: Contrast, values: Float[np.ndarray, " row"], seed: int, *, pairs: bool = False
) -> Targets | None:
    """The contrast between high and low `values`, e.g. numbers of tokens, among the same examples.

    Each class is split at its own median, and examples are left out at random until both sides
    hold as many of each class, so that the trait has no part in it.

    Args:
        contrast: the examples.
        values: one number a row of the contrast.
        seed: of what is left out.
        pairs: whether the kind works on pairs.

    Returns:
        One target; None where the values vary in neither class.
    """
    side = np.full(len(values), -1, dtype=np.int8)
    for label in (0, 1):
        rows = np.flatnonzero(contrast.labels == label)
        own = values[rows]
        high = own > np.median(own) if own.max() > np.median(own) else own >= own.max()
        if not high.all():
            side[rows] = high
    if not (side >= 0).any():
        return None
    rng = np.random.default_rng((seed, 2))
    return _stack([_contrast_of(contrast.labels, side, rng, pairs=pairs)], pairs=pairs)


def halves(contrast: Contrast, n: int, seed: int) -> Bool[np.ndarray, "split row"]:
    """Masks of the first of two halves that share no group and hold the classes alike."""
    rng = np.random.default_rng((seed, 3))
    found = []
    for _ in range(n):
        side = _halves(contrast, rng)
        # A group without a partner makes up the numbers of one half.
        odd = rng.integers(0, 2, contrast.n_groups)[contrast.groups]
        found.append(np.where(side < 0, odd, side) == 1)
    return np.array(found, dtype=bool).reshape(n, len(contrast.rows))


def _halves(contrast: Contrast, rng: np.random.Generator) -> Int8[np.ndarray, " row"]:
    """Groups of the same share of positives, and of like sizes, paired and told apart by a coin."""
    sizes = np.bincount(contrast.groups)
    positives = np.bincount(contrast.groups, weights=contrast.labels)
    share = positives / sizes
    order = np.lexsort((rng.random(len(sizes)), sizes, share))
    side = np.full(len(sizes), -1, dtype=np.int8)
    alone: list[int] = []
    for alike in np.split(order, np.flatnonzero(np.diff(share[order])) + 1):
        if len(alike) % 2:
            out = int(rng.integers(len(alike)))
            if share[alike[0]] not in {0.0, 1.0}:
                alone.append(int(alike[out]))
            alike = np.delete(alike, out)
        coin = rng.integers(0, 2, len(alike) // 2)
        side[alike[::2]], side[alike[1::2]] = coin, 1 - coin
    coin = rng.integers(0, 2, len(alone) // 2)
    side[alone[: 2 * len(coin) : 2]], side[alone[1 : 2 * len(coin) : 2]] = coin, 1 - coin
    return side[contrast.groups]


def _contrast_of(
    labels: Int[np.ndarray, " row"],
    side: Int8[np.ndarray, " row"],
    rng: np.random.Generator,
    *,
    pairs: bool,
) -> tuple[Int8[np.ndarray, " row"], Int[np.ndarray, "pair 2"] | None]:
    """Sides made balanced over the labels; pairs join rows of one label across the sides."""
    kept = np.full(len(labels), -1, dtype=np.int8)
    joined = []
    for label in (0, 1):
        high, low = (
            rng.permutation(np.flatnonzero((side == which) & (labels == label))) for which in (1, 0)
        )
        n = min(len(high), len(low))
        kept[high[:n]], kept[low[:n]] = 1, 0
        joined.append(np.stack([high[:n], low[:n]], axis=1))
    return kept, np.concatenate(joined) if pairs else None


def _matched(
    labels: Int[np.ndarray, " row"], rng: np.random.Generator
) -> tuple[Int8[np.ndarray, " row"], Int[np.ndarray, "pair 2"] | None]:
    """Every example with another one of its label, in random order; an odd one is left out."""
    side = np.full(len(labels), -1, dtype=np.int8)
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        half = len(rows) // 2
        side[rows[:half]], side[rows[half : 2 * half]] = 1, 0
    return _contrast_of(labels, side, rng, pairs=True)


def _stack(
    drawn: list[tuple[Int8[np.ndarray, " _"], Int[np.ndarray, "_ 2"] | None]],
    n_rows: int = 0,
    *,
    pairs: bool = False,
) -> Targets:
    """Targets from single draws, pairs filled up to the same number."""
    if not drawn:
        none = np.empty((0, 0, 2), dtype=np.int64) if pairs else None
        return Targets(np.empty((0, n_rows), dtype=np.int8), none)
    labels = np.stack([its for its, _ in drawn])
    joined = [its for _, its in drawn if its is not None]
    if not joined:
        return Targets(labels)
    filled = np.full((len(joined), max(map(len, joined)), 2), -1)
    for row, its in zip(filled, joined, strict=True):
        row[: len(its)] = its
    return Targets(labels, filled)
