"""Stages whose trait vectors are known, and how analysis=cosine is asked about them."""

from dataclasses import replace

import numpy as np

from olmo_stages.analyses.cosine import Cosine
from tests.fakes import BASE, THINK, FakeSource, grouped_examples

OPTIONS = {
    "kind": "mean_difference",
    "site": "resid_post",
    "position": "last",
    "layers": None,
    "shrinkage": 0.1,
    "strength": 0.1,
    "n_permutations": 199,
    "n_unrelated": 199,
    "n_folds": 4,
    "n_resamples": 100,
}
QUICK = {"n_permutations": 0, "n_unrelated": 0}
D_MODEL = 24
LAYERS = 3


def cosine(**options):
    return Cosine(**(OPTIONS | options))


def compare(source, stage=THINK, reference=BASE, seed=0, **options):
    return cosine(**options)(stage, reference, source, seed)


def contrast_examples(n_groups=30, per_group=4, trait="hostile", **changes):
    """Balanced in every group, neighbours of a group being counterparts."""
    return tuple(
        replace(e, trait=trait, id=f"{trait}{e.id}", pair=f"{trait}{e.group}p{i // 2}", **changes)
        for i, e in enumerate(grouped_examples(n_groups, per_group))
    )


def planted(
    angle=0.0,
    *,
    examples=None,
    strength=1.0,
    shared=1.0,
    own=0.3,
    seed=0,
    d_model=D_MODEL,
    layers=LAYERS,
    **kwargs,
):
    """The trait along axis 0 of the base; in other stages turned by `angle` towards axis 1.

    Args:
        angle: in degrees.
        examples: default: `contrast_examples()`.
        strength: half of the distance of the classes.
        shared: standard deviation of what all stages make of a text, whatever its label.
        own: standard deviation of what a stage alone makes of it.
    """
    examples = contrast_examples() if examples is None else tuple(examples)
    sign = 2 * np.array([e.label for e in examples]) - 1

    def make(stage):
        common = np.random.default_rng([seed, 7]).normal(size=(layers, len(examples), d_model))
        alone = np.random.default_rng([seed, *map(ord, stage.label)]).normal(size=common.shape)
        turned = 0.0 if stage.name == "base" else np.deg2rad(angle)
        trait = np.zeros(d_model)
        trait[:2] = np.cos(turned), np.sin(turned)
        return shared * common + own * alone + strength * sign[:, None] * trait

    return FakeSource(examples, make, **kwargs)


def identical(source):
    """The same weights in both stages."""
    values = source.make(BASE)
    return replace(
        source, make=lambda _: values, change=lambda acts: replace(acts, model_digest="the same")
    )


def shuffled(examples, seed=0):
    """Labels exchanged within groups at random, so that they say nothing."""
    rng = np.random.default_rng(seed)
    swap = {group: int(rng.integers(2)) for group in dict.fromkeys(e.group for e in examples)}
    return tuple(replace(e, label=abs(e.label - swap[e.group])) for e in examples)
