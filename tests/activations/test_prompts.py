"""Formats in requests: what identifies them, what is refused, and what reaches the answer."""

from dataclasses import replace

import numpy as np
import pytest

from olmo_stages.activations import prompts
from olmo_stages.activations.extraction import Source
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError, DataError, ModelError
from olmo_stages.models.compute import Compute
from olmo_stages.types import Example, Message, Stage
from tests.chat_tokenizers import INSTRUCT, THINK, THINK_SYSTEM, byte_level, small_model

TRACE = "<think>\nIt is.\n</think>\n\nYes"


def texts(*contents):
    return tuple(
        Example(f"e{i}", f"g{i}", i % 2, text=it)
        for i, it in enumerate(contents or ("Is it?", "Why?", "Who?", "It is."))
    )


def chats(response=None, n=4):
    said = () if response is None else (Message("assistant", response),)
    return tuple(
        Example(f"e{i}", f"g{i}", i % 2, messages=(Message("user", f"Is it {i}?"), *said))
        for i in range(n)
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """One model with the tokenizers of several stages."""
    root = tmp_path_factory.mktemp("stages")
    base = Stage("base", "custom", str(small_model(root / "base", byte_level())))

    def stage(name, tokenizer):
        path = small_model(root / name, tokenizer)
        return Stage(name, "custom", str(path), parent=base)

    return {
        "base": base,
        "think": stage("think", byte_level(THINK)),
        "think_too": stage("think_too", byte_level(THINK + "{# the same prompts #}")),
        "instruct": stage("instruct", byte_level(INSTRUCT)),
        "bare": stage("bare", byte_level()),
        "bos": stage("bos", byte_level(THINK, bos=True)),
        "dated": stage("dated", byte_level(THINK + "{{ strftime_now('%Y') }}")),
    }


@pytest.fixture
def source(tmp_path):
    def make(examples, format="chat_native", *, mix_formats=False, max_length=None):
        data = Dataset("d", examples, format, mix_formats)
        compute = Compute(device="cpu", dtype="float32", token_budget=4096, threads=1)
        return Source(data, compute, tmp_path / "cache", max_length=max_length)

    return make


# Identity


@pytest.mark.parametrize(
    ("examples", "format"),
    [
        (texts(), "auto"),
        (texts(), "raw"),
        (texts("<|endoftext|>a", "b", "c", "d"), "raw"),
        (texts(), "chat_fixed"),
        (chats(), "chat_fixed"),
    ],
)
def test_requests_that_get_the_same_prompts_as_ever_keep_their_identity(
    source, stages, examples, format
):
    assert source(examples, format).identity(stages["base"]).format == format


@pytest.mark.parametrize(
    ("name", "examples", "format"),
    [
        ("think", chats("Yes"), "chat_fixed"),
        ("think", chats("Yes"), "auto"),
        ("bos", texts(), "chat_fixed"),
        ("bos", texts("<|endoftext|>a", "b", "c", "d"), "raw"),
    ],
)
def test_requests_that_may_get_other_prompts_miss_what_was_stored(
    source, stages, name, examples, format
):
    identity = source(examples, format).identity(stages[name])
    assert identity.format == f"{format}/{prompts.PROMPTS_VERSION}"


def test_a_bos_concerns_no_text_that_lacks_it(source, stages):
    assert source(texts(), "raw").identity(stages["bos"]).format == "raw"


def test_native_formats_are_told_apart_by_their_template(source, stages):
    asked = source(texts())
    found = {name: asked.identity(stages[name]).format for name in ("think", "instruct", "bos")}
    assert found["think"] == found["bos"] != found["instruct"]
    assert all(it.startswith("chat_native:") for it in found.values())


def test_mixing_is_no_part_of_the_identity(source, stages):
    one, other = source(texts()), source(texts(), mix_formats=True)
    assert one.identity(stages["think"]) == other.identity(stages["think"])


# What is refused before anything is loaded


@pytest.mark.parametrize("name", ["base", "bare"])
def test_a_stage_without_a_template_has_no_native_format(source, stages, name):
    with pytest.raises(ModelError, match=rf"stage {name} .*has no chat template .*scaffold or raw"):
        source(texts()).identity(stages[name])


def test_prompts_that_change_from_day_to_day_are_refused(source, stages):
    with pytest.raises(ModelError, match=r"stage dated .*today's date.*chat_fixed"):
        source(texts()).identity(stages["dated"])


def test_a_chat_template_on_base_is_an_explicit_choice(source, stages):
    with pytest.raises(ConfigError, match=r"stage base has no chat template .*scaffold, or chat_f"):
        source(chats(), "auto").identity(stages["base"])
    for format in ("scaffold", "chat_fixed"):
        assert source(chats(), format).identity(stages["base"]).format == format
    # Control: texts are raw, and a post-trained stage was trained on chats.
    assert source(texts(), "auto").identity(stages["base"])
    assert source(chats(), "auto").identity(stages["bare"])


def test_base_in_a_chat_template_by_choice_is_told(source, stages):
    asked = source(texts(), "chat_fixed")
    found = asked.check_formats(stages["think"], stages["base"])
    assert found.warnings == (
        "base has no chat template and was trained on none; its prompts are in chat_fixed by "
        "choice",
    )
    assert asked.check_formats(stages["instruct"], stages["think"]).warnings == ()
    assert source(texts(), "raw").check_formats(stages["base"], None).warnings == ()


# Two sides


def test_different_templates_are_refused_with_what_differs(source, stages):
    with pytest.raises(ConfigError) as error:
        source(texts()).check_formats(stages["think"], stages["instruct"])
    for words in ("4 of 4 examples", "data.format=chat_fixed", "data.mix_formats=true", "think: '"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_different_templates_are_compared_on_request_and_the_difference_told(source, stages):
    asked = source(texts(), mix_formats=True)
    found = asked.check_formats(stages["think"], stages["instruct"])
    assert found.diff.n_differ == 4
    assert found.warnings == (f"prompts are mixed by choice: {found.diff.summary}",)
    assert found.diff.excerpt.startswith("example 'e0':\n  both ")


def test_templates_that_give_the_same_prompts_may_be_compared(source, stages):
    found = source(texts()).check_formats(stages["think"], stages["think_too"])
    assert (found.warnings, found.diff) == ((), None)


@pytest.mark.parametrize("format", ["raw", "scaffold", "chat_fixed"])
def test_owned_formats_give_all_stages_the_same_tokens(source, stages, format):
    asked = source(texts(), format)
    assert asked.check_formats(stages["think"], stages["instruct"]).diff is None
    found = {asked(stages[it], layers=(0,)).token_ids for it in ("base", "think", "instruct")}
    assert len(found) == 1


def test_native_prompts_are_the_stages_own(source, stages):
    asked = source(texts(), mix_formats=True)
    think, instruct = (asked(stages[it], layers=(0,)) for it in ("think", "instruct"))
    decode = byte_level().decode
    assert THINK_SYSTEM in decode(think.token_ids[0])
    assert decode(think.token_ids[0]).endswith("assistant\n<think>")
    assert "function-calling" in decode(instruct.token_ids[0])


# What reaches the answer


@pytest.mark.parametrize("position", ["response_mean", "think_mean", "answer_mean"])
def test_means_of_parts_are_the_means_of_their_tokens(source, stages, position):
    asked = source(chats(TRACE), "chat_fixed")
    found = asked(stages["think"], position=position)
    tokens = asked(stages["think"], position="tokens")
    decode = byte_level().decode
    part = {"response_mean": TRACE, "think_mean": "It is.", "answer_mean": "Yes"}[position]
    for i in range(4):
        rows = np.flatnonzero(tokens.owners == i)
        said = [decode([tokens.token_ids[i][tokens.token_index[row]]]) for row in rows]
        # The part is the last run of content tokens that reads as it does.
        runs = [
            (a, b)
            for a in range(len(said))
            for b in range(a, len(said) + 1)
            if "".join(said[a:b]) == part
        ]
        a, b = runs[-1]
        np.testing.assert_allclose(
            found.values[:, i], tokens.values[:, rows[a:b]].mean(axis=1), rtol=1e-4, atol=1e-5
        )


def test_single_token_positions_read_their_token(source, stages):
    asked = source(chats(TRACE), "chat_fixed")
    whole = asked(stages["think"], position="last_prompt")
    prompt = source(chats(), "chat_fixed")(stages["think"], position="last")
    # Causal: what follows the prompt changes nothing in it.
    np.testing.assert_allclose(whole.values, prompt.values, rtol=1e-4, atol=1e-5)
    last = asked(stages["think"], position="last")
    assert np.abs(whole.values - last.values).max() > 0.1


def test_prompts_tokenised_apart_are_counted(source, stages):
    joined = source(chats(TRACE))(stages["think"], layers=(0,))
    assert joined.n_joined == 4
    assert source(chats(TRACE))(stages["instruct"], layers=(0,)).n_joined == 0
    # Also when read back from the store.
    again = source(chats(TRACE))
    assert again(stages["think"], layers=(0,)).n_joined == 4
    assert sum(again.forward_passes.values()) == 0


def test_counts_of_what_is_left_out_reach_the_answer(source, stages):
    found = source(chats(TRACE), "chat_fixed")(stages["think"], position="think_mean", layers=(0,))
    assert set(found.left_out) == {"sink", "special", "template", "other"}
    assert found.left_out["other"] > 0
    n_tokens = sum(map(len, found.token_ids))
    assert sum(found.left_out.values()) == n_tokens - 4 * len("It is.")


def test_examples_without_a_trace_are_refused_before_the_model_is_loaded(source, stages):
    examples = (*chats(TRACE)[:2], *chats("Yes")[2:])
    asked = source(examples, "chat_fixed")
    with pytest.raises(DataError, match=r"think_mean: 2 of 4 examples .*'e2', 'e3'"):
        asked(stages["think"], position="think_mean")
    assert asked._model.loaded is None
    assert asked(stages["think"], position="response_mean", layers=(0,)).n_at_sink == 0


@pytest.mark.parametrize("format", ["scaffold", "chat_fixed", "chat_native"])
def test_truncation_keeps_the_end_in_every_format(source, stages, format):
    long = tuple(
        replace(it, messages=(Message("user", f"{i} " + "so " * 30), *it.messages[1:]))
        for i, it in enumerate(chats(TRACE))
    )
    cut = source(long, format, max_length=45)(stages["think"], position="answer_mean", layers=(0,))
    assert cut.n_truncated == 4
    assert {len(ids) for ids in cut.token_ids} == {45}
    assert "Yes" in byte_level().decode(cut.token_ids[0])
