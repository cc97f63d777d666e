"""Agreement of vectors that are fitted anew: literal halves, and the jackknife over blocks."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from olmo_stages.dominant import Variant
from olmo_stages.vectors.agreement import Agreement, corrected
from olmo_stages.vectors.contrast import Contrast
from olmo_stages.vectors.kinds import coefficients
from olmo_stages.vectors.layer import Layer
from olmo_stages.vectors.nulls import halves
from olmo_stages.vectors.plan import Evidence, Null, Plan, flat_rounding, paired_cosines

BLOCKS = 20
"""Blocks of groups that are left out one at a time."""

SPLITS = 6
"""Splits of the groups into halves."""

SIGNED = 3.0
"""Standard errors from which on the sign of an axis counts as known."""


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
        null, unrelated = (
            [plan.extract(side.x, targets) for side in sides]
            for targets in (plan.nulls.relabelled, plan.nulls.unrelated)
        )
        samples: dict[Null, Float64[np.ndarray, " sample"]] = {
            "relabelled": paired_cosines(null[0], null[-1]),
            "independent": paired_cosines(null[0], null[-1][plan.nulls.partner]),
            "unrelated": paired_cosines(unrelated[0], unrelated[-1]),
        }
        controls = {
            name: paired_cosines(*(plan.extract(side.x, its) for side in (x, y)))[0].item()
            for name, its in plan.controls.items()
        }
        if plan.extract.needs_pairs and all(
            signed(side.x, vector, plan)
            for side, vector in zip(sides, (vector, other), strict=False)
        ):
            samples["relabelled"] = np.abs(samples["relabelled"])
            samples["unrelated"] = np.abs(samples["unrelated"])
            controls = {name: abs(its) for name, its in controls.items()}
        rounding = flat_rounding(samples, (x, y), layer, plan)
        yield variant, Evidence(found, vector, other, samples, rounding, controls)


def signed(
    x: Float32[np.ndarray, "row d_model"], vector: Float32[np.ndarray, " d_model"], plan: Plan
) -> bool:
    """Whether the labels give an axis its sign beyond doubt: 3 standard errors over groups.

    An axis of random pairs has no sign worth the name. Where that of the data has, cosines of
    random axes are taken without theirs, or half of them would be turned round and any turn of the
    data's would look small; where it has none, both keep what they have.
    """
    scores = x @ vector
    weights = coefficients(plan.contrast.targets().labels)[0]
    parts = np.bincount(plan.contrast.groups, weights=weights * scores)
    return bool(abs(parts.sum()) > SIGNED * np.sqrt(np.square(parts - parts.mean()).sum()))


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
    stage = stepped_up(within_x)
    if y is None:
        unknown = np.full(len(keep), np.nan)
        return Agreement(unknown, unknown, stage, unknown)
    across = (cosines(vx, vy, a, b).mean(axis=1) + cosines(vx, vy, b, a).mean(axis=1)) / 2
    return Agreement(
        cosines(vx, vy, indices[:, 0], indices[:, 0]),
        corrected(across, within_x, within_y),
        stage,
        stepped_up(within_y),
    )


def stepped_up(halves: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Agreement of vectors of the full length, from that of halves.

    Halves that are opposed, as axes of noise beside a massive dimension are, have no full length to
    be stepped up to: there 2r/(1 + r) falls without limit, and the mirror image is taken instead.
    """
    return 2 * halves / (1 + np.abs(halves))


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
        exact = [its.astype(np.float64) for its in (x, y)]
        x, y = (its / np.linalg.norm(its, axis=1, keepdims=True) for its in exact)
    found = np.einsum("td,td->t", x[of_x.ravel()], y[of_y.ravel()])
    return np.clip(found, -1.0, 1.0).reshape(of_x.shape)
