"""Probes: our solver against the straightforward scikit-learn loop, side by side in one process.

Same features, folds, grid and relabellings, alternately; the medians, their spread and ratio are
printed, and the held-out scores are compared. Run by `make bench`.
"""

import statistics
import time
import warnings
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from olmo_stages.nested import Recipe, cross_validate, permutation_scores

GRID = (1e-3, 1e-2, 1e-1, 1.0)
REPEATS = 3


@dataclass
class Problem:
    name: str
    n: int
    d: int
    layers: int
    permutations: int

    def data(self):
        rng = np.random.default_rng(0)
        labels = rng.permutation(np.arange(self.n) % 2)
        x = rng.normal(size=(self.layers, self.n, self.d))
        x += 0.3 * (labels[:, None] - 0.5) * rng.normal(size=self.d)
        return x, labels, rng.permutation(np.arange(self.n) % 5)


def fit(z, y, strength):
    # scikit-learn's default tolerance leaves the direction at cosine 0.98 of the optimum.
    model = LogisticRegression(
        C=1 / (len(y) * strength), class_weight="balanced", tol=1e-8, max_iter=5000
    )
    return model.fit(z, y)


def ours(x, labels, folds, relabelled):
    recipe = Recipe("logistic", GRID, lambda chosen: np.arange(len(chosen)) % 4)
    probes = cross_validate(x, labels, folds, recipe)
    permutation_scores(x, relabelled, folds, probes.strengths, recipe)
    return probes.score(x)


def loop(x, labels, folds, relabelled):
    scores = np.zeros(x.shape[:2])
    for head, layer in enumerate(x):
        for fold in range(5):
            train = folds != fold
            scaler = StandardScaler().fit(layer[train])
            z, out = (scaler.transform(layer[m]) / x.shape[2] ** 0.5 for m in (train, ~train))
            y, inner = labels[train], np.arange(train.sum()) % 4
            losses = []
            for strength in GRID:
                loss = 0.0
                for k in range(4):
                    model = fit(z[inner != k], y[inner != k], strength)
                    margin = model.decision_function(z[inner == k]) * (2 * y[inner == k] - 1)
                    loss += np.logaddexp(0, -margin).mean()
                losses.append(loss)
            best = GRID[int(np.argmin(losses))]
            scores[head, ~train] = fit(z, y, best).decision_function(out)
            for other in relabelled:
                fit(z, other[train], best).decision_function(out)
    return scores


def main():
    warnings.filterwarnings("ignore", category=FutureWarning)
    table = Table("problem", "scikit-learn loop, s", "ours, s", "ratio", "max AUROC difference")
    problems = [
        Problem("d < n: 300 x 64, 8 layers", 300, 64, 8, 20),
        Problem("d > n: 300 x 1024, 2 layers", 300, 1024, 2, 20),
    ]
    for problem in problems:
        x, labels, folds = problem.data()
        rng = np.random.default_rng(1)
        relabelled = rng.permuted(np.tile(labels, (problem.permutations, 1)), axis=1)
        times: dict[str, list[float]] = {"loop": [], "ours": []}
        scores = {}
        for _ in range(REPEATS):
            for name, run in (("ours", ours), ("loop", loop)):
                start = time.perf_counter()
                scores[name] = run(x, labels, folds, relabelled)
                times[name].append(time.perf_counter() - start)
        difference = max(
            abs(
                roc_auc_score(labels[folds == f], scores["ours"][h][folds == f])
                - roc_auc_score(labels[folds == f], scores["loop"][h][folds == f])
            )
            for h in range(problem.layers)
            for f in range(5)
        )
        median = {name: statistics.median(values) for name, values in times.items()}
        spread = {name: f"{min(v):.2f}-{max(v):.2f}" for name, v in times.items()}
        table.add_row(
            f"{problem.name}, {problem.permutations} relabellings",
            f"{median['loop']:.2f} ({spread['loop']})",
            f"{median['ours']:.2f} ({spread['ours']})",
            f"{median['loop'] / median['ours']:.1f}",
            f"{difference:.4f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
