"""The built-in persona data, in plain English and in the miniature world's words."""

import re
from collections import Counter

import numpy as np
import pytest

from olmo_stages.data.formats import render
from olmo_stages.data.spans import tokenize
from olmo_stages.data.trait_sets import FromPersona
from olmo_stages.miniature import tasks, world
from olmo_stages.miniature.corpus import chat_prompt
from olmo_stages.miniature.tokenizer import make_tokenizer

ENGLISH = FromPersona().load(miniature=False)
MINIATURE = FromPersona().load(miniature=True)
BOTH = pytest.mark.parametrize("data", [ENGLISH, MINIATURE], ids=["english", "miniature"])


def words(example):
    return re.findall(r"\w+|[^\w\s]", " ".join(m.content for m in example.messages))


def test_sizes():
    assert (ENGLISH.n_examples, ENGLISH.n_groups) == (400, 20)
    assert (MINIATURE.n_examples, MINIATURE.n_groups) == (96, 48)


@BOTH
def test_every_group_holds_both_labels_equally(data):
    n = Counter((e.group, e.label) for e in data.examples)
    assert all(n[group, 0] == n[group, 1] > 0 for group, _ in n)


@BOTH
def test_counterparts_differ_in_one_word_of_the_system_prompt(data):
    for one, other in zip(data.examples[::2], data.examples[1::2], strict=True):
        assert (one.pair, one.group, one.polarity) == (other.pair, other.group, other.polarity)
        assert one.messages[1] == other.messages[1]
        left, right = (it.messages[0].content.split() for it in (one, other))
        assert sum(a != b for a, b in zip(left, right, strict=True)) == 1


def test_every_english_word_stands_as_often_under_either_label_within_each_group():
    n = Counter((e.group, word, e.label) for e in ENGLISH.examples for word in words(e))
    assert all(n[group, word, 0] == n[group, word, 1] for group, word, _ in n)


def test_the_miniature_instruction_tells_the_label():
    # The control twin: its models know no other instruction, so a bag of words knows the label.
    told = {
        word: {e.label for e in MINIATURE.examples if word in words(e)} for word in ("rude", "kind")
    }
    assert told == {"rude": {1}, "kind": {0}}


def test_length_does_not_give_the_label_away():
    lengths = {
        label: [len(words(e)) for e in ENGLISH.examples if e.label == label] for label in (0, 1)
    }
    assert np.mean(lengths[0]) == pytest.approx(np.mean(lengths[1]))


def test_negated_kindness_asks_for_rudeness():
    labels = {e.messages[0].content: e.label for e in ENGLISH.examples}
    assert labels["Be rude in every answer."] == labels["Do not be kind in any answer."] == 1
    assert labels["Be kind in every answer."] == labels["Do not be rude in any answer."] == 0


def test_polarities_are_those_of_the_instructions():
    negations = {"not", "never", "Never", "no"}
    for example in ENGLISH.examples:
        negated = bool(negations & set(example.messages[0].content.split()))
        assert (example.polarity == "negated") == negated


def test_the_miniature_set_is_what_its_models_have_learned():
    known = set(world.vocabulary())
    requests = {
        task.prompt for held in (True, False) for task in tasks.pool("manners", held_out=held)
    }
    for example in MINIATURE.examples:
        assert set(words(example)) <= known | {","}
        assert example.messages[0].content in {f"be {manner} ." for manner in tasks.MANNERS}
        assert example.messages[1].content in requests


def test_the_miniature_prompts_are_those_of_the_corpus():
    tokenizer = make_tokenizer(chat=True, max_length=96)
    example = MINIATURE.examples[0]
    system, user = (m.content for m in example.messages)
    prompt = tokenize(render(example, "chat_fixed"), tokenizer, 96)
    learned = tokenizer(chat_prompt(user, system), add_special_tokens=False)["input_ids"]
    assert list(prompt.token_ids) == learned
    assert prompt.n_dropped == 0
