"""Linear probes fitted many at a time: folds, penalties and relabellings share a factorisation.

The minimised function is, with mean-one example weights v that balance the two classes,

    (1/n) sum_i v_i log(1 + exp(-(2 y_i - 1) (w z_i + b))) + (strength / 2) |w|^2 ,

scikit-learn's `LogisticRegression(C=1/(n strength), class_weight="balanced")`. The L2 solution lies
in the span of the examples, and a rotation changes nothing, so a layer is rotated once into the
principal axes of its examples. There the Boehning-Lindsay bound of the Hessian,
max(v)/4 Z'Z/n + strength, is diagonal for every penalty and relabelling, and one accelerated
gradient loop of two matrix products fits them all. It bounds the Hessian of any part of the
examples too, so that the same axes serve cross-validation within them. A fit leaves the loop when
it is done. Fits that are reported are then polished by Newton's method to a Newton decrement below
1e-10, since the directions themselves are results.

numpy, because importing torch takes longer than all fits of a small model.

Source:
    Boehning & Lindsay 1988 (bound); O'Donoghue & Candes 2015 (adaptive restart).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from olmo_stages.descent import Exact, Fits, descend
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
        mix: from features to coordinates, or from products with `centred` where that is given.
        centred: the centred examples, where there are fewer of them than features.
    """

    z: Float[np.ndarray, "example axis"]
    spectrum: Float[np.ndarray, " axis"]
    mean: Float[np.ndarray, " feature"]
    mix: Float[np.ndarray, "any axis"]
    centred: Float[np.ndarray, "example feature"] | None = None

    def project(self, x: Float[np.ndarray, "new feature"]) -> Float[np.ndarray, "new axis"]:
        """Coordinates of other examples."""
        x = x - self.mean
        return (x if self.centred is None else x @ self.centred.T) @ self.mix

    def features(self, w: Float[np.ndarray, "axis target"]) -> Float[np.ndarray, "feature target"]:
        """Weights of the features that give the same scores as these of the coordinates."""
        mixed = self.mix @ w
        return mixed if self.centred is None else self.centred.T @ mixed

    def single(self) -> "Axes":
        """The same with coordinates in single precision."""
        return replace(self, z=self.z.astype(np.float32), spectrum=self.spectrum.astype(np.float32))


def principal_axes(x: Float[np.ndarray, "example feature"]) -> Axes:
    """Rotate examples into their principal axes, by way of the smaller Gram matrix.

    Args:
        x: float64 features.

    Returns:
        min(example, feature) axes; axes without variance have coordinate zero.
    """
    n = len(x)
    mean = x.mean(0)
    centred = x - mean
    if x.shape[1] <= n:
        _, rotation = np.linalg.eigh(centred.T @ centred)
        z = centred @ rotation
        return Axes(z, _mean_squares(z), mean, rotation)
    squares, left = np.linalg.eigh(centred @ centred.T)
    known = squares > max(squares[-1], 1e-300) * 1e-13
    sizes = np.sqrt(np.where(known, squares, 1.0))
    z = left * np.where(known, sizes, 0.0)
    return Axes(z, _mean_squares(z), mean, left * np.where(known, 1 / sizes, 0.0), centred)


def _mean_squares(z: Float[np.ndarray, "example axis"]) -> Float[np.ndarray, " axis"]:
    return np.einsum("na,na->a", z, z) / len(z)


class Classes(NamedTuple):
    """The two classes of every target.

    Args:
        half: half of each example's weight over the number of examples, so that both classes of a
            target weigh one half together; all zero where a target has one class only.
        means: of the coordinates, of class 0 and of class 1; zero for a class without examples.
    """

    half: Float[np.ndarray, "target example"]
    means: tuple[Float[np.ndarray, "target axis"], Float[np.ndarray, "target axis"]]

    def repeated(self, n: int) -> "Classes":
        """Each target n times in a row."""
        half, first, second = (np.repeat(it, n, axis=0) for it in (self.half, *self.means))
        return Classes(half, (first, second))


def classes(axes: Axes, y: Float[np.ndarray, "example target"]) -> Classes:
    """Weights that balance the classes of every target, and the means of these.

    Args:
        axes: the examples; their precision is that of what is found.
        y: 0/1 labels, one column a target; a negative label leaves the example out.
    """
    kind = axes.z.dtype
    positive = np.ascontiguousarray(y.T > 0)
    left_out = np.ascontiguousarray(y.T < 0)
    whole = not left_out.any()
    negative = ~positive if whole else ~(positive | left_out)
    shares = [
        1 / np.maximum(np.count_nonzero(it, axis=1), 1)[:, None].astype(kind)
        for it in (negative, positive)
    ]
    ours = positive.astype(kind) @ axes.z
    # The coordinates are centred, so that what is not of one class is of the other.
    theirs = -ours if whole else negative.astype(kind) @ axes.z
    both = np.asarray(negative.any(1) & positive.any(1), dtype=kind)[:, None] / 4
    half = np.where(positive, shares[1] * both, shares[0] * both)
    half[left_out] = 0
    return Classes(half, (theirs * shares[0], ours * shares[1]))


def accelerated(
    axes: Axes,
    y: Float[np.ndarray, "example target"] | Classes,
    strength: Float[np.ndarray, " target"],
    tolerance: float = ROUGH,
    max_steps: int = 2000,
) -> tuple[Float[np.ndarray, "axis target"], Float[np.ndarray, " target"]]:
    """Fit every target.

    Args:
        axes: the training examples; their precision is that of the fits.
        y: 0/1 labels, one column a target: a relabelling, or the same labels again for another
            penalty; a negative label leaves the example out. Or what `classes` makes of them. A
            target with one class only gets the zero probe, which ranks nothing.
        strength: penalty of each fit.
        tolerance: gradient's norm in the metric of the bound at which a fit is done. With examples
            of norm one, the default leaves the logits within 0.05 of their limit at strength 1e-4
            and within 0.001 at 1e-2.
        max_steps: fits that have not reached the tolerance by then are returned as they are.

    Returns:
        Weights in the axes' coordinates and biases.
    """
    kind, n = axes.z.dtype, len(axes.z)
    half, means = y if isinstance(y, Classes) else classes(axes, y)
    design = np.concatenate([axes.z, np.ones((n, 1), kind)], axis=1)
    penalty = np.repeat(strength.astype(kind)[:, None], design.shape[1], axis=1)
    penalty[:, -1] = 0
    # Half of the largest weight over n is 2/n of the bound, max(v)/4.
    bound = np.maximum(half.max(1, keepdims=True) * kind.type(n / 2), 1e-12)
    curvature = bound * np.append(axes.spectrum, kind.type(1)) + penalty
    # Where every score is 0 both classes pull equally, so that the bias stays.
    constant = np.zeros_like(penalty)
    constant[:, :-1] = (means[0] - means[1]) / 4 * half.any(1, keepdims=True)
    found = descend(design, Fits(half, constant, penalty, curvature), tolerance, max_steps)
    return found[:, :-1].T, found[:, -1]


def polish(
    axes: Axes,
    y: Float[np.ndarray, " example"],
    strength: float,
    start: tuple[Float[np.ndarray, " axis"], float],
    max_steps: int = 100,
) -> tuple[Float[np.ndarray, " axis"], float]:
    """Newton's method with step halving, from `start`, until the solution is exact for any purpose.

    Args:
        axes: the training examples.
        y: 0/1 labels; a negative one leaves the example out.
        strength: penalty.
        start: weights and bias to start from.
        max_steps: Newton steps.

    Returns:
        Weights and bias whose Newton decrement is below 1e-10.

    Raises:
        ConvergenceError: the decrement stayed above that.
    """
    design = np.concatenate([axes.z, np.ones((len(y), 1))], axis=1)
    penalty = np.append(np.full(axes.z.shape[1], strength), 0.0)
    weights = 2 * classes(axes, y[:, None]).half[0]
    fit = Exact(design, np.where(y > 0, 1.0, -1.0), weights, penalty)
    theta, decrement = fit.solve(np.append(*start), POLISHED, max_steps)
    if decrement < POLISHED:
        return theta[:-1], float(theta[-1])
    raise ConvergenceError(
        f"a logistic probe stopped at Newton decrement {decrement:.1e} (wanted "
        f"{POLISHED:.0e}) at strength {strength:.1e}; raise analysis.strengths"
    )
