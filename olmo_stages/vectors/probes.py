"""Logistic probes as vectors: all targets of a layer share one factorisation."""

import numpy as np
from jaxtyping import Float, Float32, Int8

from olmo_stages.logistic import Axes, accelerated, polish, principal_axes

FEW = 8
"""Up to so many targets are solved to a Newton decrement of 1e-10."""

TOLERANCE = 1e-5
"""Gradient, in the metric of the bound, at which the fits of a null are done."""


def fitted(
    x: Float32[np.ndarray, "row d_model"], labels: Int8[np.ndarray, "target row"], strength: float
) -> Float32[np.ndarray, "target d_model"]:
    """Weights of one probe a target.

    Args:
        x: activations of one layer.
        labels: 1, 0, or -1 = left out; a target without both classes gets zeros.
        strength: L2 penalty relative to the mean loss.

    Returns:
        Weights in units of the features scaled to mean squared norm one; only their direction
        means anything.

    Raises:
        ConvergenceError: a probe did not reach its tolerance.
    """
    if not len(labels):
        return np.empty((0, x.shape[1]), dtype=np.float32)
    centred = x.astype(np.float64)
    centred -= centred.mean(0)
    size = np.sqrt(np.square(centred).sum(1).mean())
    axes = principal_axes(centred / size)
    y = labels.T.astype(np.float64)
    both = (labels == 1).any(1) & (labels == 0).any(1)
    relative = _squares_of_kept(axes, y)
    strengths = strength * relative
    few = len(labels) <= FEW
    weights, bias = accelerated(axes if few else axes.single(), y, strengths, TOLERANCE)
    if few:
        for target in np.flatnonzero(both).tolist():
            start = weights[:, target], float(bias[target])
            own = float(strengths[target])
            weights[:, target] = polish(axes, y[:, target], own, start)[0]
    found = axes.features(weights * np.sqrt(relative)).T.astype(np.float32)
    return np.where(both[:, None], found, np.float32(0))


def _squares_of_kept(
    axes: Axes, y: Float[np.ndarray, "row target"]
) -> Float[np.ndarray, " target"]:
    """Mean squared norm of the rows that take part, around their own mean.

    Rows are scaled by that of all of them; a target on some has to be penalised as if the others
    had never been there.
    """
    kept = (y >= 0).astype(np.float64)
    share = kept / kept.sum(0)
    return share.T @ np.square(axes.z).sum(1) - np.square(share.T @ axes.z).sum(1)
