"""CKA of all pairs of layers of two stages: against its bare matrix products, and against peers.

Everything runs alternately in one process on the same activations. Printed are medians over rounds
with their range, and medians of the ratios within a round; the values are compared with those of a
float64 loop over pairs. CPU ratios count the seconds of all threads, which a busy machine disturbs
less. Run by `make bench`; torch_cka takes part where it is installed (the extra `peers`).
"""

import argparse
import contextlib
import io
import os
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sides import Row, show
from threadpoolctl import threadpool_info, threadpool_limits

from olmo_stages.estimates import group_weights
from olmo_stages.parallel import in_threads
from olmo_stages.similarity.design import Design, permutations
from olmo_stages.similarity.features import Features
from olmo_stages.similarity.linear import DebiasedCKA
from olmo_stages.similarity.tables import Comparison, Tables

try:
    from torch_cka import CKA as TorchCKA
except ImportError:
    TorchCKA = None

TOLERANCE = 1e-5
BFLOAT16 = 1e-2
ORDER = ("bare", "ours", "bare_threads", "bare_torch", "loop", "torch_cka")
# Memory is measured with as many threads on every machine, since each holds a layer.
THREADS = 2

drain = deque(maxlen=0).extend


@dataclass(frozen=True)
class Size:
    n: int
    d: int
    layers: int
    resamples: int
    permutations: int
    peer_rows: int
    rounds: int


FULL = Size(1000, 4096, 33, 1000, 100, 2, 7)
SMALL = Size(60, 256, 6, 50, 10, 2, 2)


class Problem:
    """Activations of two stages, [side, layer, row, d_model]: float32 holding bfloat16 values."""

    def __init__(self, size: Size) -> None:
        self.size, self.groups = size, [str(i) for i in range(size.n)]
        self.design = Design.of(np.arange(size.n), self.groups)
        self.sides = np.empty((2, size.layers, size.n, size.d), dtype=np.float32)
        # The rows of the map that a peer computes, from the first layer to the last.
        rows = np.linspace(0, size.layers - 1, size.peer_rows)
        self.peer_rows = rows.round().astype(int).tolist()
        rng = np.random.default_rng(0)
        common, own = normal(rng, size.n, 64), np.zeros((2, size.n, 64), np.float32)
        for layer in range(size.layers):
            common += 0.2 * normal(rng, size.n, 64)
            own += 0.1 * normal(rng, 2, size.n, 64)
            for side in range(2):
                self.sides[side, layer] = one_layer(rng, common + own[side], size.d)


def normal(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


def one_layer(rng, signal, d):
    """What examples share, noise, an offset a dimension, and two dominant dimensions."""
    x = signal @ normal(rng, signal.shape[1], d) / 8 + normal(rng, len(signal), d) + normal(rng, d)
    x[:, :2] *= 6
    return torch.from_numpy(x).bfloat16().float().numpy()


def tables(layers: Iterable[np.ndarray], n_layers: int, design: Design) -> Tables:
    measure = DebiasedCKA()
    found = np.empty((n_layers, len(design.units), len(design.units)), dtype=np.float32)

    def one(layer):
        features = Features.of(layer, BFLOAT16, "benchmark", overwrite=True)
        return measure.table(features.gram("raw"), design.units)

    for index, table in enumerate(in_threads(one, layers)):
        found[index] = table
    return Tables((found,), measure.order)


def gram(layer):
    return layer @ layer.T


class Contest:
    """Each round measures every way once, in turn from the first and from the last."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.scratch = problem, np.empty_like(problem.sides)
        self.seconds: dict[str, list[tuple[float, float]]] = {}
        self.values: dict[str, np.ndarray] = {}
        layers = problem.sides.reshape(-1, *problem.sides.shape[2:])
        self.ways: dict[str, Callable[[], object]] = {
            "bare": lambda: drain(map(gram, layers)),
            "bare_torch": lambda: drain(map(gram, torch.from_numpy(layers))),
            "bare_threads": lambda: drain(in_threads(gram, layers)),
            "loop": lambda: loop(problem, np.float32),
        }
        if TorchCKA is not None:
            self.ways["torch_cka"] = lambda: torch_cka_map(problem)

    def run(self) -> None:
        for number in range(self.problem.size.rounds):
            for name in ORDER[:: -1 if number % 2 else 1]:
                if name == "ours":
                    self.values[name] = self.ours()
                elif name in self.ways:
                    self.values[name] = self.clock(name, self.ways[name])

    def clock(self, name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        took = time.perf_counter() - wall, time.process_time() - cpu
        self.seconds.setdefault(name, []).append(took)
        return found

    def ours(self) -> np.ndarray:
        """The map, the bootstrap and the null, one after another, each with its own time."""
        size, design = self.problem.size, self.problem.design
        # Layers are centred in place; a job reads them from the store and has no use for them.
        np.copyto(self.scratch, self.problem.sides)

        def compared() -> Comparison:
            x, y = (tables(side, size.layers, design) for side in self.scratch)
            return Comparison(x, y, design)

        def bootstrap() -> np.ndarray:
            return found.resampled(group_weights(self.problem.groups, size.resamples, 0))

        found = self.clock("map", compared)
        self.clock("bootstrap", bootstrap)
        self.clock("null", lambda: found.null(permutations(design, size.permutations, 0)))
        return found.value


def u_centred_gram(features):
    gram = features @ features.T
    n = len(gram)
    np.fill_diagonal(gram, 0)
    means = gram.sum(axis=0, dtype=np.float64) / (n - 2)
    means -= means.sum() / (2 * (n - 1))
    gram -= means[:, None]
    gram -= means[None, :]
    np.fill_diagonal(gram, 0)
    return gram


def debiased_cka(x, y):
    """After the notebook of Kornblith et al. 2019, without its costly test of symmetry."""
    a, b = u_centred_gram(x), u_centred_gram(y)
    return a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b))


def loop(problem: Problem, dtype) -> np.ndarray:
    """Some rows of the map, pair by pair, each from the features."""
    x, y = problem.sides
    return np.array([
        [debiased_cka(*(layer.astype(dtype, copy=False) for layer in (x[i], other))) for other in y]
        for i in problem.peer_rows
    ])


class Layer(torch.nn.Module):
    """Hands out activations that are there already."""

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        self.values = torch.from_numpy(values)

    def forward(self, _):
        return self.values


def torch_cka_map(problem: Problem) -> np.ndarray:
    """Some rows of the map, all examples as one batch: the time of CKA.compare, no model's."""
    x, y = problem.sides
    first, second = (
        torch.nn.Sequential(*map(Layer, side)) for side in ([x[i] for i in problem.peer_rows], y)
    )
    names = [[str(i) for i in range(len(model))] for model in (first, second)]
    rows = torch.utils.data.TensorDataset(torch.arange(problem.size.n))
    loader = torch.utils.data.DataLoader(rows, batch_size=problem.size.n)
    with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
        cka = TorchCKA(first, second, "first", "second", *names)
        cka.compare(loader, loader)
    return cka.export()["CKA"].numpy()


def check(ours: np.ndarray, exact: np.ndarray) -> None:
    difference = np.abs(ours - exact).max()
    if not difference <= TOLERANCE:
        raise AssertionError(f"ours differs from the loop in float64 by {difference:.2g}")


def arriving(n: int, d: int, layers: int) -> Iterator[np.ndarray]:
    """Layers that are made when they are asked for."""
    rng = np.random.default_rng(0)
    for _ in range(layers):
        yield normal(rng, n, d)


def working_memory(source: Iterable[np.ndarray], n: int, layers: int) -> int:
    """Most bytes held while tables are built, less those of the tables themselves."""
    design = Design.of(np.arange(n), [str(i) for i in range(n)])
    tracemalloc.start()
    try:
        with threadpool_limits(THREADS, user_api="blas"):
            built = tables(source, layers, design)
        return tracemalloc.get_traced_memory()[1] - built.blocks[0].nbytes
    finally:
        tracemalloc.stop()


def machine() -> str:
    blas = [
        f"{it['internal_api']} {it['version']} {it.get('architecture', '')}, "
        f"{it['num_threads']} threads"
        for it in threadpool_info()
        if it["user_api"] == "blas"
    ]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{os.cpu_count()} cores{load}; numpy {np.__version__} with {' and '.join(blas)}; "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )


def ranged(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} ({values.min():.2f}-{values.max():.2f})"


def speed(contest: Contest) -> Table:
    size = contest.problem.size
    took = {name: np.array(values) for name, values in contest.seconds.items()}
    title = f"n={size.n}, d={size.d}, {2 * size.layers} layers; {size.rounds} rounds, range"
    table = Table("what", "seconds", "ratio", "CPU ratio", "of", "target", title=title)

    def add(what: str, seconds: np.ndarray, base: str, target: str = "") -> None:
        ratio = seconds / took["bare" if base == "a" else "map"]
        cells = (ranged(it) for it in (seconds[:, 0], ratio[:, 0], ratio[:, 1]))
        table.add_row(what, *cells, base, target)

    add("(a) bare Gram products, numpy", took["bare"], "a")
    add("    by torch", took["bare_torch"], "a")
    add("    by numpy, a layer a thread", took["bare_threads"], "a")
    add(f"(b) our {size.layers} x {size.layers} map, errors", took["map"], "a", "<= 1.3")
    resampled = took["map"] + took["bootstrap"]
    add(f"(c) b + {size.resamples} resamples", resampled, "b", "<= 3")
    add(f"(d) null, {size.permutations} permutations", took["null"], "b")
    add("    scaled to 1000", took["null"] * 1000 / size.permutations, "b")
    rows = f" *{size.peer_rows}" if size.peer_rows < size.layers else ""
    scale = size.layers / size.peer_rows
    add(f"(e) numpy loop over pairs{rows}", took["loop"] * scale, "b", ">= 20")
    if "torch_cka" in took:
        name = f"    torch_cka {version('torch_cka')}{rows}"
        add(name, took["torch_cka"] * scale, "b", ">= 20")
    else:
        table.add_row("    torch_cka", "not installed")
    if rows:
        table.caption = (
            f"*{size.peer_rows}: measured for {size.peer_rows} of {size.layers} rows of the map, "
            f"which all cost the same, and multiplied by {scale:g}"
        )
    return table


def rows(contest: Contest) -> list[Row]:
    size = contest.problem.size
    took = {name: tuple(it[0] for it in values) for name, values in contest.seconds.items()}
    scale = size.layers / size.peer_rows
    what = f"CKA, {size.layers} x {size.layers} map with errors, n={size.n}, d={size.d}"
    found = [Row(what, "its Gram products alone", took["map"], took["bare"], "<= 1.3")]
    for name, called in (("loop", "a numpy loop over pairs"), ("torch_cka", "torch_cka")):
        if name in took:
            times = tuple(it * scale for it in took[name])
            note = f"measured on {size.peer_rows} of {size.layers} rows of the map" * (scale != 1)
            found.append(Row(what, called, took["map"], times, ">= 20", note=note))
    return found


def memory(size: Size) -> Table:
    title = f"memory of building tables, without the tables; {THREADS} threads, n={size.n}"
    table = Table("d", "layers", "all activations, MB", "most held, MB", "in layers", title=title)
    for d in (size.d // 4, size.d):
        for layers in (size.layers // 3, size.layers):
            held = working_memory(arriving(size.n, d, layers), size.n, layers)
            one = size.n * d * 4
            cells = f"{layers * one / 1e6:.1f}", f"{held / 1e6:.1f}", f"{held / one:.1f}"
            table.add_row(str(d), str(layers), *cells)
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="quick; its times mean nothing")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peer-rows", type=int, help="rows of the map that peers compute")
    options = parser.parse_args(arguments)
    given = {"rounds": options.rounds, "peer_rows": options.peer_rows}
    size = replace(SMALL if options.small else FULL, **{k: v for k, v in given.items() if v})
    console = Console(width=120)
    console.print(machine())
    contest = Contest(Problem(size))
    contest.run()
    console.print(speed(contest))
    show(rows(contest))
    values, exact = contest.values, loop(contest.problem, np.float64)
    values["ours"] = values["ours"][contest.problem.peer_rows]
    check(values["ours"], exact)
    peers = [name for name in ("ours", "loop", "torch_cka") if name in values]
    console.print(
        f"Largest difference from the loop in float64, {exact.size} scores from {exact.min():.3f} "
        f"to {exact.max():.3f}; ours must stay below {TOLERANCE:g}: "
        + ", ".join(f"{name} {np.abs(values[name] - exact).max():.1g}" for name in peers)
    )
    console.print(memory(size))


if __name__ == "__main__":
    main()
