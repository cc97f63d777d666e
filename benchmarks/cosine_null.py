"""The null of cosines between two stages: all relabellings as matrix products, or one by one.

Everything runs alternately in one process on the same activations. Printed are medians over rounds
with their range, and medians of the ratios within a round; cosines are compared with those of a
float64 loop over relabellings. CPU ratios count the seconds of all threads, which a busy machine
disturbs less. The loops are measured on some layers and relabellings, which all cost the same, and
multiplied. Run by `make bench`.
"""

import argparse
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from sides import Row, show
from threadpoolctl import threadpool_info

from olmo_stages.parallel import in_threads
from olmo_stages.types import Example
from olmo_stages.vectors.contrast import contrasts
from olmo_stages.vectors.dots import Units
from olmo_stages.vectors.kinds import MeanDifference
from olmo_stages.vectors.layer import Layer
from olmo_stages.vectors.linear import NullVectors
from olmo_stages.vectors.nulls import draw
from olmo_stages.vectors.turns import Plan, turn

TOLERANCE = 1e-5
BFLOAT16 = 1e-2
TARGET_S = 5.0
ORDER = ("bare", "null", "disk", "turns", "loop", "products")
WHERE = ("stage", "reference")

drain = deque(maxlen=0).extend


@dataclass(frozen=True)
class Size:
    n: int
    d: int
    layers: int
    permutations: int
    loop_layers: int
    loop_permutations: int
    rounds: int


FULL = Size(1000, 4096, 33, 1000, 1, 20, 7)
SMALL = Size(40, 256, 4, 60, 2, 10, 2)


class Problem:
    """Activations of two stages, [side, layer, row, d_model], float32, in memory and on disk."""

    def __init__(self, size: Size, per_group: int, folder: Path) -> None:
        self.size, rng = size, np.random.default_rng(0)
        examples = [
            Example(id=str(i), group=str(i // per_group), label=i % 2, text="text")
            for i in range(size.n)
        ]
        (contrast,) = contrasts(examples, paired=False)
        nulls = draw(contrast, size.permutations, 0, 0)
        self.plan = Plan(contrast, MeanDifference(), nulls)
        self.n_units = len(Units.of(nulls.relabelled.labels).starts)
        self.labels = nulls.relabelled.labels
        shape = (2, size.layers, size.n, size.d)
        self.sides = np.empty(shape, dtype=np.float32)
        for layer in range(size.layers):
            shared = normal(rng, size.n, size.d) + 2 * normal(rng, size.d)
            for side in range(2):
                self.sides[side, layer] = shared + 0.5 * normal(rng, size.n, size.d)
                self.sides[side, layer, :, :2] *= 20
        self.disk = np.memmap(folder / f"{per_group}.bin", np.float32, "w+", shape=shape)
        self.disk[:] = self.sides
        self.disk.flush()


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def null(problem: Problem, sides: np.ndarray) -> np.ndarray:
    """Cosines of all relabellings, raw and standardised: [layer, variant, permutation]."""
    plan = problem.plan

    def one(both: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
        layer = Layer.of(*both, plan.contrast.rows, BFLOAT16, WHERE)
        vectors = NullVectors(layer.stage.x, layer.reference.x, plan, layer.dominant)
        factors = (layer.factor(variant)[layer.dominant] for variant in ("raw", "standardised"))
        return [vectors.dots(factor).relabelled.cosines() for factor in factors]

    return np.array(list(in_threads(one, zip(*sides, strict=True))))


def turns(problem: Problem) -> None:
    """Everything that is said about a layer: cosines, reliabilities, intervals, nulls, sizes."""
    pairs = zip(*problem.sides, strict=True)
    drain(in_threads(lambda both: turn(*both, problem.plan, BFLOAT16, WHERE), pairs))


def bare(problem: Problem) -> None:
    """The matrix products alone: as many relabellings of as many rows, without any reduction."""
    weights = problem.labels.astype(np.float32)
    layers = problem.sides.reshape(-1, *problem.sides.shape[2:])
    drain(in_threads(lambda layer: weights @ layer, layers))


def loop(problem: Problem, dtype) -> np.ndarray:
    """Relabel, take the means, take the cosine, again and again."""
    size, found = problem.size, []
    for layer in range(size.loop_layers):
        x, y = problem.sides[:, layer].astype(dtype, copy=False)
        for labels in problem.labels[: size.loop_permutations]:
            v, w = (its[labels == 1].mean(0) - its[labels == 0].mean(0) for its in (x, y))
            found.append(v @ w / np.sqrt((v @ v) * (w @ w)))
    return np.array(found).reshape(size.loop_layers, size.loop_permutations)


def products(problem: Problem) -> np.ndarray:
    """The same loop with the means as one product of a vector and a matrix."""
    size, found = problem.size, []
    for layer in range(size.loop_layers):
        x, y = problem.sides[:, layer]
        for labels in problem.labels[: size.loop_permutations]:
            weights = (labels / labels.sum() - (1 - labels) / (1 - labels).sum()).astype(x.dtype)
            v, w = weights @ x, weights @ y
            found.append(v @ w / np.sqrt((v @ v) * (w @ w)))
    return np.array(found).reshape(size.loop_layers, size.loop_permutations)


class Contest:
    """Each round measures every way once, in turn from the first and from the last."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.seconds: dict[str, list[tuple[float, float]]] = {}
        self.values: dict[str, Any] = {}
        self.ways: dict[str, Callable[[], Any]] = {
            "bare": lambda: bare(problem),
            "null": lambda: null(problem, problem.sides),
            "disk": lambda: null(problem, problem.disk),
            "turns": lambda: turns(problem),
            "loop": lambda: loop(problem, np.float32),
            "products": lambda: products(problem),
        }

    def run(self) -> None:
        for number in range(self.problem.size.rounds):
            for name in ORDER[:: -1 if number % 2 else 1]:
                wall, cpu = time.perf_counter(), time.process_time()
                self.values[name] = self.ways[name]()
                took = time.perf_counter() - wall, time.process_time() - cpu
                self.seconds.setdefault(name, []).append(took)


def check(ours: np.ndarray, exact: np.ndarray) -> float:
    difference = float(np.abs(ours - exact).max())
    if not difference <= TOLERANCE:
        raise AssertionError(f"ours differs from the loop in float64 by {difference:.2g}")
    return difference


def ranged(values: np.ndarray) -> str:
    return f"{np.median(values):.3g} ({values.min():.3g}-{values.max():.3g})"


def speed(contest: Contest) -> Table:
    size, problem = contest.problem.size, contest.problem
    took = {name: np.array(values) for name, values in contest.seconds.items()}
    scale = size.layers * size.permutations / (size.loop_layers * size.loop_permutations)
    for name in ("loop", "products"):
        took[name] = took[name] * scale
    title = (
        f"{size.permutations} relabellings, {size.layers} layers, 2 stages, n={size.n}, "
        f"d={size.d}; {problem.n_units} units; {size.rounds} rounds, range"
    )
    table = Table("what", "seconds", "ratio", "CPU ratio", "of", "target", title=title)

    def add(what: str, name: str, base: str, target: str = "") -> None:
        ratio = took[name] / took[base]
        cells = (ranged(it) for it in (took[name][:, 0], ratio[:, 0], ratio[:, 1]))
        table.add_row(what, *cells, "a" if base == "bare" else "b", target)

    add("(a) bare products of all rows", "bare", "bare")
    add("(b) null, activations in memory", "null", "bare", f"<= {TARGET_S:g} s")
    add("    null, activations on disk", "disk", "bare", f"<= {TARGET_S:g} s")
    add("(c) everything about a layer", "turns", "null")
    add("(d) loop over relabellings*", "loop", "null")
    add("    with products*", "products", "null")
    table.caption = (
        f"*: measured for {size.loop_permutations} relabellings of {size.loop_layers} layers and "
        f"multiplied by {scale:g}"
    )
    return table


def row(contest: Contest, what: str) -> Row:
    size = contest.problem.size
    took = {name: tuple(it[0] for it in values) for name, values in contest.seconds.items()}
    scale = size.layers * size.permutations / (size.loop_layers * size.loop_permutations)
    return Row(
        f"cosine's null, {size.permutations} x {size.layers} layers, d={size.d}, {what}",
        "a numpy loop over relabellings",
        took["null"],
        tuple(it * scale for it in took["loop"]),
        note=f"the loop measured on a part, times {scale:g}",
    )


def machine() -> str:
    blas = [
        f"{it['internal_api']} {it['version']}, {it['num_threads']} threads"
        for it in threadpool_info()
        if it["user_api"] == "blas"
    ]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} cores{load}; numpy {np.__version__} with {' and '.join(blas)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="quick; its times mean nothing")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args(arguments)
    size = SMALL if options.small else FULL
    if options.rounds:
        size = replace(size, rounds=options.rounds)
    console = Console(width=120)
    console.print(machine())
    for per_group, what in ((2, "groups that swap their labels"), (1, "groups of one example")):
        with tempfile.TemporaryDirectory() as folder:
            contest = Contest(Problem(size, per_group, Path(folder)))
            contest.run()
            console.print(f"\n{what}")
            console.print(speed(contest))
            show([row(contest, what)])
            exact = loop(contest.problem, np.float64)
            ours = contest.values["null"][: size.loop_layers, 0, : size.loop_permutations]
            console.print(
                f"Largest difference from the loop in float64, {exact.size} cosines from "
                f"{exact.min():.3f} to {exact.max():.3f}: {check(ours, exact):.1g}"
            )
            del contest


if __name__ == "__main__":
    main()
