"""The examples of one trait, told into two classes, and what of them is independent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int8

from olmo_stages.errors import DataError
from olmo_stages.types import Example, labels_of

FEWEST = 3
"""Groups that hold a class, at least: with two, a vector without one of them rests on the other."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Ways to tell the rows of a contrast into two classes, each of which gives a vector.

    Args:
        labels: 1 or 0; -1 leaves the row out.
        pairs: rows of label 1 and of label 0 whose differences count, for kinds that need them;
            filled up with -1 where one target has fewer pairs than another.
    """

    labels: Int8[np.ndarray, "target row"]
    pairs: Int[np.ndarray, "target pair 2"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, index: Int[np.ndarray, " chosen"]) -> "Targets":
        """Some of the targets."""
        return Targets(self.labels[index], None if self.pairs is None else self.pairs[index])

    def within(self, keep: "Sequence[np.ndarray]") -> "Targets":
        """Each target on some of its rows only, the targets of the first choice first.

        Args:
            keep: masks over the rows.
        """
        labels = [np.where(mask, self.labels, np.int8(-1)) for mask in keep]
        if self.pairs is None:
            return Targets(np.concatenate(labels))
        pairs = [
            np.where((mask[self.pairs] & (self.pairs >= 0)).all(2, keepdims=True), self.pairs, -1)
            for mask in keep
        ]
        return Targets(np.concatenate(labels), np.concatenate(pairs))


@dataclass(frozen=True, eq=False)
class Contrast:
    """The examples of one trait.

    Args:
        trait: its name; `trait` where the data name none.
        rows: indices of the examples that take part.
        labels: 1 with the trait, 0 without.
        groups: number of the group of each row, from 0 without gaps; groups are independent.
        pairs: positions within `rows` of an example of label 1 and of its counterpart; None where
            no pairs were asked for.
        n_left_out: examples of the trait that do not take part since they have no counterpart.
    """

    trait: str
    rows: Int[np.ndarray, " row"]
    labels: Int[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    pairs: Int[np.ndarray, "pair 2"] | None = None
    n_left_out: int = 0

    @property
    def n_groups(self) -> int:
        """Number of independent groups."""
        return int(self.groups.max()) + 1

    def targets(self) -> Targets:
        """The one way that the labels tell."""
        return Targets(
            self.labels[None].astype(np.int8), None if self.pairs is None else self.pairs[None]
        )

    def subset(self, keep: Int[np.ndarray, " chosen"]) -> "Contrast":
        """The same contrast on fewer rows, e.g. those of the training folds.

        Args:
            keep: positions within `rows`; pairs of which only one end is kept are dropped.

        Raises:
            DataError: a class, or every pair, is gone.
        """
        position = np.full(len(self.rows), -1)
        position[keep] = np.arange(len(keep))
        pairs = None
        if self.pairs is not None:
            pairs = position[self.pairs]
            pairs = pairs[(pairs >= 0).all(axis=1)]
        labels = self.labels[keep]
        if len(set(labels.tolist())) < 2 or (pairs is not None and not len(pairs)):
            raise DataError(
                f"trait {self.trait!r}: {len(keep)} of {len(self.rows)} examples hold "
                f"{int(labels.sum())} positives, {int((1 - labels).sum())} negatives"
                + ("" if pairs is None else f" and {len(pairs)} whole pairs")
                + "; a vector needs both classes: give more groups or fewer folds"
            )
        groups = np.unique(self.groups[keep], return_inverse=True)[1]
        return Contrast(self.trait, self.rows[keep], labels, groups, pairs, self.n_left_out)


def contrasts(examples: Sequence[Example], *, paired: bool) -> tuple[Contrast, ...]:
    """One contrast a trait, in the order in which traits first appear.

    Args:
        examples: of all traits.
        paired: whether only pairs count, as pca needs them; what has no counterpart is left out
            and counted.

    Raises:
        DataError: a trait has no examples or pairs left, one class only, or a class in fewer than
            3 groups; or a pair is not one example of each label in one group.
    """
    if not examples:
        raise DataError("no examples are left; filter less")
    traits = dict.fromkeys(example.trait for example in examples)
    return tuple(
        _contrast(trait, [i for i, e in enumerate(examples) if e.trait == trait], examples, paired)
        for trait in traits
    )


def _contrast(
    trait: str,
    rows: list[int],
    examples: Sequence[Example],
    paired: bool,  # noqa: FBT001 - said by name in the public function
) -> Contrast:
    name, n_all, pairs = trait or "trait", len(rows), None
    if paired:
        ends = _pairs(name, rows, examples)
        rows = sorted(ends.ravel().tolist())
        pairs = np.searchsorted(rows, ends)
    labels = labels_of([examples[i] for i in rows])
    groups = [examples[i].group for i in rows]
    for label, word in ((1, "positive"), (0, "negative")):
        held = _unique(g for g, its in zip(groups, labels.tolist(), strict=True) if its == label)
        if len(held) < FEWEST:
            raise DataError(
                f"trait {name!r}: {int(np.sum(labels == label))} of {len(labels)} examples are "
                f"{word}, in {len(held)} groups; a vector and its error need both classes, each in "
                f"at least {FEWEST} groups"
            )
    members = np.unique(np.asarray(groups), return_inverse=True)[1]
    return Contrast(name, np.array(rows), labels, members, pairs, n_all - len(rows))


def _pairs(name: str, rows: list[int], examples: Sequence[Example]) -> Int[np.ndarray, "pair 2"]:
    """Indices of the examples of every whole pair, the one of label 1 first.

    Raises:
        DataError: none is left, or one is not an example of each label in one group.
    """
    members: dict[str, list[int]] = {}
    for i in rows:
        if examples[i].pair:
            members.setdefault(examples[i].pair, []).append(i)
    found: list[tuple[int, int]] = []
    for pair, ends in members.items():
        both = [examples[i] for i in ends]
        labels = [example.label for example in both]
        if len(both) > 2 or len(set(labels)) < len(labels):
            raise DataError(
                f"trait {name!r}: pair {pair!r} holds {labels.count(1)} positives and "
                f"{labels.count(0)} negatives; a pair is one of each"
            )
        if len(_unique(example.group for example in both)) > 1:
            raise DataError(
                f"trait {name!r}: pair {pair!r} is in two groups, "
                f"{both[0].group!r} and {both[1].group!r}; put both ends into one"
            )
        if len(both) == 2:
            positive = labels.index(1)
            found.append((ends[positive], ends[1 - positive]))
    if not found:
        raise DataError(
            f"trait {name!r}: no pairs are left: {len(rows)} of {len(rows)} examples have no "
            f"counterpart ({sum(not examples[i].pair for i in rows)} name no pair); "
            "name them (data.columns.pair), or choose analysis.kind=mean_difference"
        )
    return np.array(found)


def _unique(names: Iterable[str]) -> set[str]:
    return set(names)
