"""What each token says and what it is a part of, with real tokenizers built here."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from olmo_stages.data.formats import render
from olmo_stages.data.positions import resolve
from olmo_stages.data.readings import reading
from olmo_stages.data.spans import tokenize
from olmo_stages.errors import DataError, PairingError
from olmo_stages.types import Example, Message, Reading
from tests.chat_tokenizers import MERGES, THINK, byte_level

LONG = 1000


def word_piece():
    """As BERT's: lower case, no accents, words cut into pieces, [CLS] and [SEP] around a text."""
    words = ["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##ful", "we", "cafe", ",", "is"]
    vocab = {word: i for i, word in enumerate(words)}
    raw = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def trimming():
    """A byte-level BPE as GPT-2's, whose offsets leave out the space that a token begins with."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(
        models.BPE(
            vocab={c: i for i, c in enumerate([*alphabet, "Ġh", "Ġhi"])},
            merges=[("Ġ", "h"), ("Ġh", "i")],
        )
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=raw)


def text(content):
    return Example("x", "g", 1, text=content)


def chat(*contents):
    roles = ("user", "assistant") * len(contents)
    turns = zip(roles, contents, strict=False)
    return Example("x", "g", 1, messages=tuple(Message(role, said) for role, said in turns))


def read(example, tokenizer, *, format="auto", max_length=LONG):
    return reading(render(example, format, tokenizer), tokenizer, max_length)


def grouped(found):
    """Neighbouring tokens of one part put together."""
    runs: list[list[str]] = []
    for said, part in zip(found.texts, found.parts, strict=True):
        if runs and runs[-1][0] == part:
            runs[-1][1] += said
        else:
            runs.append([part, said])
    return [tuple(run) for run in runs]


# Texts


@pytest.mark.parametrize("said", ["a hi  hi\n", "é🙂 hi", "hi é", "日本 hi"])
@pytest.mark.parametrize("make", [byte_level, trimming])
def test_texts_of_byte_level_tokens_are_the_text(make, said):
    found = read(text(said), make())
    assert "".join(found.texts) == said
    assert found.token_ids == tokenize(render(text(said), "raw"), make(), LONG).token_ids


def test_a_space_stands_before_the_token_that_holds_it():
    tokenizer = trimming()
    offsets = tokenizer("a hi", return_offsets_mapping=True)["offset_mapping"]
    assert offsets == [(0, 1), (2, 4)]  # the space is trimmed
    assert read(text("a hi"), tokenizer).texts == ("a", " hi")


@pytest.mark.parametrize("make", [byte_level, trimming])
def test_a_character_of_several_tokens_stands_with_the_first(make):
    assert read(text("é🙂a"), make()).texts == ("é", "", "🙂", "", "", "", "a")


def test_tokens_that_hold_several_characters_say_them_all():
    assert read(text("<think>\na"), byte_level(merges=MERGES)).texts == ("<th", "ink", ">\n", "a")


def test_texts_of_word_pieces_are_those_of_the_data_not_of_the_vocabulary():
    found = read(text("We PLAYING,  café is zzz "), word_piece())
    expected = ("[CLS]", "We", " PLAY", "ING", ",", "  café", " is", " zzz", "[SEP]")
    assert found.texts == expected
    assert found.parts == ("special", *("text",) * 6, "special", "special")  # zzz is unknown


def test_a_token_that_the_tokenizer_adds_has_its_own_name():
    found = read(text("a"), byte_level(bos=True))
    assert found.texts == ("<|endoftext|>", "a")
    assert found.parts == ("special", "text")


def test_a_text_that_carries_the_bos_itself_does_not_say_it_twice():
    found = read(text("<|endoftext|>a"), byte_level(bos=True))
    assert found.texts == ("<|endoftext|>", "a")


def test_tokens_of_an_example_are_as_many_as_texts_and_parts():
    with pytest.raises(PairingError, match="example 'x': 2 tokens, 1 texts and 2 parts"):
        Reading("x", (1, 2), ("a",), ("text", "text"))


# Parts


def test_parts_of_a_chat_that_thinks():
    found = read(chat("cd", "<think>\na b\n</think>\nc", "e?", "<think>f</think>g"), byte_level())
    assert grouped(found) == [
        ("special", "<|im_start|>"),
        ("template", "user\n"),
        ("user", "cd"),
        ("special", "<|im_end|>"),
        ("template", "\n"),
        ("special", "<|im_start|>"),
        ("template", "assistant\n"),
        ("assistant", "<think>\na b\n</think>\nc"),  # an earlier turn, not the response
        ("special", "<|im_end|>"),
        ("template", "\n"),
        ("special", "<|im_start|>"),
        ("template", "user\n"),
        ("user", "e?"),
        ("special", "<|im_end|>"),
        ("template", "\n"),
        ("special", "<|im_start|>"),
        ("template", "assistant\n"),
        ("response", "<think>"),
        ("think", "f"),
        ("response", "</think>"),
        ("answer", "g"),
        ("special", "<|im_end|>"),
        ("template", "\n"),
    ]


def test_a_response_without_a_trace_is_all_response():
    found = read(chat("cd", "e f"), byte_level())
    assert ("response", "e f") in grouped(found)
    assert not {"think", "answer", "assistant"} & set(found.parts)


def test_a_trace_that_is_never_closed_has_no_answer():
    found = read(chat("cd", "<think>e f"), byte_level())
    assert ("think", "e f") in grouped(found)
    assert "answer" not in found.parts


def test_without_a_response_the_opening_is_template():
    found = read(chat("cd"), byte_level(THINK), format="chat_native")
    assert grouped(found)[-1] == ("template", "assistant\n<think>")
    assert ("user", "cd") in grouped(found)


def test_system_turns_have_their_role():
    example = Example("x", "g", 1, messages=(Message("system", "ab"), Message("user", "cd")))
    assert {("system", "ab"), ("user", "cd")} <= set(grouped(read(example, byte_level())))


@pytest.mark.parametrize("format", ["chat_fixed", "scaffold", "chat_native"])
@pytest.mark.parametrize("max_length", [LONG, 30, 24])
def test_parts_are_what_the_positions_read(format, max_length):
    tokenizer = byte_level(THINK)
    example = chat("say <b> é", "<think>\nf 🙂\n</think>\ng h é")
    rendered = render(example, format, tokenizer)
    found, prompt = (it(rendered, tokenizer, max_length) for it in (reading, tokenize))
    assert (prompt.n_dropped > 0) is (max_length < LONG)
    assert found.token_ids == prompt.token_ids

    def of(*parts):
        return {i for i, part in enumerate(found.parts) if part in parts and i > 0}

    def read_at(position):
        return set(resolve(prompt, position))

    assert of("think") == read_at("think_mean")
    assert of("answer") == read_at("answer_mean")
    assert of("think", "answer", "response") == read_at("response_mean")
    # The opening that a template writes itself stands in its turn, but belongs to the prompt.
    opening = read_at("tokens") & of("template")
    assert "".join(found.texts[i] for i in sorted(opening)) in {"", "<think>", "ink>"}
    content = of("think", "answer", "response", "user", "system", "assistant")
    assert content | opening == read_at("tokens")


# Truncation


@pytest.mark.parametrize("make", [byte_level, trimming])
@pytest.mark.parametrize("max_length", range(1, 9))
def test_what_is_cut_from_the_left_is_gone_and_the_rest_is_as_before(make, max_length):
    whole = read(text("é hi 🙂 hi"), make())
    cut = read(text("é hi 🙂 hi"), make(), max_length=max_length)
    for name in ("token_ids", "texts", "parts"):
        assert getattr(cut, name) == getattr(whole, name)[-max_length:]


def test_a_character_whose_first_token_is_cut_off_is_gone():
    assert read(text("🙂a"), byte_level(), max_length=3).texts == ("", "", "a")


def test_a_bos_stays_when_a_text_is_cut():
    found = read(text("abc"), byte_level(bos=True), max_length=2)
    assert found.texts == ("<|endoftext|>", "c")


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="no content token is left"):
        read(text("abc"), byte_level(bos=True), max_length=1)


# Where prompt and response merge


def test_prompt_and_response_that_are_tokenised_apart_read_as_the_text():
    tokenizer = byte_level(THINK)
    rendered = render(chat("x", "<think>\nab</think>c"), "chat_native", tokenizer)
    found = reading(rendered, tokenizer, LONG)
    assert tokenize(rendered, tokenizer, LONG).joined
    assert "".join(found.texts) == rendered.text
    assert grouped(found)[-6:] == [
        ("template", "assistant\n<think>"),
        ("response", "\n"),
        ("think", "ab"),
        ("response", "</think>"),
        ("answer", "c"),
        ("special", "<|endoftext|>"),
    ]
