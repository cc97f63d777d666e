"""What was found about a trait's vector, as measurements: one row a number and layer."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.types import Measurement
from olmo_stages.vectors.found import CHANCE, LEVEL, UNRELIABLE, Found
from olmo_stages.vectors.inference import Inference, two_sided, upper
from olmo_stages.vectors.jackknife import UNKNOWN, Interval
from olmo_stages.vectors.traits import TraitCosines
from olmo_stages.vectors.turns import Turn

UNDEFINED = "undefined: a reliability is not above zero"


_INTERVALS: dict[str, Callable[[Turn], Interval]] = {
    "cosine": lambda turn: turn.cosine,
    "corrected_cosine": lambda turn: turn.corrected,
}


def rows_of(found: Found) -> list[Measurement]:
    """Everything about one trait; what the main table shows comes first."""
    table = _Table(found)
    rows: list[Measurement] = []
    if found.compared:
        for variant in VARIANTS:
            rows += table.cosines(variant)
        for variant in VARIANTS:
            rows += [*table.means(variant), *table.against(variant)]
    rows += [*table.reliabilities(), *table.norms(), *table.transfers()]
    return rows


@dataclass(frozen=True, eq=False)
class _Table:
    found: Found

    def row(self, metric: str, variant: str, value: float, **fields: Any) -> Measurement:  # noqa: ANN401  (fields of Measurement)
        contrast, where = self.found.contrast, self.found.where
        known = {name: _known(it) for name, it in fields.items()}
        return Measurement(
            metric=metric,
            variant=variant,
            value=float(value),
            stage=where.stage,
            reference=where.reference,
            trait=contrast.trait,
            n=len(contrast.rows),
            n_groups=contrast.n_groups,
            seed=where.seed,
            **known,
        )

    def by_layer(
        self, metric: str, variant: str, values: Sequence[float], **fields: Sequence[Any]
    ) -> list[Measurement]:
        where = self.found.where
        return [
            self.row(
                metric,
                variant,
                value,
                layer=where.layers[i],
                layer_type=where.layer_types[i],
                **{name: given[i] for name, given in fields.items()},
            )
            for i, value in enumerate(values)
        ]

    def intervals(
        self, metric: str, variant: str, intervals: Sequence[Interval], **fields: Sequence[Any]
    ) -> list[Measurement]:
        return self.by_layer(
            metric,
            variant,
            [it.value for it in intervals],
            ci_low=[it.low for it in intervals],
            ci_high=[it.high for it in intervals],
            **fields,
        )

    def cosines(self, variant: Variant) -> list[Measurement]:
        found = self.found
        judged = found.against.get((variant, "relabelled"))
        tested = {} if judged is None else _tested(judged[0])
        notes = found.notes if variant == "raw" else [""] * len(found.turns)
        corrected: list[Interval] = found.each(lambda turn: turn.corrected, variant)
        undefined = ["" if math.isfinite(it.value) else UNDEFINED for it in corrected]
        # The ratio of what may be noise has no interval that covers.
        fit = found.reliable_of(variant)
        corrected = [
            it if sound else replace(it, low=math.nan, high=math.nan)
            for it, sound in zip(corrected, fit, strict=True)
        ]
        undefined = [
            note if note or sound else f"{UNRELIABLE}: no interval"
            for note, sound in zip(undefined, fit, strict=True)
        ]
        rows = self.intervals(
            "cosine", variant, found.each(lambda turn: turn.cosine, variant), note=notes, **tested
        )
        rows += self.intervals("corrected_cosine", variant, corrected, note=undefined)
        ceiling = found.numbers(lambda turn: turn.ceiling, variant)
        return rows + self.by_layer("ceiling", variant, ceiling.tolist())

    def means(self, variant: Variant) -> list[Measurement]:
        """Means over the layers in which both vectors are reliable, all and by type of layer.

        Their intervals are the means of the layers' ends: as wide as if all layers erred together,
        which those of one residual stream nearly do.
        """
        found = self.found
        kinds = np.array(found.where.layer_types)
        rows: list[Measurement] = []
        # Of the second variant the whole is enough.
        for kind in ["", *(dict.fromkeys(kinds.tolist()) if variant == "raw" else ())]:
            chosen = (kinds == kind) | (kind == "")
            tested = self._tested_mean(variant, chosen)
            for metric, get in _INTERVALS.items():
                mean, note = mean_of(found.each(get, variant), found.reliable, chosen)
                rows.append(
                    self.row(
                        f"{metric}_mean",
                        variant,
                        mean.value,
                        ci_low=mean.low,
                        ci_high=mean.high,
                        layer_type=kind,
                        note=note,
                        **(tested if metric == "cosine" else {}),
                    )
                )
        return rows

    def _tested_mean(self, variant: Variant, chosen: Bool[np.ndarray, " layer"]) -> dict[str, Any]:
        """Null and p of the mean; no p if layers are left out for what the labels show in them."""
        found = self.found
        all_reliable = bool(found.reliable[chosen].all())
        chosen = chosen & found.reliable
        if (variant, "relabelled") not in found.against or not chosen.any():
            return {}
        value = found.numbers(lambda turn: turn.cosine.value, variant)[chosen]
        samples, rounding = (
            found.stacked(lambda turn, of=of: getattr(turn, of)["relabelled"], variant)[chosen]
            for of in ("samples", "rounding")
        )
        one = upper(*(it.mean(axis=0, keepdims=True) for it in (value, samples, rounding)))
        return {"null": one.null[0], "p": one.p[0] if all_reliable else None}

    def against(self, variant: Variant) -> list[Measurement]:
        """The cosine beside its nulls and controls."""
        rows: list[Measurement] = []
        for (of, name), (one, both) in self.found.against.items():
            if of != variant:
                continue
            n = len(one.null)
            rows += self.by_layer(
                "null_cosine",
                f"{variant}:{name}",
                one.null.tolist(),
                ci_low=one.low.tolist(),
                ci_high=one.high.tolist(),
                note=["median and central 95 %"] * n,
            )
            if name != "independent":
                rows += self.by_layer(
                    "z", f"{variant}:{name}", one.z.tolist(), **_tested(both, null=np.zeros(n))
                )
        for name in self.found.each(lambda turn: list(turn.controls), variant)[0]:
            values = self.found.numbers(lambda turn, name=name: turn.controls[name], variant)
            rows += self.by_layer("control_cosine", f"{variant}:{name}", values.tolist())
        return rows

    def reliabilities(self) -> list[Measurement]:
        found = self.found
        return [
            row
            for variant in VARIANTS
            for name, get in found.sides().items()
            for row in self.intervals(
                "reliability",
                f"{name}:{variant}",
                found.each(lambda turn, get=get: get(turn).reliability, variant),
            )
        ]

    def norms(self) -> list[Measurement]:
        found = self.found
        sizes = {
            name: [side.size for side in found.each(get)] for name, get in found.sides().items()
        }
        return [
            row
            for metric in ("norm", "norm_to_spread", "norm_to_residual")
            for name, own in sizes.items()
            for row in self.intervals(metric, name, [getattr(size, metric) for size in own])
        ]

    def transfers(self) -> list[Measurement]:
        found, transfer = self.found, self.found.transfer
        traits = [found.contrast.trait] * len(found.turns)
        estimates = {
            "transfer_auroc": transfer.auroc,
            "transfer_balanced_accuracy": transfer.accuracy,
            "separation": transfer.separation,
            "shift": {} if transfer.shift is None else {"fixed": transfer.shift},
        }
        return [
            row
            for metric, by_variant in estimates.items()
            for variant, estimate in by_variant.items()
            for row in found.where.rows(metric, variant, estimate, trait=traits)
        ]


def trait_rows(
    layers: Sequence[dict[Variant, TraitCosines]], found: Sequence[Found]
) -> list[Measurement]:
    """Cosines between the vectors of a stage's traits, each pair once.

    Args:
        layers: one mapping a layer.
        found: the traits, in the order of the cosines' axes.
    """
    rows: list[Measurement] = []
    pairs = [(i, j) for i in range(len(found)) for j in range(i + 1, len(found))]
    for variant in VARIANTS:
        for i, j in pairs:
            table = _Table(replace(found[i], where=replace(found[i].where, reference="")))
            value = np.array([it[variant].value[i, j] for it in layers])
            samples = np.stack([it[variant].samples[i, j] for it in layers])
            rounding = np.stack([it[variant].rounding[i, j] for it in layers])
            movable = found[i].nulls.exchangeable and found[j].nulls.exchangeable
            tested: dict[str, Sequence[Any]] = {}
            if movable and samples.shape[1]:
                different = found[i].nulls.n_distinct * found[j].nulls.n_distinct
                tested = _tested(two_sided(value, samples, rounding, 1 / different))
                tested["note"] = [CHANCE if p > LEVEL else "" for p in tested["p_max"]]
            name = f"{variant}:{found[j].contrast.trait}"
            rows += table.by_layer("trait_cosine", name, value.tolist(), **tested)
    return rows


def mean_of(
    intervals: Sequence[Interval],
    reliable: Bool[np.ndarray, " layer"],
    chosen: Bool[np.ndarray, " layer"],
) -> tuple[Interval, str]:
    """Mean over the reliable ones of the chosen layers, between the means of their ends.

    Layers that are left out for what they show leave those in which noise was on the side of the
    vectors, so that an interval would claim too much: corrected cosines near 0.5 of vectors with
    little signal come out near 0.8 in the layers that pass.

    Returns:
        The mean, NaN where no layer is reliable, with an end NaN where one is unknown in any of
        them and both NaN where a layer is left out; and of how many layers it is.
    """
    of = np.flatnonzero(chosen & reliable).tolist()
    n = int(chosen.sum())
    note = f"over {len(of)} of {n} layers: others not reliable" if len(of) < n else ""
    if not len(of):
        return UNKNOWN, note
    ends = np.array([[intervals[i].value, intervals[i].low, intervals[i].high] for i in of])
    value, low, high = ends.mean(axis=0).tolist()
    if len(of) < n:
        return Interval(value, math.nan, math.nan), f"{note}, so no interval and no p"
    return Interval(value, low, high), note


def _tested(inference: Inference, **others: np.ndarray) -> dict[str, Sequence[Any]]:
    values = {name: getattr(inference, name) for name in ("null", "p", "p_max", "q")} | others
    return {name: it.tolist() for name, it in values.items()}


def _known(value: Any) -> Any:  # noqa: ANN401  (a field of a measurement)
    """None for a number that is not known; a plain float for any other."""
    if not isinstance(value, float):
        return value
    return float(value) if math.isfinite(value) else None
