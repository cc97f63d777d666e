"""Reasoning and answer in a response, by its text."""

import pytest

from olmo_stages.data.prompts import Span
from olmo_stages.data.traces import trace


def parts(response, *, opened=False, before="assistant\n", after="<|im_end|></think> no"):
    text = before + response + after
    span = Span(len(before), len(before) + len(response), "assistant")
    return {it.role: text[it.start : it.stop] for it in trace(text, span, opened=opened)}


@pytest.mark.parametrize(
    ("response", "think", "answer"),
    [
        ("<think>a b</think>c d", "a b", "c d"),
        ("<think>\na b\n</think>\n\nc d\n", "a b", "c d"),
        ("\n<think>a</think>c", "a", "c"),
        ("a b</think>c", "a b", "c"),
        ("<think>a", "a", None),
        ("<think>a</think>\n", "a", None),
        ("<think>\n\n</think>c", None, "c"),
        ("<think></think>c", None, "c"),
        ("<think>a</think>b <think>c</think>d", "a", "b <think>c</think>d"),
        ("c d", None, None),
        ("a tag <think> in a text", None, None),
    ],
)
def test_parts_of_a_response(response, think, answer):
    wanted = {"think": think, "answer": answer}
    assert parts(response) == {role: it for role, it in wanted.items() if it is not None}


def test_a_trace_that_the_template_opened():
    assert parts("a b", opened=True) == {"think": "a b"}
    assert parts("a</think>b", opened=True) == {"think": "a", "answer": "b"}
    assert parts("a b", opened=False) == {}


def test_nothing_outside_the_response_counts():
    assert parts("<think>a", after="</think>b") == {"think": "a"}
