"""What a null says about the cosines of all layers: z, p, and p of the most extreme layer.

Cosines that rounding of the forward pass cannot tell apart are ties and count against the finding:
two copies of one stage agree in every relabelling, and no label may come out as special.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64

from olmo_stages.estimates import LEVEL, false_discovery_rate


@dataclass(frozen=True, eq=False)
class Inference:
    """One value a layer against its null. All NaN, and p 1, where there is no sample.

    Args:
        null: median of the null.
        low: lower end of its central 95 %.
        high: upper end.
        mean: of the null.
        sd: its standard deviation.
        z: distance of the value from the mean in those; NaN where the null varies by rounding only.
        p: of each layer alone.
        p_max: against the most extreme layer of each relabelling (family-wise).
        q: false discovery rate over layers.
    """

    null: Float64[np.ndarray, " layer"]
    low: Float64[np.ndarray, " layer"]
    high: Float64[np.ndarray, " layer"]
    mean: Float64[np.ndarray, " layer"]
    sd: Float64[np.ndarray, " layer"]
    z: Float64[np.ndarray, " layer"]
    p: Float64[np.ndarray, " layer"]
    p_max: Float64[np.ndarray, " layer"]
    q: Float64[np.ndarray, " layer"]


def upper(
    value: Float[np.ndarray, " layer"],
    samples: Float[np.ndarray, "layer sample"],
    rounding: Float[np.ndarray, "layer sample"],
    least: float = 0.0,
) -> Inference:
    """Is the value larger than the null?

    Args:
        value: observed; a layer where it is NaN gets p 1.
        samples: the null, sample i being the same relabelling in every layer.
        rounding: how far rounding may have lowered each sample; one that it may lift to the value
            counts as large.
        least: p that cannot be undercut, since the samples hold so few different ones.

    Source:
        Phipson & Smyth 2010 (p is never 0); Westfall & Young 1993 (max statistic).
    """
    lifted = np.where(np.isfinite(samples), samples + rounding, np.inf)
    return _at_least(least, _inference(value, samples, rounding, value, lifted))


def two_sided(
    value: Float[np.ndarray, " layer"],
    samples: Float[np.ndarray, "layer sample"],
    rounding: Float[np.ndarray, "layer sample"],
    least: float = 0.0,
) -> Inference:
    """Is the value farther from the null's middle than the null's own samples are?

    The middle is the mean of null and value together, which treats them alike, so that p is exact.
    For the most extreme layer distances count in standard deviations of each layer.

    Args:
        value: observed; a layer where it is NaN gets p 1.
        samples: the null, sample i being the same relabelling in every layer.
        rounding: how far rounding may have lowered each sample.
        least: p that cannot be undercut, since the samples hold so few different ones.
    """
    together = np.concatenate([value[:, None], samples], axis=1)
    finite = np.isfinite(together).all(axis=1, keepdims=True)
    centre = np.where(finite, together, 0.0).mean(axis=1, keepdims=True)
    spread = np.where(finite, together, 0.0).std(axis=1, keepdims=True)
    usable = finite & (spread > _noise(rounding))
    scale = np.where(usable, spread, 1.0)
    observed = np.where(usable, np.abs(value[:, None] - centre) / scale, 0.0)[:, 0]
    distances = np.where(usable, (np.abs(samples - centre) + rounding) / scale, 0.0)
    return _at_least(least, _inference(value, samples, rounding, observed, distances))


def _at_least(least: float, found: Inference) -> Inference:
    p = np.maximum(found.p, least)
    return replace(found, p=p, p_max=np.maximum(found.p_max, least), q=false_discovery_rate(p))


def _noise(rounding: Float[np.ndarray, "layer sample"]) -> Float64[np.ndarray, "layer 1"]:
    if not rounding.shape[1]:
        return np.zeros((len(rounding), 1))
    return np.median(rounding, axis=1, keepdims=True)


def _inference(
    value: Float[np.ndarray, " layer"],
    samples: Float[np.ndarray, "layer sample"],
    rounding: Float[np.ndarray, "layer sample"],
    observed: Float[np.ndarray, " layer"],
    null: Float[np.ndarray, "layer sample"],
) -> Inference:
    """Summaries of the samples, and p of an observed statistic among those of the null."""
    n_layers, n = samples.shape
    if not n:
        unknown, ones = np.full(n_layers, np.nan), np.ones(n_layers)
        return Inference(
            null=unknown,
            low=unknown,
            high=unknown,
            mean=unknown,
            sd=unknown,
            z=unknown,
            p=ones,
            p_max=ones,
            q=ones,
        )
    defined: Bool[np.ndarray, " layer"] = np.isfinite(observed)
    reached = np.where(defined, observed, -np.inf)[:, None]
    p = (1 + (null >= reached).sum(axis=1)) / (1 + n)
    # A layer without a value says nothing about the others.
    largest = null[defined].max(axis=0, initial=-np.inf)
    p_max = (1 + (largest >= reached).sum(axis=1)) / (1 + n)
    tails = [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2]
    low, median, high = np.quantile(samples, tails, axis=1)
    mean, sd = samples.mean(axis=1), samples.std(axis=1, ddof=min(1, n - 1))
    varies = sd > _noise(rounding)[:, 0]
    z = np.where(varies, (value - mean) / np.where(varies, sd, 1.0), np.nan)
    return Inference(median, low, high, mean, sd, z, p, p_max, false_discovery_rate(p))
