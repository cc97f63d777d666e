"""Linear probes fitted many at a time: layers, penalties and relabellings share a factorisation.

The minimised function is, with mean-one example weights v that balance the two classes,

    (1/n) sum_i v_i log(1 + exp(-(2 y_i - 1) (w z_i + b))) + (strength / 2) |w|^2 ,

scikit-learn's `LogisticRegression(C=1/(n strength), class_weight="balanced")`. The L2 solution lies
in the span of the examples, and a rotation changes nothing, so each layer is rotated once into the
principal axes of its examples. There the Boehning-Lindsay bound of the Hessian,
max(v)/4 Z'Z/n + strength, is diagonal for every penalty and relabelling, and one accelerated
gradient loop of two matrix products fits them all. Fits that are reported are then polished by
Newton's method to a Newton decrement below 1e-10, since the directions themselves are results.

Source:
    Boehning & Lindsay 1988 (bound); O'Donoghue & Candes 2015 (adaptive restart).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from olmo_stages.errors import OlmoStagesError

POLISHED = 1e-10
"""Newton decrement of a fit that is reported."""

ROUGH = 1e-4
"""Decrement of a fit that only ranks held-out examples or compares penalties."""


class ConvergenceError(OlmoStagesError, ArithmeticError):
    """A probe did not reach its tolerance."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Examples in their own principal axes.

    Args:
        z: centred coordinates; columns are orthogonal.
        spectrum: mean square of each column of `z`.
        mean: what was subtracted.
        rotation: from features to coordinates: z = (x - mean) @ rotation.
    """

    z: Float[Tensor, "head example axis"]
    spectrum: Float[Tensor, "head axis"]
    mean: Float[Tensor, "head 1 feature"]
    rotation: Float[Tensor, "head feature axis"]

    def project(self, x: Float[Tensor, "head new feature"]) -> Float[Tensor, "head new axis"]:
        """Coordinates of other examples."""
        return (x - self.mean) @ self.rotation

    def single(self) -> "Axes":
        """The same in single precision."""
        return Axes(*(it.float() for it in (self.z, self.spectrum, self.mean, self.rotation)))


def principal_axes(x: Float[Tensor, "head example feature"]) -> Axes:
    """Rotate each head's examples into their principal axes, by way of the smaller Gram matrix.

    Args:
        x: float64 features.

    Returns:
        min(example, feature) axes a head; axes without variance have coordinate and rotation zero.
    """
    n = x.shape[1]
    mean = x.mean(1, keepdim=True)
    centred = x - mean
    if x.shape[2] <= n:
        _, rotation = torch.linalg.eigh(centred.mT @ centred)
    else:
        squares, left = torch.linalg.eigh(centred @ centred.mT)
        floor = squares[:, -1:].clamp_min(1e-300) * 1e-13
        inverse = torch.where(squares > floor, squares.clamp_min(1e-300).rsqrt(), 0.0)
        rotation = centred.mT @ (left * inverse[:, None])
    z = centred @ rotation
    return Axes(z, z.square().mean(1), mean, rotation)


def balanced_weights(y: Float[Tensor, "example target"]) -> Float[Tensor, "example target"]:
    """Example weights of mean one that give both classes the same total weight.

    A target with one class only gets zeros, so that its fit is the zero probe: it ranks nothing.
    A negative label leaves the example out of that target.
    """
    kept = (y >= 0).to(y)
    share = (y > 0).to(y).sum(0) / kept.sum(0)
    weights = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share)) * kept / kept.mean(0)
    return torch.where((share > 0) & (share < 1), weights, 0.0)


def accelerated(
    axes: Axes,
    y: Float[Tensor, "example target"],
    strength: Float[Tensor, "head target"],
    tolerance: float = ROUGH,
    max_steps: int = 2000,
) -> tuple[Float[Tensor, "head axis target"], Float[Tensor, "head 1 target"]]:
    """Fit every target of every head at once.

    Args:
        axes: the training examples.
        y: 0/1 labels, one column a target: a relabelling, or the same labels again for another
            penalty; a negative label leaves the example out.
        strength: penalty of each fit.
        tolerance: gradient's norm in the metric of the bound at which a fit is done. With examples
            of norm one, the default leaves the logits within 0.05 of their limit at strength 1e-4
            and within 0.001 at 1e-2.
        max_steps: fits that have not reached the tolerance by then are returned as they are.

    Returns:
        Weights in the axes' coordinates and biases.
    """
    n = y.shape[0]
    sign, weights = torch.where(y > 0, 1.0, -1.0).to(y), balanced_weights(y)
    bound = (weights.amax(0) / 4).clamp_min(1e-12)
    curvature = axes.spectrum[:, :, None] * bound + strength[:, None]
    w = axes.z.new_zeros(axes.z.shape[0], axes.z.shape[2], y.shape[1])
    b = axes.z.new_zeros(axes.z.shape[0], 1, y.shape[1])
    ahead_w, ahead_b, momentum = w, b, w.new_ones(w.shape[0], 1, w.shape[2])
    for _ in range(max_steps):
        pull = -sign * weights * torch.sigmoid(-sign * (axes.z @ ahead_w + ahead_b))
        slope_w = axes.z.mT @ pull / n + strength[:, None] * ahead_w
        slope_b = pull.mean(1, keepdim=True)
        step_w, step_b = slope_w / curvature, slope_b / bound
        decrement = (slope_w * step_w).sum(1, keepdim=True) + slope_b * step_b
        if float(decrement.max()) < tolerance**2:
            return ahead_w - step_w, ahead_b - step_b
        new_w, new_b = ahead_w - step_w, ahead_b - step_b
        # Momentum that points uphill is dropped, fit by fit.
        uphill = (slope_w * (new_w - w)).sum(1, keepdim=True) + slope_b * (new_b - b) > 0
        momentum = torch.where(uphill, 1.0, momentum)
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        share = torch.where(uphill, 0.0, (momentum - 1) / following)
        ahead_w, ahead_b = new_w + share * (new_w - w), new_b + share * (new_b - b)
        w, b, momentum = new_w, new_b, following
    return w, b


def polish(
    axes: Axes,
    y: Float[Tensor, " example"],
    strength: Float[Tensor, " head"],
    start: tuple[Float[Tensor, "head axis"], Float[Tensor, " head"]],
    max_steps: int = 100,
) -> tuple[Float[Tensor, "head axis"], Float[Tensor, " head"]]:
    """Newton's method with step halving, from `start`, until the solution is exact for any purpose.

    Args:
        axes: the training examples.
        y: 0/1 labels; a negative one leaves the example out.
        strength: penalty a head.
        start: weights and biases to start from.
        max_steps: Newton steps.

    Returns:
        Weights and biases whose Newton decrement is below 1e-10.

    Raises:
        ConvergenceError: the decrement stayed above that.
    """
    n = len(y)
    design = torch.cat([axes.z, axes.z.new_ones(*axes.z.shape[:2], 1)], dim=2)
    penalty = torch.cat(
        [strength[:, None].expand(-1, axes.z.shape[2]), strength.new_zeros(len(strength), 1)], 1
    )
    sign, weights = torch.where(y > 0, 1.0, -1.0).to(y), balanced_weights(y[:, None])[:, 0]
    theta = torch.cat([start[0], start[1][:, None]], 1)

    def objective(theta: Tensor) -> Tensor:
        logits = (design @ theta[:, :, None])[..., 0]
        loss = (weights * torch.nn.functional.softplus(-sign * logits)).mean(1)
        return loss + (penalty * theta.square()).sum(1) / 2

    decrement = torch.full_like(strength, float("inf"))
    for _ in range(max_steps):
        probability = torch.sigmoid(-sign * (design @ theta[:, :, None])[..., 0])
        gradient = (
            -(design.mT @ (sign * weights * probability)[:, :, None])[..., 0] / n + penalty * theta
        )
        curvature = weights * probability * (1 - probability)
        hessian = design.mT @ (design * curvature[:, :, None]) / n + torch.diag_embed(penalty)
        # The bias alone is unpenalised; perfectly separated classes make its curvature vanish.
        hessian.diagonal(dim1=1, dim2=2).add_(1e-14)
        step = torch.linalg.solve(hessian, gradient[:, :, None])[..., 0]
        decrement = (gradient * step).sum(1).clamp_min(0).sqrt()
        if float(decrement.max()) < POLISHED:
            return theta[:, :-1], theta[:, -1]
        size, before = torch.ones_like(strength), objective(theta)
        for _ in range(30):
            # Rounding of the objective must not be taken for an increase near the optimum.
            worse = objective(theta - size[:, None] * step) > before + 1e-14 * before.abs()
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        theta = theta - size[:, None] * step
    raise ConvergenceError(
        f"a logistic probe stopped at Newton decrement {float(decrement.max()):.1e} (wanted "
        f"{POLISHED:.0e}) at strength {float(strength.min()):.1e}; raise analysis.strengths"
    )
