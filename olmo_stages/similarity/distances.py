"""Squared distances from inner products."""

import numpy as np
from jaxtyping import Float


def squared_distances(gram: Float[np.ndarray, "row row"]) -> Float[np.ndarray, "row row"]:
    """Squared Euclidean distances between rows, never below 0."""
    norms = np.diag(gram)
    return np.maximum(norms[:, None] + norms[None, :] - 2 * gram, 0)
