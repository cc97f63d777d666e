"""What was found about trait vectors, for people: headline and figures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from olmo_stages.dominant import VARIANTS
from olmo_stages.figures import layer_curves, logarithmic, stage_matrix
from olmo_stages.types import Headline, Measurement
from olmo_stages.vectors import captions
from olmo_stages.vectors.found import Found

SMALLEST = 1e-7
"""Distance from 1 that is drawn for anything nearer; float32 does not tell them apart."""

_CURVES = {
    "cosine": "cosine",
    "corrected": "corrected for sampling noise",
    "relabelled": "null: the same relabelling in both (median, central 95 %)",
    "unrelated": "null: unrelated contrasts (median, central 95 %)",
}

_NULLS = ("relabelled", "unrelated")


def headline(found: Sequence[Found], rows: Sequence[Measurement]) -> Headline:
    """The few values of the sweep's table, about the first trait.

    They are at the layer where the corrected cosine is lowest, of those where both vectors are
    reliable; without a reference, where the vector is most reliable. The mean is of the reliable
    layers, whose number is said: means of other layers do not compare.

    Args:
        found: the traits.
        rows: all measurements.
    """
    first = found[0]
    at = shown_layer(first)
    layer = first.where.layers[at]
    own = {
        (row.metric, row.variant): row
        for row in rows
        if row.trait == first.contrast.trait
        and row.layer in {layer, None}
        and (row.layer is not None or not row.layer_type)
    }
    cosine = own.get(("cosine", "raw"))
    trait = {} if len(found) == 1 else {"trait": f"{first.contrast.trait} (1 of {len(found)})"}
    return trait | {
        "mean corrected cosine": own.get(("corrected_cosine_mean", "raw")),
        "of layers": f"{int(first.reliable.sum())} of {len(first.turns)}"
        if first.compared
        else None,
        "at layer": layer,
        "cosine": cosine,
        "null": None if cosine is None else cosine.null,
        "z": own.get(("z", "raw:relabelled")),
        "p (max)": None if cosine is None else cosine.p_max,
        "reliability": own["reliability", "stage:raw"],
        "note": first.notes[at],
    }


def shown_layer(found: Found) -> int:
    """Where the vector turned most, of the layers where it is more than noise.

    Where it is noise everywhere, and without a reference, where it is most reliable.
    """
    reliability = found.numbers(lambda turn: turn.stage.reliability.value)
    corrected = found.numbers(lambda turn: turn.corrected.value)
    known = found.reliable & np.isfinite(corrected)
    if known.any():
        return int(np.where(known, corrected, np.inf).argmin())
    return int(np.nan_to_num(reliability, nan=-np.inf).argmax())


def figures(found: Sequence[Found], rows: Sequence[Measurement]) -> dict[str, str]:
    """Curves over the layers for each trait, and traits against traits, as plotly JSON by name.

    Args:
        found: the traits.
        rows: all measurements.
    """
    drawn: dict[str, str] = {}
    for one in found:
        trait = one.contrast.trait
        suffix = "" if len(found) == 1 else f"_{trait}"
        own = [row for row in rows if row.trait == trait]
        drawn |= {f"{name}{suffix}": it for name, it in _curves(one, own)}
    across = [row for row in rows if row.metric == "trait_cosine" and row.variant.startswith("raw")]
    if across:
        drawn["traits"] = _traits(found, across)
    return drawn


def _curves(found: Found, rows: Sequence[Measurement]) -> Iterator[tuple[str, str]]:
    stage, reference = found.where.stage, found.where.reference
    trait, pair = found.contrast.trait, stage + (f" and {reference}" if reference else "")
    about = f"{trait}: {pair}"
    if found.compared:
        for variant in VARIANTS if found.dominated else VARIANTS[:1]:
            curves = _beside_null(found, rows, variant)
            yield (
                f"cosine_{variant}",
                layer_curves(
                    curves,
                    "cosine",
                    title=f"Cosine of the vectors of {trait}, {variant}: {pair}",
                    y_label="cosine",
                    caption=captions.of_cosine(
                        variant, _n_drawn(found, "relabelled"), _n_drawn(found, "unrelated")
                    ),
                    variants=_present(curves),
                    nulls=_NULLS,
                    rows=_behind(rows, variant),
                ),
            )
        far = _distances(_beside_null(found, rows, "raw"))
        if far:
            curves = layer_curves(
                far,
                "cosine",
                title=f"How far the vectors turned: 1 - cosine, {about}",
                y_label="1 - cosine",
                caption=captions.of_distance(),
                variants=_present(far),
                nulls=_NULLS,
                rows=[row for row in _behind(rows, "raw") if row.metric != "corrected_cosine"],
            )
            yield "distance", logarithmic(curves)
    sides = {f"{name}:raw": getattr(found.where, name) for name in found.sides()}
    yield (
        "reliability",
        layer_curves(
            rows,
            "reliability",
            title=f"Split-half reliability of the vectors of {about}",
            y_label="reliability",
            caption=captions.of_reliability(),
            variants=sides,
            stages=sides,
            chance=0.0,
        ),
    )
    names = {
        f"{source}->{target}": f"vector of {getattr(found.where, source)} in "
        f"{getattr(found.where, target)}"
        for source in found.sides()
        for target in found.sides()
    }
    yield (
        "transfer",
        layer_curves(
            rows,
            "transfer_auroc",
            title=f"Vectors on held-out groups of {about}",
            y_label="AUROC",
            caption=captions.of_transfer(_n_resamples(found)),
            variants=names,
            chance=0.5,
        ),
    )


def _n_drawn(found: Found, null: Literal["relabelled", "unrelated"]) -> int:
    """How many cosines a null is made of; 0 where there is none."""
    return len(getattr(found.nulls, null)) if ("raw", null) in found.against else 0


def _n_resamples(found: Found) -> int:
    return len(next(iter(found.transfer.auroc.values())).samples)


def _behind(rows: Sequence[Measurement], variant: str) -> list[Measurement]:
    """The rows from which the figure of a variant is made."""
    return [row for row in rows if (row.metric, row.variant) in _curve_names(variant)]


def _curve_names(variant: str) -> dict[tuple[str, str], str]:
    return {
        ("cosine", variant): "cosine",
        ("corrected_cosine", variant): "corrected",
        ("null_cosine", f"{variant}:relabelled"): "relabelled",
        ("null_cosine", f"{variant}:unrelated"): "unrelated",
    }


def _beside_null(found: Found, rows: Sequence[Measurement], variant: str) -> list[Measurement]:
    """Cosine, corrected cosine and nulls by layer, as variants of one metric.

    Where vectors are noise the corrected cosine is a gap and the cosine has no band: they reach
    from anywhere to anywhere, and would flatten the others.
    """
    noise = {i for i, fit in zip(found.where.layers, found.reliable, strict=True) if not fit}
    names = _curve_names(variant)
    shown = [
        replace(row, metric="cosine", variant=names[row.metric, row.variant], null=None)
        for row in rows
        if (row.metric, row.variant) in names
    ]
    return [
        replace(
            row,
            value=math.nan if row.variant == "corrected" else row.value,
            ci_low=None,
            ci_high=None,
        )
        if row.variant in {"cosine", "corrected"} and row.layer in noise
        else row
        for row in shown
    ]


def _present(rows: Sequence[Measurement]) -> dict[str, str]:
    names = {row.variant for row in rows}
    return {name: said for name, said in _CURVES.items() if name in names}


def _distances(rows: Sequence[Measurement]) -> list[Measurement]:
    """1 - cosine; the corrected cosine, whose interval reaches beyond 1, is left out."""

    def below(value: float | None) -> float | None:
        return None if value is None else max(1 - value, SMALLEST)

    return [
        replace(
            row,
            value=max(1 - row.value, SMALLEST),
            ci_low=below(row.ci_high),
            ci_high=below(row.ci_low),
            p=None,
            p_max=None,
            note="",
        )
        for row in rows
        if row.variant != "corrected" and row.value < 1
    ]


def _traits(found: Sequence[Found], rows: Sequence[Measurement]) -> str:
    """Trait against trait in one stage, with a menu for the layer."""
    cells = [
        replace(
            row,
            stage=row.trait,
            reference=row.variant.partition(":")[2],
            variant="",
            trait="",
        )
        for row in rows
    ]
    return stage_matrix(
        cells,
        "trait_cosine",
        order=[one.contrast.trait for one in found],
        title=f"Cosine between the vectors of traits in {found[0].where.stage}",
        caption=captions.of_traits(tested=any(row.p is not None for row in rows)),
        signed=True,
        axes=("trait", "trait"),
        behind=rows,
    )
