from dataclasses import replace
from pathlib import Path

import pytest

from olmo_stages.activations.identity import PassIdentity
from olmo_stages.activations.passes import need, passes
from olmo_stages.activations.request import Work
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.types import Example, Wanted
from tests.fakes import BASE, THINK

LAST, MEAN = ("resid_post", "last"), ("resid_post", "mean")
NOTHING = lambda *_: False  # noqa: E731


@pytest.fixture
def work():
    dataset = Dataset("toy", (Example("a", "a", None, text="x"),), labelled=False)
    identity = PassIdentity("w", None, "float32", "none", "sdpa", "t", "raw", "d", 8)
    return Work(THINK, Checkpoint(Path(), None), identity, 4, dataset)


def test_all_blocks_are_kept_with_the_embeddings(work):
    asked = need(work, Wanted(THINK, (LAST,)))
    assert (asked.layers, asked.captured) == ((0, 1, 2, 3), (-1, 0, 1, 2, 3))
    assert asked.missing(NOTHING) == (Capture(*LAST),)
    assert asked.missing(lambda *_: True) == ()


def test_a_layer_that_the_model_does_not_have_is_refused(work):
    with pytest.raises(ConfigError, match=r"layers \[4\]"):
        need(work, Wanted(THINK, (LAST,), (4,)))


def made(needs, has=NOTHING, keep=lambda asked: asked, others=lambda _: ()):
    return [(it.work, it.captures, it.layers) for it in passes(needs, has, keep, others)]


ALL = (-1, 0, 1, 2, 3)
ONE, OTHER = Capture(*LAST), Capture(*MEAN)


def test_a_pass_gives_what_is_needed_after_it(work):
    needs = [need(work, Wanted(THINK, (LAST,), layers)) for layers in (None, (-1,), (2,))]
    assert made(needs) == [(work, (ONE,), ALL)]


def test_a_pass_gives_all_that_is_needed_of_it_later(work):
    small, whole = (need(work, Wanted(THINK, (LAST,), layers)) for layers in ((2,), None))
    mean = need(work, Wanted(THINK, (MEAN,)))
    assert made([small, whole, mean]) == [(work, (ONE, OTHER), ALL)]


def test_another_model_is_another_pass(work):
    other = replace(work, identity=replace(work.identity, weights="v"))
    needs = [need(work, Wanted(THINK, (LAST,))), need(other, Wanted(BASE, (LAST,)))]
    assert made(needs) == [(work, (ONE,), ALL), (other, (ONE,), ALL)]


def test_rows_of_tokens_are_not_kept_of_layers_that_nobody_reads(work):
    tokens = need(work, Wanted(THINK, (("resid_post", "tokens"),), (2,)))
    whole = need(work, Wanted(THINK, (LAST,)))
    (two,) = tokens.captures
    assert made([tokens, whole]) == [(work, (two,), (2,)), (work, (ONE,), ALL)]
    all_tokens = need(work, Wanted(THINK, (("resid_post", "tokens"),)))
    assert made([whole, all_tokens]) == [(work, (ONE, two), ALL)]


def test_what_a_pass_keeps_besides_is_not_computed_again(work):
    def keep(asked):
        return replace(asked, captures=(ONE, OTHER))

    # The second comes from elsewhere, after the first is known to be there.
    needs = [need(work, Wanted(THINK, (LAST,), (2,))), need(work, Wanted(THINK, (MEAN,), (2,)))]
    assert made(needs[:1], keep=keep) == [(work, (ONE,), (2,))]
    assert len(made(needs, keep=keep)) == 1


def test_others_are_asked_at_the_first_pass_only(work):
    asked = []

    def others(stages):
        asked.append(stages)
        return [need(work, Wanted(THINK, (MEAN,)))]

    own = [need(work, Wanted(THINK, (LAST,)))]
    assert made(own, lambda *_: True, others=others) == []
    assert asked == []
    assert made(own, others=others) == [(work, (ONE, OTHER), ALL)]
    assert asked == [{THINK}]


def test_what_is_there_needs_no_pass(work):
    both = need(work, Wanted(THINK, (LAST, MEAN)))
    has_last = lambda _identity, captures, _layers: captures == (ONE,)  # noqa: E731
    assert made([both], has_last) == [(work, (OTHER,), ALL)]
