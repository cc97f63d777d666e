"""Options of the probe analysis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from olmo_stages.errors import ConfigError
from olmo_stages.types import ProbeKind, Site, check_choice, check_pooled


@dataclass(frozen=True)
class Options:
    """Options of the probe analysis; conf/analysis/probe.yaml holds the defaults.

    Args:
        kind: `logistic`, `lda` or `mean_difference`.
        site: where each layer is read.
        position: which token of each example.
        layers: block indices; null = all.
        strengths: L2 penalties to choose from, relative to the mean loss of standardised features
            divided by sqrt(d_model).
        n_folds: outer folds; lowered when a class has fewer groups.
        n_inner: inner folds.
        n_resamples: bootstrap resamples of the groups.
        n_permutations: relabellings of the null; 0 = no p.
        n_controls: control tasks whose mean is the control score.
        random_init: whether to run the randomly initialised model of the same shape.
    """

    kind: str
    site: str
    position: str
    layers: Sequence[int] | None
    strengths: Sequence[float | int]
    n_folds: int
    n_inner: int
    n_resamples: int
    n_permutations: int
    n_controls: int
    random_init: bool

    def __post_init__(self) -> None:
        check_choice("analysis.kind", self.kind, get_args(ProbeKind))
        check_choice("analysis.site", self.site, get_args(Site))
        check_pooled("analysis.position", self.position)
        for option, least in (
            ("n_folds", 2),
            ("n_inner", 2),
            ("n_resamples", 100),
            ("n_controls", 1),
        ):
            if getattr(self, option) < least:
                raise ConfigError(
                    f"analysis.{option}={getattr(self, option)} is too small; give at least {least}"
                )
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"analysis.layers={list(self.layers)} names a layer twice")
        if self.n_permutations < 0:
            raise ConfigError(
                f"analysis.n_permutations={self.n_permutations} is negative; 0 = none"
            )
        if not self.strengths or min(self.strengths) <= 0:
            raise ConfigError(
                f"analysis.strengths={list(self.strengths)}: give one or more positive penalties"
            )
