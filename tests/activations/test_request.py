"""What is wanted of activations, told beforehand, and the forward passes that give it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from olmo_stages.activations.request import declares, wanted
from olmo_stages.types import Result, Wanted
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
