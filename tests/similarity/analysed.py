"""Stages whose similarity is known, and how analysis=cka is asked about them."""

import math

import numpy as np

from olmo_stages.analyses.cka import CKA
from olmo_stages.types import Example, Stage
from tests.fakes import BASE, THINK, FakeSource

DPO = Stage("think_dpo", "tiny", "miniature", parent=THINK)

OPTIONS = {
    "measure": "debiased_cka",
    "also": [],
    "site": "resid_post",
    "position": "mean",
    "layers": None,
    "max_rows": 2000,
    "tokens_per_example": None,
    "batch": 16,
    "neighbours": 3,
    "n_components": 10,
    "variance": 0.5,
    "n_resamples": 100,
    "n_permutations": 19,
    "n_permutations_also": 9,
    "n_halves": 1,
    "random_init": True,
    "keep_tables": True,
}
QUICK = {"n_permutations": 0, "n_halves": 0, "random_init": False}


def cka(**options):
    return CKA(**(OPTIONS | options))


def compare(source, stage=THINK, reference=BASE, seed=0, **options):
    return cka(**options)(stage, reference, source, seed)


def examples_of(groups):
    """One example for each entry of `groups`."""
    return tuple(
        Example(id=f"e{i}", group=f"g{group}", label=i % 2, text=f"text {i}")
        for i, group in enumerate(groups)
    )


def own(stage, seed=0):
    """Random numbers of this stage alone."""
    return np.random.default_rng([seed, *map(ord, stage.label)])


def unrelated(n=40, d=32, layers=3, groups=None, seed=0, **kwargs):
    """Stages that have nothing to do with one another."""

    def make(stage):
        return own(stage, seed).normal(size=(layers, n, d))

    return FakeSource(examples_of(range(n) if groups is None else groups), make, **kwargs)


def related(n=40, d=32, layers=3, groups=None, strength=1.0, seed=0, **kwargs):
    """Trained stages that share four directions a layer, each turned its own way, plus noise."""

    def make(stage):
        rng = own(stage, seed)
        shared = np.random.default_rng([seed, 7]).normal(size=(layers, n, 4))
        weight = strength if stage.random_init is None else 0.0
        return weight * shared @ rng.normal(size=(4, d)) + rng.normal(size=(layers, n, d))

    return FakeSource(examples_of(range(n) if groups is None else groups), make, **kwargs)


def given(values, groups=None, **kwargs):
    """Activations by stage name, [layer row d_model]; random ones for the floor."""
    first = next(iter(values.values()))

    def make(stage):
        if stage.random_init is not None:
            return own(stage).normal(size=np.shape(values[stage.name]))
        return np.asarray(values[stage.name])

    n = first.shape[1] if "owners" not in kwargs else int(kwargs["owners"].max()) + 1
    return FakeSource(examples_of(range(n) if groups is None else groups), make, **kwargs)


def rows(result, metric, variant="raw", **fields):
    """Measurements of this kind; there must be some."""
    wanted = {"metric": metric, "variant": variant} | fields
    found = [m for m in result.measurements if all(getattr(m, k) == v for k, v in wanted.items())]
    assert found, wanted
    return found


def warned(result, *words):
    """Whether one of the warnings holds all the words."""
    return any(all(word in warning for word in words) for warning in result.warnings)


def faults(result):
    """Numbers that no reader should meet: not finite, or outside their own interval."""
    found = []
    for row in result.measurements:
        numbers = (row.value, row.ci_low, row.ci_high, row.null, row.p, row.p_max, row.q)
        finite = all(number is None or math.isfinite(number) for number in numbers)
        if not finite or (row.ci_low is not None and not row.ci_low <= row.value <= row.ci_high):
            found.append(row)
    return found
