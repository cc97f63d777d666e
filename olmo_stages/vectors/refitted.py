"""Agreement of vectors that are fitted anew: literal halves, and the jackknife over blocks."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from olmo_stages.dominant import Variant
from olmo_stages.vectors.agreement import Agreement, corrected
from olmo_stages.vectors.contrast import Contrast
from olmo_stages.vectors.layer import ROUNDING, Layer
from olmo_stages.vectors.nulls import halves
from olmo_stages.vectors.plan import (
    ARITHMETIC,
    Evidence,
    Null,
    Plan,
    paired_cosines,
    tried_rounding,
)

BLOCKS = 20
"""Blocks of groups that are left out one at a time."""

SPLITS = 6
"""Splits of the groups into halves."""


def refits(
    layer: Layer, plan: Plan, variants: Sequence[Variant]
) -> Iterator[tuple[Variant, Evidence]]:
    """Evidence about vectors of a kind that is refitted, a variant at a time.

    Yields:
        A variant and its evidence.
    """
    for variant in variants:
        x, y = layer.sides(variant)
        found = agreement(x.x, None if y is None else y.x, plan)
        vector = plan.extract(x.x, plan.contrast.targets())[0]
        if y is None:
            yield variant, Evidence(found, vector, None)
            continue
        sides = [x] if y is x else [x, y]
        other = vector if y is x else plan.extract(y.x, plan.contrast.targets())[0]
        null = [plan.extract(side.x, plan.nulls.relabelled) for side in sides]
        unrelated = [plan.extract(side.x, plan.nulls.unrelated) for side in sides]
        tried = [tried_rounding(side, plan, ROUNDING * layer.resolution) for side in sides]
        samples: dict[Null, Float64[np.ndarray, " sample"]] = {
            "relabelled": paired_cosines(null[0], null[-1]),
            "independent": paired_cosines(null[0], null[-1][plan.nulls.partner]),
            "unrelated": paired_cosines(unrelated[0], unrelated[-1]),
        }
        controls = {
            name: paired_cosines(*(plan.extract(side.x, its) for side in (x, y)))[0].item()
            for name, its in plan.controls.items()
        }
        noise = ARITHMETIC + tried[0] + tried[-1]
        rounding: dict[Null, Float64[np.ndarray, " sample"]] = {
            name: np.full(len(its), noise) for name, its in samples.items()
        }
        yield variant, Evidence(found, vector, other, samples, rounding, controls)


def agreement(
    x: Float32[np.ndarray, "row d_model"],
    y: Float32[np.ndarray, "row d_model"] | None,
    plan: Plan,
) -> Agreement:
    """Fit on all groups, on halves of them, and on both without each block of groups.

    The corrected cosine is the mean cosine of halves of different groups across stages over that
    of the halves within stages: no two vectors that are compared share an example.

    Args:
        x: rows of the stage.
        y: rows of the reference.
        plan: the contrast and the kind.
    """
    contrast, extract, seed = plan.contrast, plan.extract, plan.seed
    first = halves(contrast, SPLITS, seed)
    left_out = blocks(contrast, seed)
    keep = np.concatenate([np.ones((1, len(contrast.rows)), dtype=bool), ~left_out])
    targets = contrast.targets().within([
        mask & half for mask in keep for half in (np.ones_like(mask), *first, *~first)
    ])
    shape = (len(keep), 1 + 2 * SPLITS)
    vx = extract(x, targets)
    vy = vx if y is None or y is x else extract(y, targets)
    halves_of = slice(1, 1 + SPLITS), slice(1 + SPLITS, None)
    indices = np.arange(len(targets)).reshape(shape)
    a, b = (indices[:, part] for part in halves_of)
    within_x = cosines(vx, vx, a, b).mean(axis=1)
    within_y = within_x if vy is vx else cosines(vy, vy, a, b).mean(axis=1)
    stage = 2 * within_x / (1 + within_x)
    if y is None:
        unknown = np.full(len(keep), np.nan)
        return Agreement(unknown, unknown, stage, unknown)
    across = (cosines(vx, vy, a, b).mean(axis=1) + cosines(vx, vy, b, a).mean(axis=1)) / 2
    return Agreement(
        cosines(vx, vy, indices[:, 0], indices[:, 0]),
        corrected(across, within_x, within_y),
        stage,
        2 * within_y / (1 + within_y),
    )


def blocks(contrast: Contrast, seed: int) -> Bool[np.ndarray, "block row"]:
    """Masks of blocks of whole groups, each with its part of both classes."""
    rng = np.random.default_rng((seed, 4))
    positives = np.bincount(contrast.groups, weights=contrast.labels)
    share = positives / np.bincount(contrast.groups)
    order = np.lexsort((rng.random(len(share)), share))
    n = min(BLOCKS, len(share))
    block = np.empty(len(share), dtype=np.int64)
    block[order] = np.arange(len(share)) % n
    return block[contrast.groups] == np.arange(n)[:, None]


def cosines(
    x: Float32[np.ndarray, "target d_model"],
    y: Float32[np.ndarray, "target d_model"],
    of_x: Int[np.ndarray, "..."],
    of_y: Int[np.ndarray, "..."],
) -> Float64[np.ndarray, "..."]:
    """Cosines of some vectors of the one with some of the other; NaN where one has no length."""
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (v.astype(np.float64) / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    return np.einsum("td,td->t", x[of_x.ravel()], y[of_y.ravel()]).reshape(of_x.shape)
