"""What each analysis tells that it is going to ask for, against what it then asks for."""

import dataclasses

import numpy as np
import pytest

from olmo_stages.activations.request import wanted
from olmo_stages.launch import compose
from tests.fakes import BASE, THINK, FakeSource, grouped_examples

FEW = {
    "probe": ["n_permutations=0", "n_resamples=100", "n_controls=1", "strengths=[1.0]"],
    "cka": ["n_permutations=0", "n_permutations_also=0", "n_resamples=100", "also=[]"],
    "cosine": ["n_permutations=0", "n_unrelated=0", "n_resamples=100"],
    "projection": ["n_permutations=0", "n_resamples=100"],
}
CASES = [
    ("probe", ()),
    ("probe", ("layers=[2,1]", "site=attn_out", "position=mean")),
    ("probe", ("random_init=false",)),
    ("cka", ()),
    ("cka", ("layers=[2,1]", "random_init=false", "position=last")),
    ("cosine", ("site=mlp_out",)),
    ("cosine", ("layers=[2,1]",)),
    ("projection", ()),
    ("projection", ("layers=[2,1]", "site=resid_mid", "position=last")),
]


def unordered(layers):
    return None if layers is None else frozenset(layers)


class Recording(FakeSource):
    """Notes what is asked for, not only of whom."""

    seen: set

    def __call__(self, stage, *, site="resid_post", position="last", layers=None):
        self.seen.add((stage, site, position, unordered(layers)))
        return super().__call__(stage, site=site, position=position, layers=layers)

    def stream(self, stage, *, site="resid_post", position="last", layers=None):
        self.seen.add((stage, site, position, unordered(layers)))
        chosen = range(len(self.make(stage))) if layers is None else layers
        for layer in chosen:
            yield super().__call__(stage, site=site, position=position, layers=(layer,))


@pytest.mark.parametrize("reference", [BASE, None], ids=["reference", "alone"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda it: str(it))
def test_an_analysis_asks_for_what_it_tells(name, options, reference):
    words = [f"analysis.{it}" for it in (*FEW[name], *options)]
    (job,) = compose([f"analysis={name}", "tracking=none", *words])
    examples = tuple(grouped_examples(12))

    def make(stage):
        rng = np.random.default_rng(len(stage.label))
        return (
            rng.normal(size=(4, len(examples), 6)) + np.array([e.label for e in examples])[:, None]
        )

    source = Recording(examples, make)
    source.seen = set()
    job.analysis(THINK, reference, source, 3)
    told = wanted(job.analysis, THINK, reference, 3)
    assert source.seen == {
        (it.stage, *pair, unordered(it.layers)) for it in told for pair in it.captures
    }


def test_the_tokens_of_a_projection_are_told_with_its_means():
    (job,) = compose(["analysis=projection", "analysis.tokens=true", "tracking=none"])
    own, other = wanted(job.analysis, THINK, BASE, 0)
    assert own.captures == (("resid_post", "mean"), ("resid_post", "tokens"))
    assert (other.stage, other.captures) == (BASE, (("resid_post", "mean"),))
    without = dataclasses.replace(job.analysis, tokens=False)
    assert wanted(without, THINK, BASE, 0)[0].captures == (("resid_post", "mean"),)
