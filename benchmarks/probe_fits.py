"""Probes: our solver against the straightforward scikit-learn loop, side by side in one process.

Same features, folds, grid and relabellings. Small problems are run whole, in turns. At the size of
a 7B model (1000 texts, 4096 dimensions, 33 layers, 1000 relabellings) the loop would take days: its
fits are timed on a random sample of every kind, and scaled by how many there are; ours is run on
some layers, which cost the same each, and scaled to 33 (`--whole` runs all). Held-out scores and
directions are compared with scikit-learn's converged ones. Run by `make bench`.
"""

import argparse
import time
import warnings
from dataclasses import dataclass

import numpy as np
from sides import Peak, Row, in_turns, show
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from olmo_stages.layer_probe import Recipe
from olmo_stages.nested import cross_validate, permutation_scores

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
N_FOLDS, N_INNER = 5, 4
AUROC, COSINE = 0.002, 0.999
ALL_LAYERS = 33
SAMPLE = 2  # fits of each kind


@dataclass
class Problem:
    name: str
    n: int
    d: int
    layers: int
    permutations: int
    signal: float = 0.3
    factors: int = 0  # directions that hold most of the variance, as in real activations

    def data(self):
        rng = np.random.default_rng(0)
        labels = rng.permutation(np.arange(self.n) % 2)
        x = np.empty((self.layers, self.n, self.d), dtype=np.float32)
        for layer in x:
            layer[:] = rng.normal(size=layer.shape)
            sizes = 30 / np.sqrt(1 + np.arange(self.factors))
            layer += (
                rng.normal(size=(self.n, self.factors))
                * sizes
                @ (rng.normal(size=(self.factors, self.d)) / np.sqrt(self.d) * 4)
            )
            layer += self.signal * (labels[:, None] - 0.5) * rng.normal(size=self.d)
        return x, labels, rng.permutation(np.arange(self.n) % N_FOLDS)

    def relabelled(self, labels):
        rng = np.random.default_rng(1)
        return rng.permuted(np.tile(labels, (self.permutations, 1)), axis=1)


def inner_folds(chosen):
    return np.arange(len(chosen)) % N_INNER


def fit(z, y, strength):
    # scikit-learn's default tolerance leaves the direction at cosine 0.98 of the optimum.
    model = LogisticRegression(
        C=1 / (len(y) * strength), class_weight="balanced", tol=1e-8, max_iter=5000
    )
    return model.fit(z, y)


def probes_and_null(x, labels, folds, relabelled):
    recipe = Recipe("logistic", GRID, inner_folds)
    probes = cross_validate(x, labels, folds, recipe)
    return probes, permutation_scores(x, relabelled, folds, probes.strengths, recipe)


def ours(x, labels, folds, relabelled):
    return probes_and_null(x, labels, folds, relabelled)[0].score(x)


@dataclass
class Fold:
    """What the loop fits for one layer and outer fold."""

    z: np.ndarray
    out: np.ndarray
    y: np.ndarray
    train: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, layer, labels, folds, fold):
        train = folds != fold
        layer = layer.astype(np.float64)
        scaler = StandardScaler().fit(layer[train])
        z, out = (scaler.transform(layer[m]) / layer.shape[1] ** 0.5 for m in (train, ~train))
        return cls(z, out, labels[train], train, scaler.scale_ * layer.shape[1] ** 0.5)

    def loss(self, strength, k):
        """Balanced log loss of an inner fold, in proportion to its size."""
        out = inner_folds(self.y) == k
        model = fit(self.z[~out], self.y[~out], strength)
        losses = np.logaddexp(0, -model.decision_function(self.z[out]) * (2 * self.y[out] - 1))
        return out.mean() * np.mean([losses[self.y[out] == label].mean() for label in (0, 1)])

    def best(self):
        return GRID[int(np.argmin([sum(self.loss(it, k) for k in range(N_INNER)) for it in GRID]))]


def loop(x, labels, folds, relabelled):
    scores = np.zeros(x.shape[:2])
    for head, layer in enumerate(x):
        for number in range(N_FOLDS):
            fold = Fold.of(layer, labels, folds, number)
            best = fold.best()
            scores[head, ~fold.train] = fit(fold.z, fold.y, best).decision_function(fold.out)
            for other in relabelled:
                fit(fold.z, other[fold.train], best).decision_function(fold.out)
    return scores


def compare(labels, folds, scores, theirs):
    """Assert that every fold of every layer has the same AUROC; the largest difference."""
    worst = 0.0
    for head in range(len(scores)):
        for fold in range(N_FOLDS):
            out = folds == fold
            found = [roc_auc_score(labels[out], it[head][out]) for it in (scores, theirs)]
            worst = max(worst, abs(found[0] - found[1]))
    assert worst < AUROC, f"AUROC differs from the loop's by {worst}"
    return worst


def whole(problem, rounds):
    """Both sides of a small problem, in turns."""
    given = *problem.data(), None
    given = *given[:3], problem.relabelled(given[1])
    scores = {}

    def side(name, run):
        return lambda: scores.update({name: run(*given)})

    seconds = in_turns({"ours": side("ours", ours), "loop": side("loop", loop)}, rounds)
    worst = compare(*given[1:3], scores["ours"], scores["loop"])
    return Row(
        f"probes, {problem.name}, {problem.permutations} relabellings",
        "scikit-learn loop",
        seconds["ours"],
        seconds["loop"],
        ">= 10",
        note=f"largest difference of a fold's AUROC {worst:.4f}",
    )


def timed(work, *given):
    start = time.perf_counter()
    found = work(*given)
    return time.perf_counter() - start, found


def sampled(problem, given, probes, null):
    """Seconds that the loop would take for one layer, from some of its fits; what they compared."""
    x, labels, folds, relabelled = given
    rng, seconds = np.random.default_rng(2), 0.0
    worst, least, n_fits = 0.0, 1.0, 0
    inner = {strength: [] for strength in GRID}
    outer, permuted = [], []
    for _ in range(SAMPLE):
        head, number = int(rng.integers(len(x))), int(rng.integers(N_FOLDS))
        took, fold = timed(Fold.of, x[head], labels, folds, number)
        for strength in GRID:
            inner[strength].append(timed(fold.loss, strength, int(rng.integers(N_INNER)))[0])
        best = probes.strengths[number, head]
        more, model = timed(fit, fold.z, fold.y, best)
        outer.append(took + more)
        direction, own = model.coef_[0] / fold.scale, probes.fits[number].direction[head]
        least = min(least, direction @ own / np.linalg.norm(direction) / np.linalg.norm(own))
        held = labels[~fold.train]
        score = x[head][~fold.train].astype(np.float64) @ own
        pairs = [(held, model.decision_function(fold.out), score)]
        for row in rng.integers(problem.permutations, size=2):
            more, model = timed(fit, fold.z, relabelled[row][fold.train], best)
            permuted.append(more)
            held = relabelled[row][~fold.train]
            pairs.append((held, model.decision_function(fold.out), null[head, row, ~fold.train]))
        for held, one, other in pairs:
            worst = max(worst, abs(roc_auc_score(held, one) - roc_auc_score(held, other)))
    n_fits = sum(map(len, inner.values())) + len(outer) + len(permuted)
    assert worst < AUROC, f"AUROC differs from scikit-learn's by {worst}"
    assert least > COSINE, f"a direction has cosine {least} with scikit-learn's"
    each = N_INNER * sum(map(np.mean, inner.values())) + np.mean(outer)
    seconds = N_FOLDS * (each + problem.permutations * np.mean(permuted))
    said = f"AUROC within {worst:.4f}, of permuted labels too; cosine above {least:.6f}"
    return seconds, f"{n_fits} fits of the loop timed and scaled; {said}"


def scaled(problem, n_layers):
    """A large problem: ours on some layers, the loop on some fits, both scaled to all layers."""
    x, labels, folds = problem.data()
    given = x, labels, folds, problem.relabelled(labels)
    with Peak() as peak:
        took, (probes, null) = timed(probes_and_null, *given)
    seconds, said = sampled(problem, given, probes, null)
    share = n_layers / problem.layers
    measured = "whole" if share == 1 else f"on {problem.layers} of {n_layers} layers and scaled"
    return Row(
        f"probes, {problem.name}, {n_layers} layers, {problem.permutations} relabellings",
        "scikit-learn loop",
        (took * share,),
        (seconds * n_layers,),
        ">= 10",
        note=f"ours measured {measured}, peak {peak.most / 1e9:.2f} GB beyond the activations' "
        f"{x.nbytes / 1e9:.2f}; {said}",
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--whole", action="store_true", help="all layers of the large problem")
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)
    if asked.quick:
        small, rounds = [Problem("60 x 16, 2 layers", 60, 16, 2, 3)], 2
        large, n_layers = Problem("100 x 200", 100, 200, 2, 10, 0.2, 10), 4
    else:
        small = [
            Problem("300 x 64, 8 layers", 300, 64, 8, 20),
            Problem("300 x 1024, 2 layers", 300, 1024, 2, 20),
        ]
        layers = ALL_LAYERS if asked.whole else 4
        rounds, n_layers = 3, ALL_LAYERS
        large = Problem("1000 x 4096", 1000, 4096, layers, 1000, 0.1, 200)
    show([*(whole(it, rounds) for it in small), scaled(large, n_layers)])


if __name__ == "__main__":
    main()
