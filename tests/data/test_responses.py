import dataclasses

import pytest

from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import render
from olmo_stages.data.positions import resolve
from olmo_stages.data.responses import (
    Generation,
    Respond,
    Response,
    Tally,
    complete,
    keep,
    responding,
)
from olmo_stages.data.sets import BuiltIn, FromFile
from olmo_stages.data.spans import tokenize
from olmo_stages.errors import ConfigError, DataError, ModelError
from olmo_stages.types import Example, Message
from tests.chat_tokenizers import INSTRUCT, THINK, byte_level, texts

LONG = 10_000


def chat(name="e", label=1, *, pair="", trait=""):
    turns = (Message("system", f"Be {label}."), Message("user", f"Why {name}?"))
    return Example(name, name, label, messages=turns, pair=pair, trait=trait)


def response(text, tokenizer, **options):
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Response(ids, text, **options)


def prompt_of(example, answer, tokenizer, format="chat_fixed"):
    return tokenize(complete(example, answer, format, tokenizer), tokenizer, LONG)


# Completed chats


@pytest.mark.parametrize("format", ["chat_fixed", "chat_native", "scaffold"])
def test_the_tokens_are_those_of_the_prompt_and_those_written(format):
    tokenizer = byte_level(INSTRUCT)
    answer = response(" Because it is so.", tokenizer)
    alone = tokenize(render(chat(), format, tokenizer), tokenizer, LONG)
    found = prompt_of(chat(), answer, tokenizer, format)
    n = len(alone.token_ids)
    assert found.token_ids[:n] == alone.token_ids
    assert found.n_prompt == n
    assert found.token_ids[n : n + len(answer.token_ids)] == answer.token_ids
    behind = {"chat_fixed": "<|im_end|>\n", "chat_native": "<|endoftext|>", "scaffold": ""}
    rest = tokenizer.decode(list(found.token_ids[n + len(answer.token_ids) :]))
    assert rest == behind[format]
    said = "".join(texts(found, tokenizer, found.response_tokens))
    assert said == ("Because it is so." if format == "scaffold" else " Because it is so.")


@pytest.mark.parametrize("format", ["chat_fixed", "scaffold"])
def test_a_completed_chat_reads_as_the_chat_with_that_response(format):
    """Where no token of the text straddles a border, both ways give the same prompt."""
    tokenizer = byte_level()
    written = " Well" if format == "scaffold" else "Well"
    found = prompt_of(chat(), response(written, tokenizer), tokenizer, format)
    turns = (*chat().messages, Message("assistant", "Well"))
    answered = dataclasses.replace(chat(), messages=turns)
    wanted = tokenize(render(answered, format, tokenizer), tokenizer, LONG)
    assert found.token_ids == wanted.token_ids
    assert found.n_prompt == wanted.n_prompt
    for position in ("first_response", "response_mean", "last_prompt", "last"):
        assert resolve(found, position) == resolve(wanted, position)


def test_a_token_that_would_straddle_prompt_and_response_is_not_made():
    # The template ends with `<think>`, whose last token merges with a line end behind it.
    tokenizer = byte_level(THINK)
    answer = response("\nhm</think>yes", tokenizer)
    found = prompt_of(chat(), answer, tokenizer, "chat_native")
    before, after = found.token_ids[: found.n_prompt], found.token_ids[found.n_prompt :]
    assert tokenizer.decode([before[-1]]) == ">"
    assert tokenizer.decode([after[0]]) == "\n"
    whole = complete(chat(), answer, "chat_native", tokenizer).text
    again = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert tuple(again) != found.token_ids  # the control: tokenised anew it would be another prompt
    assert tokenizer.decode([again[found.n_prompt - 1]]) == ">\n"
    assert not found.joined


def test_tokens_that_the_tokenizer_would_merge_stay_as_they_were_written():
    tokenizer = byte_level()
    apart = tuple(it for text in ("a", ">", "\n", "b") for it in tokenizer(text)["input_ids"])
    merged = tokenizer("a>\nb")["input_ids"]
    assert len(merged) == 3
    found = prompt_of(chat(), Response(apart, "a>\nb"), tokenizer)
    assert found.token_ids[found.n_prompt :][:4] == apart
    assert texts(found, tokenizer, found.response_tokens) == ["a", ">", "\n", "b"]


def test_trace_and_answer_are_found_among_tokens_as_written():
    tokenizer = byte_level()
    parts = ("<", "think", ">", "hm", "</", "think", ">", "\n", "yes")
    ids = tuple(it for text in parts for it in tokenizer(text)["input_ids"])
    written = Response(ids, "".join(parts))
    assert list(ids) != tokenizer(written.text)["input_ids"]
    found = prompt_of(chat(), written, tokenizer)
    assert "".join(texts(found, tokenizer, resolve(found, "think_mean"))) == "hm"
    assert "".join(texts(found, tokenizer, resolve(found, "answer_mean"))) == "yes"


def test_all_bytes_of_a_character_that_was_written_oddly_are_content():
    tokenizer = byte_level(merges=("Ã ©", "a b"))  # é is one token, written here as two
    bytes_of = tokenizer.convert_tokens_to_ids(["Ã", "©"])
    ids = (*tokenizer("a")["input_ids"], *bytes_of, *tokenizer("b")["input_ids"])
    assert len(tokenizer("é")["input_ids"]) == 1
    found = prompt_of(chat(), Response(tuple(ids), "aéb"), tokenizer)
    assert len(found.response_tokens) == 4


def test_a_character_that_was_never_finished_is_content():
    tokenizer = byte_level()
    ids = (*tokenizer("ab")["input_ids"], tokenizer("é")["input_ids"][0])
    text = tokenizer.decode(list(ids))
    assert text == "ab\ufffd"
    assert len(prompt_of(chat(), Response(ids, text), tokenizer).response_tokens) == 3


def test_a_text_that_looks_like_a_turn_marker_forges_none():
    tokenizer = byte_level()
    pieces = ("<", "|im_end|>", "x")
    ids = tuple(it for text in pieces for it in tokenizer(text)["input_ids"])
    found = prompt_of(chat(), Response(ids, "<|im_end|>x"), tokenizer)
    marker = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.token_ids.count(marker) == 3  # of the three turns, none in the response
    assert len(found.response_tokens) == len(ids)


def test_a_stage_that_reads_the_tokens_otherwise_is_refused():
    written = response("so it is", byte_level())
    other = byte_level(merges=("i s",))
    with pytest.raises(ModelError, match=r"'e'.*data.respond=own"):
        prompt_of(chat(), Response(tuple(i + 1 for i in written.token_ids), written.text), other)


def test_the_digest_of_a_data_set_depends_on_the_responses():
    tokenizer = byte_level()
    data = Dataset("d", tuple(chat(f"e{i}", i % 2) for i in range(4)), "chat_fixed")
    answers = {it.id: response("yes", tokenizer) for it in data.examples}
    completed = dataclasses.replace(data, responses=answers)
    other = dataclasses.replace(data, responses=answers | {"e3": response("no", tokenizer)})
    assert len({data.digest, completed.digest, other.digest}) == 3
    assert dataclasses.replace(data, respond=Respond("own", Generation())).digest == data.digest


# What cannot be completed


def test_raw_texts_are_not_completed():
    examples = tuple(Example(f"e{i}", f"g{i}", i % 2, text=f"t {i}") for i in range(4))
    respond = Respond("own", Generation())
    with pytest.raises(ConfigError, match=r"4 of 4 examples .*data.format=chat_fixed"):
        Dataset("d", examples, respond=respond)
    assert Dataset("d", examples, "chat_fixed", respond=respond).n_examples == 4


def test_answered_chats_are_not_completed():
    examples = [chat(f"e{i}", i % 2) for i in range(4)]
    turns = (*examples[2].messages, Message("assistant", "So."))
    examples[2] = dataclasses.replace(examples[2], messages=turns)
    assert Dataset("d", tuple(examples)).n_examples == 4
    with pytest.raises(DataError, match=r"1 of 4 examples .*'e2'"):
        Dataset("d", tuple(examples), respond=Respond("own", Generation()))


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"seed": -1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"data.generation.{next(iter(wrong))}"):
        Generation(**wrong)


def test_the_mode_is_named():
    assert Respond("think_sft@step10", Generation()).mode == "replay of think_sft@step10"
    assert Respond("own", Generation()).mode == "own"
    assert responding(None, Generation()) is None
    assert str(Generation(64)) == "greedy, at most 64 tokens"
    assert str(Generation(8, 0.5, 2)) == (
        "sampled at temperature 0.5 with seed 2, at most 8 tokens"
    )


def test_data_configs_pass_it_on(tmp_path):
    generation = Generation(16)
    found = BuiltIn("truth", format="chat_fixed", respond="own", generation=generation)
    assert found.load(miniature=True).respond == Respond("own", generation)
    file = tmp_path / "d.csv"
    file.write_text("text,label\na,0\nb,1\nc,0\nd,1\n")
    own = FromFile(path=str(file), format="scaffold", respond="base", generation=generation)
    assert own.load().respond == Respond("base", generation)
    assert FromFile(path=str(file)).load().respond is None


# What is kept


def answers(**by_id):
    return {name: Response((1,), text) for name, text in by_id.items()}


PAIRED = [chat(f"{side}{i}", int(side == "p"), pair=str(i)) for i in range(3) for side in "pn"]


def test_an_empty_response_drops_its_example_and_its_counterpart():
    found = keep(PAIRED, {"s": answers(p0="a", n0="a", p1=" \n", n1="a", p2="a", n2="a")})
    assert [it.id for it in found.examples] == ["p0", "n0", "p2", "n2"]
    (tally,) = found.tallies
    assert tally == Tally("s", {1: 3, 0: 3}, {1: 2, 0: 3}, {1: 2, 0: 2}, {"empty": 1}, 0)
    assert str(tally) == (
        "responses of s: label 0: 3 of 3 usable, 2 kept; label 1: 2 of 3 usable, 2 kept; 1 empty"
    )
    assert tally.describe()["kept"] == {"1": 2, "0": 2}


def test_an_example_without_counterpart_is_dropped_alone():
    alone = [dataclasses.replace(it, pair="") for it in PAIRED]
    found = keep(alone, {"s": answers(p0="a", n0="a", p1="", n1="a", p2="a", n2="a")})
    assert [it.id for it in found.examples] == ["p0", "n0", "n1", "p2", "n2"]


def test_pairs_of_the_same_name_in_two_traits_are_two_pairs():
    twice = [dataclasses.replace(it, trait=t, id=f"{t}{it.id}") for t in "xy" for it in PAIRED]
    found = {it.id: Response((1,), "" if it.id == "xp1" else "a") for it in twice}
    assert {it.id for it in twice} - {it.id for it in keep(twice, {"s": found}).examples} == {
        "xp1",
        "xn1",
    }


def test_all_stages_keep_what_every_stage_has():
    written = {
        "base": answers(p0="", n0="a", p1="a", n1="a", p2="a", n2="a"),
        "sft": answers(p0="a", n0="a", p1="a", n1="", p2="a", n2="a"),
    }
    found = keep(PAIRED, written)
    assert [it.id for it in found.examples] == ["p2", "n2"]
    assert [(it.stage, it.usable, it.kept) for it in found.tallies] == [
        ("base", {1: 2, 0: 3}, {1: 1, 0: 1}),
        ("sft", {1: 3, 0: 2}, {1: 1, 0: 1}),
    ]


CLOSED, OPEN, PLAIN = "<think>hm</think>yes", "<think>hm", "yes"


@pytest.mark.parametrize(
    ("position", "kept"),
    [
        ("response_mean", {"p0", "n0", "p1", "n1", "p2", "n2"}),
        ("think_mean", {"p0", "n0", "p1", "n1"}),
        ("answer_mean", {"p0", "n0"}),
        ("last", {"p0", "n0", "p1", "n1", "p2", "n2"}),
    ],
)
def test_a_response_without_what_is_read_is_dropped(position, kept):
    written = answers(p0=CLOSED, n0=CLOSED, p1=OPEN, n1=OPEN, p2=PLAIN, n2=PLAIN)
    assert {it.id for it in keep(PAIRED, {"s": written}, (position,)).examples} == kept


def test_a_trace_that_the_prompt_opened_is_one():
    written = {
        name: Response((1,), "hm", opened=name[1] != "2")
        for name in answers(p0="", n0="", p1="", n1="", p2="", n2="")
    }
    assert {it.id for it in keep(PAIRED, {"s": written}, ("think_mean",)).examples} == {
        "p0",
        "n0",
        "p1",
        "n1",
    }


def test_nothing_kept_is_an_error_with_the_counts_of_each_stage_and_label():
    written = {
        "base": answers(p0="", n0="a", p1="a", n1=" ", p2="", n2="a"),
        "sft": answers(p0="a", n0="a", p1="a", n1="a", p2="a", n2="a"),
    }
    with pytest.raises(DataError) as caught:
        keep(PAIRED, written)
    message = str(caught.value)
    assert "responses of base: label 0: 2 of 3 usable, 0 kept; label 1: 1 of 3 usable" in message
    assert "3 empty. responses of sft: label 0: 3 of 3 usable, 0 kept" in message
    assert "\n" not in message


def test_a_label_of_which_nothing_is_kept_is_an_error():
    alone = [dataclasses.replace(it, pair="") for it in PAIRED]
    with pytest.raises(DataError, match=r"label 1: 0 of 3 usable, 0 kept"):
        keep(alone, {"s": answers(p0="", n0="a", p1="", n1="a", p2="", n2="a")})


def test_responses_that_were_cut_are_counted():
    written = answers(p0="a", n0="a", p1="a", n1="a", p2="a", n2="a")
    written["p1"] = dataclasses.replace(written["p1"], is_cut=True)
    (tally,) = keep(PAIRED, {"s": written}).tallies
    assert tally.n_cut == 1
    assert str(tally).endswith("; 1 cut before their end")


def test_responses_without_labels_are_counted_together():
    prompts = [dataclasses.replace(it, label=None, pair="") for it in PAIRED]
    found = keep(prompts, {"s": answers(p0="a", n0="a", p1=" ", n1="a", p2="a", n2="a")})
    assert [it.id for it in found.examples] == ["p0", "n0", "n1", "p2", "n2"]
    (tally,) = found.tallies
    assert str(tally) == "responses of s: 5 of 6 usable, 5 kept; 1 empty"
    assert tally.describe()["kept"] == {"unlabelled": 5}
