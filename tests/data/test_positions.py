"""Positions of chats, with a tokenizer in which tags are ordinary tokens that merge."""

import pytest

from olmo_stages.data.formats import render
from olmo_stages.data.positions import left_out, reads_sink, resolve, resolve_all
from olmo_stages.data.spans import tokenize
from olmo_stages.errors import DataError
from olmo_stages.types import Example, Message
from tests.chat_tokenizers import INSTRUCT, MERGES, THINK, byte_level, texts

TRACE = "<think>\nab\n</think>\n\ncd"
NEW = ["last_prompt", "last_user", "first_response", "response_mean", "think_mean", "answer_mean"]
OF_A_RESPONSE = ["first_response", "response_mean", "think_mean", "answer_mean"]


def chat(*contents, id="c", system=None):
    turns = [Message(("user", "assistant")[i % 2], it) for i, it in enumerate(contents)]
    first = [] if system is None else [Message("system", system)]
    return Example(id, "g", 1, messages=(*first, *turns))


def prompt_of(example, tokenizer, *, format="chat_fixed", max_length=1000):
    return tokenize(render(example, format, tokenizer), tokenizer, max_length)


def read(example, position, *, tokenizer=None, **options):
    tokenizer = tokenizer or byte_level()
    prompt = prompt_of(example, tokenizer, **options)
    return "".join(texts(prompt, tokenizer, resolve(prompt, position)))


# The tokenizer is as awkward as the released one


def test_tags_are_ordinary_tokens_that_merge_with_what_follows():
    tokenizer = byte_level()
    assert tokenizer.tokenize("<think>") == ["<th", "ink", ">"]
    assert tokenizer.tokenize("<think>\n") == ["<th", "ink", ">Ċ"]
    assert tokenizer.tokenize("</think>\n\n")[-1] == ">ĊĊ"
    assert "></" in tokenizer.tokenize("<think></think>")
    assert tokenizer.tokenize("</think>") == ["</", "think", ">"]


# What each position reads


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("last_user", "?"),
        ("first_response", "<th"),
        ("response_mean", TRACE),
        ("think_mean", "ab"),
        ("answer_mean", "cd"),
    ],
)
def test_positions_of_a_chat_with_a_trace(position, expected):
    assert read(chat("x", "y", "hi?", TRACE), position) == expected


def test_tags_are_no_part_of_a_trace_or_an_answer():
    for merges in ((), MERGES):
        tokenizer = byte_level(merges=merges)
        assert read(chat("x", TRACE), "think_mean", tokenizer=tokenizer) == "ab"
        assert read(chat("x", TRACE), "answer_mean", tokenizer=tokenizer) == "cd"


def test_a_token_that_straddles_tag_and_trace_counts_as_the_traces():
    tokenizer = byte_level(merges=(*MERGES, "> a"))
    assert read(chat("x", "<think>ab</think>cd"), "think_mean", tokenizer=tokenizer) == ">ab"
    assert read(chat("x", "<think>ab</think>cd"), "think_mean") == "ab"


@pytest.mark.parametrize("format", ["scaffold", "chat_fixed", "chat_native"])
@pytest.mark.parametrize("response", ["z", TRACE, "\n\nz"])
def test_last_prompt_does_not_depend_on_the_response(format, response):
    tokenizer = byte_level(INSTRUCT)
    asked = prompt_of(chat("hi?"), tokenizer, format=format)
    answered = prompt_of(chat("hi?", response), tokenizer, format=format)
    assert resolve(answered, "last_prompt") == resolve(asked, "last_prompt")
    assert resolve(asked, "last_prompt") == resolve(asked, "last")
    assert resolve(answered, "last") != resolve(answered, "last_prompt")
    assert answered.token_ids[: len(asked.token_ids)] == asked.token_ids


def test_what_the_template_opens_belongs_to_the_prompt():
    tokenizer = byte_level(THINK)
    asked = prompt_of(chat("hi?"), tokenizer, format="chat_native")
    answered = prompt_of(chat("hi?", TRACE), tokenizer, format="chat_native")
    # In one go the opened tag would merge with the line end of the response.
    assert answered.joined
    assert answered.token_ids[: len(asked.token_ids)] == asked.token_ids
    assert texts(answered, tokenizer, resolve(answered, "last_prompt")) == [">"]
    assert texts(answered, tokenizer, resolve(answered, "first_response")) == ["\n"]
    found = texts(answered, tokenizer, resolve(answered, "response_mean"))
    assert "".join(found) == TRACE.removeprefix("<think>")
    assert read(chat("hi?", TRACE), "think_mean", tokenizer=tokenizer, format="chat_native") == "ab"


def test_the_same_response_in_a_template_that_opens_nothing_has_its_tag():
    tokenizer = byte_level(INSTRUCT)
    prompt = prompt_of(chat("hi?", TRACE), tokenizer, format="chat_native")
    assert not prompt.joined
    assert "".join(texts(prompt, tokenizer, resolve(prompt, "response_mean"))) == TRACE


def test_a_trace_that_is_never_closed_goes_on_to_the_end():
    assert read(chat("x", "<think>ab cd"), "think_mean") == "ab cd"
    with pytest.raises(DataError, match=r"answer_mean: 1 of 1 .*never closed"):
        read(chat("x", "<think>ab cd"), "answer_mean")


def test_only_the_response_counts_not_an_earlier_turn():
    twice = chat("x", "<think>ab</think>cd", "y", "<think>ef</think>gh")
    assert [read(twice, p) for p in ("think_mean", "answer_mean")] == ["ef", "gh"]
    with pytest.raises(DataError, match="no reasoning"):
        read(chat("x", "<think>ab</think>cd", "y", "gh"), "think_mean")


def test_special_tokens_are_in_no_mean():
    assert read(chat("x", "a<|pad|>b"), "response_mean") == "ab"
    assert read(chat("x", "<think>a<|pad|>b</think>c"), "think_mean") == "ab"


def test_a_text_in_a_chat_format_has_a_user_turn():
    example = Example("t", "g", 1, text="hi?")
    assert read(example, "last_user", format="scaffold") == "?"
    assert read(example, "last_user") == "?"
    assert read(example, "last_prompt", format="raw") == "?"


# Examples that lack what is asked for


@pytest.mark.parametrize("position", OF_A_RESPONSE)
def test_missing_responses_are_one_error_with_counts_and_the_first_ids(position):
    tokenizer = byte_level()
    examples = [chat("x", TRACE, id="ok"), *(chat("x", id=f"e{i}") for i in range(4))]
    prompts = [prompt_of(example, tokenizer) for example in examples]
    with pytest.raises(DataError) as error:
        resolve_all(prompts, position)
    assert "4 of 5 examples" in str(error.value)
    assert "'e0', 'e1', 'e2', ...;" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(resolve_all(prompts[:1], position)) == 1


def test_a_text_without_turns_has_no_user():
    with pytest.raises(DataError, match=r"last_user: 1 of 1 .*data.format=chat_fixed"):
        read(Example("t", "g", 1, text="hi"), "last_user", format="raw")


# Truncation


@pytest.mark.parametrize("position", OF_A_RESPONSE)
def test_a_cut_prompt_leaves_the_response(position):
    tokenizer = byte_level()
    whole = prompt_of(chat("long " * 20, TRACE), tokenizer)
    cut = prompt_of(chat("long " * 20, TRACE), tokenizer, max_length=40)
    assert cut.n_dropped > 0
    for prompt in (whole, cut):
        assert "".join(texts(prompt, tokenizer, resolve(prompt, position))) in TRACE
    assert [cut.token_ids[i] for i in resolve(cut, position)] == [
        whole.token_ids[i] for i in resolve(whole, position)
    ]
    assert texts(cut, tokenizer, resolve(cut, "last_prompt")) == texts(
        whole, tokenizer, resolve(whole, "last_prompt")
    )


def test_a_prompt_that_is_cut_away_has_no_last_token():
    tokenizer = byte_level()
    with pytest.raises(DataError, match=r"last_prompt: 1 of 1 examples have nothing left"):
        read(chat("x", "abcdef"), "last_prompt", tokenizer=tokenizer, max_length=5)
    with pytest.raises(DataError, match=r"last_user: 1 of 1 examples have no user turn"):
        read(chat("x", "abcdef"), "last_user", tokenizer=tokenizer, max_length=5)


def test_a_trace_that_is_cut_is_read_as_far_as_it_is_left():
    example = chat("x", "<think>abcdef</think>g")
    n = len(prompt_of(example, byte_level()).token_ids)
    found = [read(example, "think_mean", max_length=kept) for kept in range(n, 7, -1)]
    assert found[0] == "abcdef"
    assert "def" in found
    assert all("abcdef".endswith(it) for it in found)


# Counts


@pytest.mark.parametrize("position", ["response_mean", "think_mean", "answer_mean", "mean"])
@pytest.mark.parametrize("max_length", [24, 1000])
def test_what_is_read_and_what_is_left_out_add_up(position, max_length):
    prompt = prompt_of(chat("x", "y", "hi?", TRACE), byte_level(), max_length=max_length)
    counts = left_out(prompt, position)
    assert len(resolve(prompt, position)) + sum(counts.values()) == len(prompt.token_ids)
    assert ("other" in counts) is (position != "mean")


def test_what_is_not_asked_for_is_other():
    # hi? and the tags, the answer and the line end of the response.
    tokenizer = byte_level()
    prompt = prompt_of(chat("hi?", TRACE), tokenizer)
    n_read = len(resolve(prompt, "think_mean"))
    assert left_out(prompt, "think_mean")["other"] == len(prompt.content_tokens) - n_read
    assert left_out(prompt, "response_mean")["other"] == len("hi?")


@pytest.mark.parametrize("position", ["last_prompt", "last_user", "first_response"])
def test_single_tokens_leave_nothing_out(position):
    assert left_out(prompt_of(chat("x", TRACE), byte_level()), position) == {}


def test_a_response_at_the_sink_is_told():
    tokenizer = byte_level()
    alone = prompt_of(chat("x", "abcdef"), tokenizer, max_length=3)
    assert reads_sink(alone, "response_mean")
    assert not reads_sink(prompt_of(chat("x", "abcdef"), tokenizer), "response_mean")


@pytest.mark.parametrize("position", NEW)
def test_a_response_without_its_template_still_has_every_position(position):
    assert read(chat("hi?", TRACE), position, format="scaffold")
