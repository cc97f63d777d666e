"""What is wanted of activations, told beforehand, and the forward passes that give it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from olmo_stages.activations.identity import PassIdentity
from olmo_stages.activations.request import Work, declares, need, passes, wanted
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.types import Example, Result, Wanted
from tests.fakes import BASE, THINK

LAST, MEAN = ("resid_post", "last"), ("resid_post", "mean")
NOTHING = lambda *_: False  # noqa: E731


@dataclass(frozen=True)
class Plain:
    """An analysis that tells nothing but its options."""

    site: object = None
    position: object = None
    layers: object = None
    sites: object = ()
    positions: object = ()

    name: ClassVar[str] = "plain"

    def __call__(self, stage, reference, activations, seed):  # noqa: ARG002
        return Result(())


@dataclass(frozen=True)
class Telling(Plain):
    def reads(self, stage, reference, seed):
        return [Wanted(reference, (LAST,)), Wanted(replace(stage, random_init=seed), (MEAN,), (2,))]


def of(analysis):
    return wanted(analysis, THINK, BASE, 7)


def test_options_called_site_and_position_tell_of_the_stage():
    assert of(Plain("resid_post", "last")) == (Wanted(THINK, (LAST,)),)
    assert of(Plain("resid_post", "last", [2, 3])) == (Wanted(THINK, (LAST,), (2, 3)),)


def test_several_sites_and_positions_are_one_pass():
    (found,) = of(Plain(sites=["resid_post", "attn_out"], positions=["last", "mean"]))
    assert found.captures == (LAST, MEAN, ("attn_out", "last"), ("attn_out", "mean"))


@pytest.mark.parametrize(
    "options",
    [
        Plain(),
        Plain(site="resid_post"),
        Plain(position="last"),
        Plain("somewhere", "last"),
        Plain("resid_post", "sometimes"),
        Plain("resid_post", "last", "middle"),
        Plain("resid_post", "last", 3),
        Plain("resid_post", "last", ["middle"]),
    ],
    ids=str,
)
def test_what_options_do_not_show_is_not_guessed(options):
    assert of(options) == ()
    assert not declares(options)


def test_an_analysis_that_tells_is_believed():
    told = of(Telling("resid_post", "last"))
    assert told == (
        Wanted(BASE, (LAST,)),
        Wanted(replace(THINK, random_init=7), (MEAN,), (2,)),
    )
    assert declares(Telling())


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


def test_a_pass_gives_what_is_needed_after_it(work):
    needs = [need(work, Wanted(THINK, (LAST,), layers)) for layers in (None, (-1,), (2,))]
    assert [it for it, _ in passes(needs, NOTHING)] == needs[:1]


def test_a_pass_gives_nothing_of_what_it_does_not_keep(work):
    small, whole = (need(work, Wanted(THINK, (LAST,), layers)) for layers in ((2,), None))
    assert [it for it, _ in passes([small, whole], NOTHING)] == [small, whole]
    other = need(replace(work, identity=replace(work.identity, weights="v")), Wanted(BASE, (LAST,)))
    assert [it for it, _ in passes([whole, other], NOTHING)] == [whole, other]
    mean = need(work, Wanted(THINK, (LAST, MEAN)))
    assert [kept for _, kept in passes([whole, mean], NOTHING)] == [
        (Capture(*LAST),),
        (Capture(*MEAN),),
    ]


def test_what_is_there_needs_no_pass(work):
    both = need(work, Wanted(THINK, (LAST, MEAN)))
    has_last = lambda _identity, captures, _layers: captures == (Capture(*LAST),)  # noqa: E731
    assert passes([both], has_last) == [(both, (Capture(*MEAN),))]
    assert passes([both], lambda *_: True) == []
