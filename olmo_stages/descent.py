"""The loop in which many logistic fits are solved together; see `olmo_stages.logistic`.

A module of its own, because its arrays are not checked step by step: that would take longer than
the steps do. Fits are rows: products are then of contiguous rows, which matters for small ones.
"""

from dataclasses import dataclass

import numpy as np

BLOCK = 256
"""Fits in one loop: enough for matrix products to be fast, few enough to stay in the cache."""


@dataclass(frozen=True, eq=False)
class Fits:
    """What is fitted, one fit a row.

    With s the sign of a label, v its example's weight and m the score, the gradient's factor
    -s v sigmoid(-s m) is v/2 tanh(m/2) - s v/2, of which only the first part changes.

    Args:
        half: half of the weight of each example, over their number.
        constant: gradient of the loss where every score is 0.
        penalty: of each axis; 0 for the bias, which comes last.
        curvature: bound of it along each axis.
    """

    half: np.ndarray
    constant: np.ndarray
    penalty: np.ndarray
    curvature: np.ndarray

    def only(self, these: np.ndarray | slice) -> "Fits":
        """Some of them."""
        return Fits(
            self.half[these], self.constant[these], self.penalty[these], self.curvature[these]
        )


def descend(design: np.ndarray, fits: Fits, tolerance: float, max_steps: int) -> np.ndarray:
    """Accelerated gradient descent; a fit leaves when it is done.

    Args:
        design: examples, [example, axis + 1], the last column ones.
        fits: what is fitted.
        tolerance: gradient's norm in the metric of the bound at which a fit is done.
        max_steps: fits that are not done by then are returned as they are.

    Returns:
        Where the fits end, [fit, axis + 1].
    """
    found = np.empty_like(fits.penalty)
    halved = np.ascontiguousarray(design.T) / 2
    for first in range(0, len(found), BLOCK):
        block = slice(first, first + BLOCK)
        _descend(design, halved, fits.only(block), found[block], (tolerance, max_steps))
    return found


def _descend(
    design: np.ndarray,
    halved: np.ndarray,
    fits: Fits,
    found: np.ndarray,
    until: tuple[float, int],
) -> None:
    """Write into `found` where the fits end."""
    tolerance, max_steps = until
    number = np.arange(len(found))
    theta = ahead = np.zeros_like(found)
    momentum = np.ones(len(number), found.dtype)
    for _ in range(max_steps):
        pull = ahead @ halved
        np.tanh(pull, out=pull)
        pull *= fits.half
        slope = pull @ design
        slope += fits.constant
        slope += fits.penalty * ahead
        step = slope / fits.curvature
        done = np.vecdot(slope, step) < tolerance**2
        new = ahead - step
        # Leaving is worth the copy of those that stay once some leave together.
        if 8 * np.count_nonzero(done) >= len(done):
            found[number[done]] = new[done]
            stay = np.flatnonzero(~done)
            if not len(stay):
                return
            fits, number, momentum = fits.only(stay), number[stay], momentum[stay]
            theta, slope, new = theta[stay], slope[stay], new[stay]
        # Momentum that points uphill is dropped, fit by fit.
        moved = new - theta
        momentum[np.vecdot(slope, moved) > 0] = 1
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        moved *= ((momentum - 1) / following)[:, None]
        theta, ahead, momentum = new, new + moved, following
    found[number] = theta


@dataclass(frozen=True, eq=False)
class Exact:
    """One fit that is solved to the end.

    Args:
        design: examples.
        sign: of the labels, 1 or -1.
        weights: of the examples, over their number.
        penalty: of each axis; 0 for the bias, which comes last.
    """

    design: np.ndarray
    sign: np.ndarray
    weights: np.ndarray
    penalty: np.ndarray

    def solve(
        self, theta: np.ndarray, tolerance: float, max_steps: int
    ) -> tuple[np.ndarray, float]:
        """Newton's method with step halving; a Hessian serves while each step gains a digit.

        Args:
            theta: where to start.
            tolerance: Newton decrement at which it is done.
            max_steps: after so many it is returned as it is.

        Returns:
            Weights and bias, and the decrement there.
        """
        inverse, decrement = np.eye(len(theta)), np.inf
        for _ in range(max_steps):
            probability = self._probability(theta)
            pull = self.sign * self.weights * probability
            slope = self.penalty * theta - self.design.T @ pull
            step = inverse @ slope
            fresh = decrement == np.inf or _decrement(slope, step) > decrement / 10
            if fresh:
                inverse = np.linalg.inv(self._hessian(probability))
                step = inverse @ slope
            decrement = _decrement(slope, step)
            if decrement < tolerance:
                break
            theta = theta - (self._share(theta, step) if fresh else 1.0) * step
        return theta, decrement

    def _probability(self, theta: np.ndarray) -> np.ndarray:
        """Of the wrong label."""
        margin = -self.sign * (self.design @ theta)
        return np.exp(margin - np.logaddexp(0.0, margin))

    def _hessian(self, probability: np.ndarray) -> np.ndarray:
        curvature = self.weights * probability * (1 - probability)
        hessian = self.design.T @ (self.design * curvature[:, None])
        # The bias alone is unpenalised; perfectly separated classes make its curvature vanish.
        hessian.flat[:: len(self.penalty) + 1] += self.penalty + 1e-14
        return hessian

    def _objective(self, theta: np.ndarray) -> float:
        loss = self.weights @ np.logaddexp(0.0, -self.sign * (self.design @ theta))
        return float(loss + self.penalty @ np.square(theta) / 2)

    def _share(self, theta: np.ndarray, step: np.ndarray) -> float:
        """How much of a step is not worse than none, halved until it is."""
        before, share = self._objective(theta), 1.0
        for _ in range(30):
            # Rounding of the objective must not be taken for an increase near the optimum.
            if self._objective(theta - share * step) <= before + 1e-14 * abs(before):
                break
            share /= 2
        return share


def _decrement(slope: np.ndarray, step: np.ndarray) -> float:
    return float(np.sqrt(max(slope @ step, 0.0)))
