"""Logistic probes as vectors: all targets of a layer share one factorisation."""

import numpy as np
import torch
from jaxtyping import Float, Float32, Int8
from torch import Tensor

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
    centred = torch.from_numpy(x).double()
    centred = centred - centred.mean(0)
    size = centred.square().sum(1).mean().sqrt()
    axes = principal_axes((centred / size)[None])
    y = torch.from_numpy(labels.T.astype(np.float64))
    both = (labels == 1).any(1) & (labels == 0).any(1)
    relative = _squares_of_kept(axes, y)
    strengths = strength * relative[None]
    few = len(labels) <= FEW
    if not few:
        axes, y, strengths, relative = axes.single(), y.float(), strengths.float(), relative.float()
    weights, bias = accelerated(axes, y, strengths, TOLERANCE)
    if few:
        for target in np.flatnonzero(both).tolist():
            start = weights[:, :, target], bias[:, 0, target]
            weights[:, :, target] = polish(axes, y[:, target], strengths[:, target], start)[0]
    found = (axes.rotation[0] @ (weights[0] * relative.sqrt())).T.numpy().astype(np.float32)
    return np.where(both[:, None], found, np.float32(0))


def _squares_of_kept(axes: Axes, y: Float[Tensor, "row target"]) -> Float[Tensor, " target"]:
    """Mean squared norm of the rows that take part, around their own mean.

    Rows are scaled by that of all of them; a target on some has to be penalised as if the others
    had never been there.
    """
    kept = (y >= 0).to(y)
    share = kept / kept.sum(0)
    z = axes.z[0]
    return share.T @ z.square().sum(1) - (share.T @ z).square().sum(1)
