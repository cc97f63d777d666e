"""What two stages read where they do not read the same."""

import pytest

from olmo_stages.data.formats import render
from olmo_stages.data.spans import tokenize
from olmo_stages.data.token_diff import Side, token_diff
from olmo_stages.errors import PairingError
from olmo_stages.types import Example
from tests.chat_tokenizers import INSTRUCT, THINK, byte_level

TEXTS = ("Is it raining?", "Why?")


def side(label, template, *, format="chat_native", texts=TEXTS):
    tokenizer = byte_level(template)
    examples = [Example(f"e{i}", "g", 1, text=text) for i, text in enumerate(texts)]
    prompts = [
        tokenize(render(example, format, tokenizer), tokenizer, 1000) for example in examples
    ]
    return Side(label, prompts, lambda token: tokenizer.decode([token]))


def test_the_same_prompts_have_no_difference():
    assert token_diff(side("a", THINK), side("b", THINK)) is None
    fixed = [side(name, it, format="chat_fixed") for name, it in (("a", THINK), ("b", INSTRUCT))]
    assert token_diff(*fixed) is None


def test_how_many_examples_and_which_tokens_differ():
    opening = THINK.replace("<think>", "~")
    found = token_diff(side("think", opening), side("plain", opening.replace("~", "")))
    assert (found.n_differ, found.n_examples) == (2, 2)
    assert found.summary == "think and plain see other tokens in 2 of 2 examples (only think: '~')"


def test_the_first_example_is_shown_aligned():
    opening = THINK.replace("<think>", "~")
    found = token_diff(side("think", opening), side("plain", opening.replace("~", "^")))
    head, both, mine, theirs = found.excerpt.splitlines()
    assert head == "example 'e0':"
    assert both.startswith("  both   '<|im_start|>' 's' 'y'")
    assert both.endswith("'t' '\\n'")
    assert " more ... " in both
    assert (mine, theirs) == ("- think  '~'", "+ plain  '^'")


def test_only_the_examples_that_differ_count():
    found = token_diff(side("a", THINK), side("b", THINK, texts=("Is it raining?", "Who?")))
    assert (found.n_differ, found.n_examples) == (1, 2)
    assert "example 'e1'" in found.excerpt


def test_the_same_tokens_in_another_order():
    found = token_diff(side("a", THINK), side("b", THINK, texts=("Is it raining?", "yhW?")))
    assert found.summary == "a and b see other tokens in 1 of 2 examples (the same tokens in " + (
        "another order)"
    )


def test_many_tokens_are_cut_short():
    found = token_diff(side("a", THINK), side("b", INSTRUCT))
    assert " more; only b: " in found.summary or found.summary.endswith(" more)")
    assert len(found.summary) < 200


def test_other_examples_are_an_error():
    with pytest.raises(PairingError, match="different examples"):
        token_diff(side("a", THINK), side("b", THINK, texts=("Why?",)))
