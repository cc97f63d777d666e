"""Scores of held-out examples turned into estimates with intervals, and estimates into rows.

Every estimate keeps its bootstrap samples, so that the difference of two of them is paired: both
come from the same resamples of the same groups.

Scores of different folds are not independent: their training sets overlap, and each pair of
examples meets twice, once with either as the one trained on. On noise the variance of a
cross-validated score is therefore about twice what resampling the held-out examples shows, and
plain intervals cover chance in 85 % of runs instead of 95 %. The deviations of the samples are
widened by the correction of Nadeau & Bengio for K folds, sqrt(1 + K/(K-1)), which covers on noise
and is conservative where there is a strong signal.

Source:
    Nadeau & Bengio 2003, Inference for the Generalization Error, eq. 9 with n_test/n_train =
    1/(K-1). They apply it to a t test; here it widens percentile intervals over groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from olmo_stages import estimates
from olmo_stages.types import Example, Measurement, labels_of


@dataclass(frozen=True, eq=False)
class Estimate:
    """One statistic a head (layer), with its bootstrap samples.

    Args:
        value: the statistic on the data.
        samples: the statistic on each resample of the groups.
        n: number of examples.
        n_groups: number of groups that were resampled.
        n_rarer: number of groups that hold the rarer class; all of them where there are no labels.
        bounds: `unit` for a statistic in [0, 1], `difference` for one between two of those, `none`.
        saturated: for a difference, the heads in which both sides are at the same bound.
        constant: for a difference, the heads in which every resample gives the same.
    """

    value: Float[np.ndarray, " head"]
    samples: Float[np.ndarray, "resample head"]
    n: int
    n_groups: int
    n_rarer: int
    bounds: Literal["unit", "difference", "none"] = "unit"
    saturated: tuple[bool, ...] = ()
    constant: tuple[bool, ...] = ()

    def __sub__(self, other: "Estimate") -> "Estimate":
        at_bound = np.isin(self.value, (0.0, 1.0)) & (self.value == other.value)
        value, samples = self.value - other.value, self.samples - other.samples
        return Estimate(
            value,
            samples,
            self.n,
            self.n_groups,
            self.n_rarer,
            "difference",
            tuple(map(bool, at_bound)),
            tuple(map(bool, (samples == value).all(axis=0))),
        )

    @property
    def unseen(self) -> float:
        """How much of a score at its bound the groups may have missed, at 95 % (Wilson)."""
        return 1 - estimates.wilson(self.n_rarer, self.n_rarer)[0]

    def interval(self, head: int) -> tuple[float, float]:
        """Ends of the 95 % interval of one head, NaN where it is undefined.

        A difference that is the same in every resample has none: the resamples do not tell how far
        apart the two scores might be.
        """
        value, samples = float(self.value[head]), self.samples[:, head]
        if not np.isfinite(value):
            return float("nan"), float("nan")
        if self.bounds == "unit":
            return estimates.bounded_interval(value, samples, self.n_groups, self.n_rarer)
        if self.constant and self.constant[head]:
            return float("nan"), float("nan")
        return estimates.interval(samples, self.n_groups)


@dataclass(frozen=True, eq=False)
class Resampled:
    """Folds of a set of examples, with resamples of their groups; labels are not looked at.

    Args:
        groups: unit of resampling of each example.
        folds: fold in which each example is held out; -1 = not scored.
        weights: multiplicity of each example in each resample.
    """

    groups: tuple[str, ...]
    folds: Int[np.ndarray, " example"]
    weights: Float[np.ndarray, "resample example"]

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        folds: Int[np.ndarray, " example"],
        n_resamples: int,
        seed: int,
    ) -> "Resampled":
        """Groups and resamples of examples, labelled or not."""
        groups = tuple(e.group for e in examples)
        return cls(groups, folds, estimates.group_weights(groups, n_resamples, seed))

    def _estimate(
        self, value: Float[np.ndarray, "1 head"], samples: Float[np.ndarray, "resample head"]
    ) -> Estimate:
        scored = np.flatnonzero(self.folds >= 0)
        n_groups = len({self.groups[i] for i in scored})
        n_folds = len(set(self.folds[scored]))
        widening = np.sqrt(1 + n_folds / (n_folds - 1)) if n_folds > 1 else 1.0
        wide = value + widening * (samples - value)
        return Estimate(value[0], wide, len(scored), n_groups, self._rarer(scored))

    def _rarer(self, scored: Int[np.ndarray, " chosen"]) -> int:
        """Number of groups of the rarer class among what is scored."""
        return len({self.groups[i] for i in scored})

    def estimate(
        self,
        statistic: Callable[[Float[np.ndarray, "any example"]], Float[np.ndarray, "any head"]],
    ) -> Estimate:
        """Any unbounded statistic of weighted held-out examples.

        Args:
            statistic: from multiplicities of the examples, 0 where one is not scored, one row a
                resample, to the statistic on each resample.
        """
        scored = (self.folds >= 0).astype(np.float64)
        estimate = self._estimate(statistic(scored[None]), statistic(self.weights * scored))
        return replace(estimate, bounds="none")


@dataclass(frozen=True, eq=False)
class HeldOut(Resampled):
    """Labels and folds of a set of examples, with resamples of their groups.

    Args:
        labels: 0 or 1.
    """

    labels: Int[np.ndarray, " example"]

    @classmethod
    def of(
        cls,
        examples: Sequence[Example],
        folds: Int[np.ndarray, " example"],
        n_resamples: int,
        seed: int,
    ) -> "HeldOut":
        """Labels, groups and resamples of labelled examples.

        Raises:
            DataError: an example has no label.
        """
        base = Resampled.of(examples, folds, n_resamples, seed)
        return cls(base.groups, base.folds, base.weights, labels_of(examples))

    def _rarer(self, scored: Int[np.ndarray, " chosen"]) -> int:
        sides = ([i for i in scored if self.labels[i] == label] for label in (0, 1))
        return min(len({self.groups[i] for i in side}) for side in sides)

    def auroc(self, scores: Float[np.ndarray, "head example"]) -> Estimate:
        """Area under the ROC curve within folds."""
        ones = np.ones((1, len(self.labels)))
        return self._estimate(
            estimates.auroc(scores, self.labels, self.folds, ones),
            estimates.auroc(scores, self.labels, self.folds, self.weights),
        )

    def balanced_accuracy(self, scores: Float[np.ndarray, "head example"]) -> Estimate:
        """Mean recall of both classes at threshold 0; a score of exactly 0 counts as class 0."""
        correct = (scores > 0) == (self.labels == 1)
        scored = (self.folds >= 0).astype(np.float64)
        return self._estimate(
            estimates.balanced_accuracy(correct, self.labels, scored[None]),
            estimates.balanced_accuracy(correct, self.labels, self.weights * scored),
        )

    def log_loss(self, scores: Float[np.ndarray, "head example"]) -> Estimate:
        """Class-balanced log loss in nats of scores that are log odds."""
        scored = (self.folds >= 0).astype(np.float64)
        estimate = self._estimate(
            estimates.log_loss(scores, self.labels, scored[None]),
            estimates.log_loss(scores, self.labels, self.weights * scored),
        )
        return replace(estimate, bounds="none")


@dataclass(frozen=True)
class Where:
    """What a set of rows is about.

    Args:
        stage: label of the stage.
        reference: label of the other side, or empty.
        layers: block index of each head; None = the head is not a layer.
        layer_types: of each head.
        seed: of the random choices behind the numbers.
    """

    stage: str
    reference: str
    layers: tuple[int | None, ...]
    layer_types: tuple[str, ...]
    seed: int

    def rows(
        self, metric: str, variant: str, estimate: Estimate, **per_head: Sequence[Any]
    ) -> list[Measurement]:
        """One measurement a head.

        Args:
            metric: name of the statistic.
            variant: which version of it.
            estimate: the statistic.
            per_head: further fields of `Measurement`, one value a head.

        Returns:
            The rows, in the order of the layers.
        """
        rows: list[Measurement] = []
        for head, (layer, layer_type) in enumerate(zip(self.layers, self.layer_types, strict=True)):
            low, high = estimate.interval(head)
            rows.append(
                Measurement(
                    metric=metric,
                    variant=variant,
                    value=float(estimate.value[head]),
                    ci_low=low if np.isfinite(low) else None,
                    ci_high=high if np.isfinite(high) else None,
                    stage=self.stage,
                    reference=self.reference,
                    layer=layer,
                    layer_type=layer_type,
                    n=estimate.n,
                    n_groups=estimate.n_groups,
                    seed=self.seed,
                    **{name: values[head] for name, values in per_head.items()},
                )
            )
        return rows
