from dataclasses import replace
from pathlib import Path

import pytest

from olmo_stages.activations import extras
from olmo_stages.activations.extras import POSITIONS, with_extras
from olmo_stages.activations.identity import PassIdentity
from olmo_stages.activations.passes import Pass
from olmo_stages.activations.request import Work
from olmo_stages.data.dataset import Dataset
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.types import Example, Message, Stage

LAST = Capture("resid_post", "last")
ALL = tuple(range(-1, 32))


def work(n=1000, characters=80, d_model=4096, dtype="bfloat16"):
    examples = tuple(Example(f"e{i}", f"g{i}", None, text=f"{i:0{characters}}") for i in range(n))
    identity = PassIdentity("w", None, dtype, "none", "sdpa", "t", "raw", "d", 8)
    dataset = Dataset("toy", examples, labelled=False)
    stage = Stage("think_sft", "7b", "x")
    return Work(stage, Checkpoint(Path(), None), identity, 32, dataset, d_model)


def of(layers=ALL, captures=(LAST,), device="cpu", **options):
    return with_extras(Pass(work(**options), captures, layers), device)


def positions(found):
    return {it.position for it in found.captures}


def test_all_positions_are_kept_where_the_pass_takes_long():
    assert positions(of(n=100)) == set(POSITIONS)


def test_nothing_is_added_that_would_take_a_tenth_of_the_pass():
    # 30,000 short texts of a 7B model on a GPU: 8 GB a position, in about two minutes.
    assert positions(of(n=30_000, device="cuda")) == {"last"}
    found = of(n=1000, characters=80, device="cuda")
    assert {"last"} < positions(found) < set(POSITIONS)


def test_the_likeliest_are_kept_first():
    for n in (300, 1000, 3000):
        found = positions(of(n=n, device="cuda")) - {"last"}
        rest = [it for it in POSITIONS if it != "last"]
        single = [it for it in rest if not it.endswith("mean")]
        # Means are twice as large, so that one may be left out for something smaller.
        assert {it for it in found if it in single} == set(single[: len(found & {*single})])


def test_more_data_never_adds_more_than_the_most():
    for n in (10, 1000, 4000, 30_000):
        found = of(n=n)
        added = [it for it in found.captures if it != LAST]
        n_bytes = sum(n * 33 * 4096 * (4 if it.position.endswith("mean") else 2) for it in added)
        assert n_bytes <= extras.MOST_BYTES


@pytest.mark.parametrize(
    ("asked", "expected"),
    [((5,), range(-1, 6)), ((29,), range(-1, 32)), ((-1,), range(-1, 0)), (ALL, ALL)],
)
def test_layers_below_are_kept_and_those_above_where_few_are_left(asked, expected):
    assert of(asked, n=100).layers == tuple(expected)


def test_layers_are_not_added_for_rows_of_tokens_that_are_many():
    tokens = Capture("resid_post", "tokens")
    assert of((20,), (tokens,), n=10_000).layers == (20,)
    assert of((20,), (LAST,), n=100).layers == tuple(range(-1, 21))


def test_each_site_that_is_asked_for_has_its_positions():
    found = of(captures=(LAST, Capture("attn_out", "mean")), n=10)
    assert {it.site for it in found.captures} == {"resid_post", "attn_out"}
    assert len(found.captures) == 2 * len(POSITIONS)


def test_any_of_them_that_is_asked_for_leads_to_the_same():
    found = {of(captures=(Capture("resid_post", it),), n=100).captures for it in POSITIONS}
    assert len(found) == 1


def test_of_a_model_of_unknown_width_what_is_asked_for_is_kept():
    assert of(d_model=0).captures == (LAST,)


def test_chats_count_as_long_as_their_turns():
    texts = work(n=1000, characters=4000)
    chats = tuple(
        replace(it, text=None, messages=(Message("user", it.text or ""),))
        for it in texts.dataset.examples
    )
    same = replace(texts, dataset=replace(texts.dataset, examples=chats))
    found = [with_extras(Pass(it, (LAST,), ALL), "cuda").captures for it in (texts, same)]
    assert found[0] == found[1]
    assert found[0] != of(n=1000, characters=8, device="cuda").captures
