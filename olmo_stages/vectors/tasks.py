"""The examples of each trait that are scored along a vector, with what scores are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from olmo_stages import estimates
from olmo_stages.data.splits import folds
from olmo_stages.errors import DataError
from olmo_stages.heldout import Estimate, HeldOut, Resampled
from olmo_stages.types import Example, labels_of
from olmo_stages.vectors.scores import Ruler, cross_fitted, relabelled_auroc

UNNAMED = "trait"
"""What the trait of data that name none is called."""


@dataclass(frozen=True, eq=False)
class Task:
    """One trait: its examples, the folds of its vectors, and its scores, layer by layer.

    Args:
        trait: its name.
        rows: its examples among those of the data.
        sample: their groups and folds, a single one where the vector is given, and their labels if
            they have any (`HeldOut`).
        relabelled: labels of the null; none where no label can change places.
        fitted: whether its vectors are fitted to its own examples.
        raw: for each layer the stage's raw scores.
        units: for each layer the stage's scores in units.
        differences: for each layer the stage's scores in units less the reference's.
        nulls: for each layer the AUROC of the true labels, and those of the relabellings.
    """

    trait: str
    rows: Int[np.ndarray, " chosen"]
    sample: Resampled
    relabelled: Int[np.ndarray, "permutation chosen"] | None
    fitted: bool
    raw: list[np.ndarray] = field(default_factory=list)
    units: list[np.ndarray] = field(default_factory=list)
    differences: list[np.ndarray] = field(default_factory=list)
    nulls: list[np.ndarray] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether its examples have labels."""
        return isinstance(self.sample, HeldOut)

    @property
    def held_out(self) -> HeldOut:
        """The sample with its labels.

        Raises:
            DataError: it has none.
        """
        if not isinstance(self.sample, HeldOut):
            raise DataError(f"the examples of {self.trait!r} have no labels; give labelled data")
        return self.sample

    @property
    def n_folds(self) -> int:
        """Number of folds, 1 where the vector is given."""
        return int(self.sample.folds.max()) + 1

    def fit(self, values: Float[np.ndarray, "example d_model"], resolution: float) -> Ruler:
        """Its cross-fitted vectors, from the activations of all examples of the data."""
        labels, numbers = self.held_out.labels, self.held_out.folds
        return cross_fitted(values[self.rows], labels, numbers, resolution)

    def relabel(
        self,
        source: Float[np.ndarray, "example d_model"],
        target: Float[np.ndarray, "example d_model"],
        resolution: float,
    ) -> None:
        """Add a layer to the null of cross-fitted vectors.

        Args:
            source: activations that the vectors are fitted to.
            target: activations that are scored.
            resolution: see `cross_fitted`.
        """
        if self.relabelled is not None:
            numbers = self.held_out.folds
            x, y = source[self.rows], target[self.rows]
            self.nulls.append(relabelled_auroc(x, y, self.relabelled, numbers, resolution))

    def reorder(self, raw: Float[np.ndarray, " chosen"]) -> None:
        """Add a layer to the null of a given vector, whose scores do not depend on the labels."""
        if self.relabelled is not None:
            scores = np.broadcast_to(raw, self.relabelled.shape)
            numbers = self.held_out.folds
            self.nulls.append(estimates.permutation_auroc(scores, self.relabelled, numbers))

    def auroc(self) -> Estimate:
        """How well the scores tell the classes apart, within folds."""
        return self.held_out.auroc(np.stack(self.raw))

    def inference(self) -> dict[str, list[float]]:
        """For each layer `null`, `p`, `p_max` and `q` of the AUROC; empty without a null."""
        if not self.nulls:
            return {}
        statistic = np.array(self.nulls)
        observed, null = statistic[:, 0], statistic[:, 1:].T
        p = np.array([
            estimates.permutation_p(float(value), null[:, i]) for i, value in enumerate(observed)
        ])
        return {
            "null": np.median(null, axis=0).tolist(),
            "p": p.tolist(),
            "p_max": estimates.max_statistic_p(observed, null).tolist(),
            "q": estimates.false_discovery_rate(p).tolist(),
        }

    def below(self) -> list[float]:
        """For each layer the family-wise p of an AUROC as low as this one; empty without a null."""
        if not self.nulls:
            return []
        statistic = np.array(self.nulls)
        return estimates.max_statistic_p(-statistic[:, 0], -statistic[:, 1:].T).tolist()

    def separation(self) -> Estimate:
        """Mean score of class 1 less that of class 0, in units: 1 where it is as in the source."""
        scores, labels = np.stack(self.units), self.held_out.labels

        def statistic(weights: Float[np.ndarray, "any chosen"]) -> Float[np.ndarray, "any layer"]:
            negative, positive = (_means(scores, weights, labels == label) for label in (0, 1))
            return positive - negative

        return self.held_out.estimate(statistic)

    def mean(
        self,
        scores: Sequence[Float[np.ndarray, " chosen"]],
        chosen: Bool[np.ndarray, " chosen"],
    ) -> Estimate:
        """The mean score of some of the examples, with its interval over their groups.

        Args:
            scores: for each layer one an example.
            chosen: which examples.
        """
        sample = replace(self.sample, folds=np.where(chosen, self.sample.folds, -1))
        stacked = np.stack(scores)
        return sample.estimate(lambda weights: _means(stacked, weights, chosen))

    def of_class(self, label: int) -> Bool[np.ndarray, " chosen"]:
        """Which of its examples have a label."""
        return self.held_out.labels == label


def _means(
    scores: Float[np.ndarray, "layer chosen"],
    weights: Float[np.ndarray, "any chosen"],
    chosen: Bool[np.ndarray, " chosen"],
) -> Float[np.ndarray, "any layer"]:
    w = weights[:, chosen]
    with np.errstate(invalid="ignore"):
        return w @ scores[:, chosen].T / w.sum(axis=1, keepdims=True)


def tasks(
    examples: Sequence[Example],
    *,
    n_folds: int | None,
    n_resamples: int,
    n_permutations: int,
    seed: int,
) -> tuple[Task, ...]:
    """One task a trait of the data, in the order in which they occur.

    Args:
        examples: of all traits, with labels or, where the vector is given, all without.
        n_folds: folds of cross-fitted vectors, lowered where a class has fewer groups; None = the
            vector is given.
        n_resamples: bootstrap resamples of the groups.
        n_permutations: relabellings of the null; 0 = none.
        seed: of both.

    Raises:
        DataError: a trait's examples cannot be split, or lack labels that are needed.
    """
    found: list[Task] = []
    for name in dict.fromkeys(example.trait for example in examples):
        rows = np.array([i for i, e in enumerate(examples) if e.trait == name], dtype=np.int64)
        subset = [examples[i] for i in rows]
        if n_folds is None:
            numbers = np.zeros(len(rows), dtype=np.int64)
        else:
            fewest = fewest_of(labels_of(subset), [it.group for it in subset])
            numbers = folds(subset, max(2, min(n_folds, fewest)))
        # Any label at all: those that lack one are then refused, not scored as if none had.
        labelled = any(it.label is not None for it in subset)
        sample = (HeldOut if labelled else Resampled).of(subset, numbers, n_resamples, seed)
        found.append(
            Task(
                trait=name or UNNAMED,
                rows=rows,
                sample=sample,
                relabelled=_relabelled(sample, n_permutations, seed),
                fitted=n_folds is not None,
            )
        )
    return tuple(found)


def slots(found: Sequence[Task], n_examples: int) -> Int[np.ndarray, " example"]:
    """For each example, which of a layer's directions it is scored along.

    Those of the first trait's folds come first; a given vector is the only direction.
    """
    chosen = np.zeros(n_examples, dtype=np.int64)
    start = 0
    for task in found:
        if task.fitted:
            chosen[task.rows] = start + task.sample.folds
            start += task.n_folds
    return chosen


def fewest_of(labels: Int[np.ndarray, " example"], groups: Sequence[str]) -> int:
    """Number of groups in which the rarer class occurs."""
    sides = ({group for group, it in zip(groups, labels, strict=True) if it == c} for c in (0, 1))
    return min(map(len, sides))


def _relabelled(
    sample: Resampled, n_permutations: int, seed: int
) -> Int[np.ndarray, "permutation chosen"] | None:
    """The true labels, then the relabellings; None where none differs from the true ones."""
    if not n_permutations or not isinstance(sample, HeldOut):
        return None
    labels = sample.labels
    found = estimates.permuted_labels(labels, sample.groups, n_permutations, seed)
    if (found == labels).all():
        return None
    return np.concatenate([labels[None], found])
