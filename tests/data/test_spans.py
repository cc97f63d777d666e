"""With real tokenizers built here: one that merges across template and content, one with BOS."""

import string
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from olmo_stages.data.formats import render
from olmo_stages.data.positions import left_out, reads_sink, resolve
from olmo_stages.data.spans import Prompt, TokenSpan, tokenize
from olmo_stages.errors import DataError, ModelError
from olmo_stages.types import Example, Message

MARKERS = ["<|im_start|>", "<|im_end|>"]
LONG = 1000


@cache
def characters(merges=(), *, markers=True, bos=False, eos=False):
    """One token a character, but for the merges; the turn markers are tokens or plain text."""
    symbols = [*string.printable, *(a + b for a, b in merges), "<s>", "</s>"]
    vocab = {symbol: i for i, symbol in enumerate(symbols)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    raw.decoder = decoders.Fuse()
    raw.add_special_tokens(["<s>", "</s>", *(MARKERS if markers else [])])
    if bos or eos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{'<s> ' * bos}$A{' </s>' * eos}",
            special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, additional_special_tokens=MARKERS if markers else []
    )


def text(content):
    return Example("x", "g", 1, text=content)


def prompt_of(example, tokenizer, *, format="auto", max_length=LONG):
    return tokenize(render(example, format), tokenizer, max_length)


def tokens(prompt, tokenizer, indices):
    return [tokenizer.convert_ids_to_tokens(prompt.token_ids[i]) for i in indices]


CHAT = Example(
    "c",
    "g",
    1,
    messages=(Message("system", "ab"), Message("user", "cd"), Message("assistant", "e")),
)


# Where template and content meet


def test_content_of_a_clean_tokenizer_is_the_content():
    tokenizer = characters()
    prompt = prompt_of(text("hi"), tokenizer, format="chat_fixed")
    assert tokens(prompt, tokenizer, prompt.content_tokens) == ["h", "i"]


def test_a_token_that_straddles_the_start_counts_as_content():
    tokenizer = characters(merges=(("\n", "h"),))
    prompt = prompt_of(text("hi"), tokenizer, format="chat_fixed")
    assert tokens(prompt, tokenizer, prompt.content_tokens) == ["\nh", "i"]
    assert tokens(prompt, tokenizer, resolve(prompt, "first_content")) == ["\nh"]


def test_a_token_that_straddles_the_end_counts_as_content():
    tokenizer = characters(merges=(("i", "<"),), markers=False)
    prompt = prompt_of(text("hi"), tokenizer, format="chat_fixed")
    assert tokens(prompt, tokenizer, resolve(prompt, "last_content")) == ["i<"]


@pytest.mark.parametrize(("merges", "joined"), [((), False), ((("\n", "h"),), True)])
def test_prompt_ids_are_a_prefix_of_prompt_and_response(merges, joined):
    answered = Example("c", "g", 1, messages=(Message("user", "x"), Message("assistant", "hi")))
    asked = Example("c", "g", 1, messages=answered.messages[:1])
    tokenizer = characters(merges)
    whole, prompt = prompt_of(answered, tokenizer), prompt_of(asked, tokenizer)
    n = len(prompt.token_ids)
    # In one go the merge would straddle the two.
    together = tokenizer(render(answered, "auto").text)["input_ids"]
    assert (tuple(together[:n]) == prompt.token_ids) is not joined
    assert whole.token_ids[:n] == prompt.token_ids
    assert (whole.n_prompt, whole.joined) == (n, joined)
    assert tokens(whole, tokenizer, whole.response_tokens) == ["h", "i"]
    assert (prompt.n_prompt, prompt.joined) == (None, False)


def test_what_is_joined_reads_as_the_text():
    tokenizer = characters((("\n", "h"),), bos=True, eos=True)
    answered = Example("c", "g", 1, messages=(Message("user", "x"), Message("assistant", "hi")))
    prompt = prompt_of(answered, tokenizer)
    assert prompt.joined
    read = "".join(tokens(prompt, tokenizer, range(len(prompt.token_ids))))
    assert read == "<s>" + render(answered, "auto").text


def test_a_merge_elsewhere_is_left_alone():
    answered = Example("c", "g", 1, messages=(Message("user", "hi"), Message("assistant", "x")))
    prompt = prompt_of(answered, characters((("h", "i"),)))
    assert not prompt.joined


def test_all_bytes_of_a_character_are_content():
    byte_level = Tokenizer(
        models.BPE(
            vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]
        )
    )
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    prompt = prompt_of(text("é🙂"), PreTrainedTokenizerFast(tokenizer_object=byte_level))
    assert prompt.content == (TokenSpan(0, 6, "text"),)
    assert len(prompt.token_ids) == 6


# Special tokens


@pytest.mark.parametrize("format", ["raw", "scaffold", "chat_fixed"])
@pytest.mark.parametrize("bos", [False, True])
def test_a_bos_that_the_tokenizer_adds_stands_once(format, bos):
    tokenizer = characters(bos=bos)
    prompt = prompt_of(text("hi"), tokenizer, format=format)
    own = tokenizer.convert_tokens_to_ids("<s>")
    assert prompt.token_ids.count(own) == bos
    assert (prompt.token_ids[0] == own) is bos


@pytest.mark.parametrize("eos", [False, True])
def test_a_text_that_carries_what_the_tokenizer_adds_has_it_once(eos):
    tokenizer = characters(bos=True, eos=eos)
    plain, carrying = prompt_of(text("hi"), tokenizer), prompt_of(text("<s>hi"), tokenizer)
    assert carrying.token_ids == plain.token_ids
    assert tokens(carrying, tokenizer, carrying.content_tokens) == ["h", "i"]
    both = prompt_of(text("<s>hi</s>"), tokenizer)
    assert tokens(both, tokenizer, range(len(both.token_ids))) == ["<s>", "h", "i", "</s>"]


def test_a_text_keeps_the_special_tokens_that_the_tokenizer_does_not_add():
    tokenizer = characters()
    prompt = prompt_of(text("<s>hi</s>"), tokenizer)
    assert tokens(prompt, tokenizer, range(4)) == ["<s>", "h", "i", "</s>"]


@pytest.mark.parametrize("format", ["scaffold", "chat_fixed"])
def test_no_eos_follows_where_the_answer_begins(format):
    tokenizer = characters(eos=True)
    prompt = prompt_of(text("hi"), tokenizer, format=format)
    assert "</s>" not in tokens(prompt, tokenizer, range(len(prompt.token_ids)))
    raw = prompt_of(text("hi"), tokenizer, format="raw")
    assert tokens(raw, tokenizer, resolve(raw, "last")) == ["</s>"]


def test_bos_and_eos_are_special_and_not_content():
    prompt = prompt_of(text("hi"), characters(bos=True, eos=True))
    assert prompt.special == (True, False, False, True)
    assert prompt.content == (TokenSpan(1, 3, "text"),)


def test_turn_markers_are_special():
    tokenizer = characters()
    prompt = prompt_of(text("h"), tokenizer, format="chat_fixed")
    special = [i for i, is_special in enumerate(prompt.special) if is_special]
    assert tokens(prompt, tokenizer, special) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_a_special_token_inside_a_text_is_no_content_token():
    tokenizer = characters()
    prompt = prompt_of(text("a</s>"), tokenizer)
    assert tokens(prompt, tokenizer, resolve(prompt, "last_content")) == ["a"]
    assert tokens(prompt, tokenizer, resolve(prompt, "last")) == ["</s>"]


# Positions


def test_positions_of_a_chat():
    tokenizer = characters()
    prompt = prompt_of(CHAT, tokenizer)
    assert [span.role for span in prompt.content] == ["system", "user", "assistant"]
    assert tokens(prompt, tokenizer, resolve(prompt, "mean")) == list("abcde")
    assert tokens(prompt, tokenizer, resolve(prompt, "first_content")) == ["a"]
    assert tokens(prompt, tokenizer, resolve(prompt, "last_content")) == ["e"]
    assert resolve(prompt, "last") == (len(prompt.token_ids) - 1,)


def test_mean_leaves_out_the_attention_sink():
    assert resolve(prompt_of(text("abc"), characters()), "mean") == (1, 2)


def test_mean_keeps_the_first_content_token_behind_a_bos():
    assert resolve(prompt_of(text("abc"), characters(bos=True)), "mean") == (1, 2, 3)


def test_mean_of_a_single_token_is_that_token():
    assert resolve(prompt_of(text("a"), characters()), "mean") == (0,)


# Truncation


def test_what_fits_is_not_cut():
    assert prompt_of(text("abcdef"), characters(), max_length=6).n_dropped == 0


def test_the_oldest_tokens_are_cut_and_counted():
    tokenizer = characters()
    prompt = prompt_of(text("abcdef"), tokenizer, max_length=2)
    assert tokens(prompt, tokenizer, range(2)) == ["e", "f"]
    assert prompt.content == (TokenSpan(0, 2, "text"),)
    assert prompt.n_dropped == 4


def test_a_cut_text_keeps_its_bos_and_eos():
    tokenizer = characters(bos=True, eos=True)
    prompt = prompt_of(text("abcdef"), tokenizer, max_length=4)
    assert tokens(prompt, tokenizer, range(4)) == ["<s>", "e", "f", "</s>"]
    assert prompt.n_dropped == 4
    assert resolve(prompt, "mean") == (1, 2)


def test_a_cut_template_keeps_none_of_its_beginning():
    tokenizer = characters()
    whole = prompt_of(CHAT, tokenizer)
    cut = prompt_of(CHAT, tokenizer, max_length=16)
    assert cut.token_ids == whole.token_ids[-16:]
    assert [span.role for span in cut.content] == ["assistant"]


@pytest.mark.parametrize("max_length", [1, 2])
def test_no_content_left_is_an_error(max_length):
    with pytest.raises(DataError, match="example 'x': no content token is left in a context of"):
        prompt_of(text("abcdef"), characters(bos=True, eos=True), max_length=max_length)


def test_only_template_left_is_an_error():
    with pytest.raises(DataError, match="no content token is left in a context of 5 tokens"):
        prompt_of(text("abcdef"), characters(), format="chat_fixed", max_length=5)


# Tokenizers that will not do


class WithoutOffsets:
    all_special_ids = ()

    def __call__(self, *_, **__):
        return {"input_ids": [1], "special_tokens_mask": [0]}

    def convert_ids_to_tokens(self, ids):
        return str(ids)


class Slow(WithoutOffsets):
    def __call__(self, *_, **__):
        raise NotImplementedError


@pytest.mark.parametrize("tokenizer", [Slow(), WithoutOffsets()])
def test_a_tokenizer_without_offsets_is_refused(tokenizer):
    with pytest.raises(ModelError, match="fast tokenizer"):
        prompt_of(text("a"), tokenizer)


def test_content_tokens_are_ascending_and_unique():
    spans = (TokenSpan(0, 2, "user"), TokenSpan(1, 3, "assistant"))
    assert Prompt("x", (5, 6, 7), spans, (False, False, False), 0).content_tokens == (0, 1, 2)


# Tokens as rows, and what is left out


def test_tokens_are_those_of_the_mean():
    tokenizer = characters(bos=True)
    for prompt in (prompt_of(CHAT, tokenizer), prompt_of(text("abc"), tokenizer)):
        assert resolve(prompt, "tokens") == resolve(prompt, "mean")
        assert len(resolve(prompt, "tokens")) >= 3
    assert resolve(prompt_of(text("abc"), characters()), "tokens") == (1, 2)


def test_tokens_of_a_single_token_are_that_token():
    assert resolve(prompt_of(text("a"), characters()), "tokens") == (0,)


@pytest.mark.parametrize("position", ["mean", "tokens"])
def test_left_out_of_a_raw_text(position):
    # <s> is the sink; </s> inside and at the end are special; a, b, c are read.
    prompt = prompt_of(text("ab</s>c"), characters(bos=True, eos=True))
    assert left_out(prompt, position) == {"sink": 1, "special": 2, "template": 0}
    # Without BOS the sink is the first content token.
    prompt = prompt_of(text("abc"), characters())
    assert left_out(prompt, position) == {"sink": 1, "special": 0, "template": 0}
    assert not reads_sink(prompt, position)


def test_left_out_of_a_chat():
    # Each turn: <|im_start|> role \n content <|im_end|> \n; in the end <|im_start|> assistant \n.
    prompt = prompt_of(text("hi"), characters(), format="chat_fixed")
    template = len("user\n") + len("\n") + len("assistant\n")
    assert left_out(prompt, "tokens") == {"sink": 1, "special": 2, "template": template}
    assert len(prompt.token_ids) == 1 + 2 + template + len("hi")


@pytest.mark.parametrize("max_length", [20, 30, LONG])
@pytest.mark.parametrize("example", [CHAT, text("abc</s>d" * 5)])
def test_what_is_read_and_what_is_left_out_add_up(example, max_length):
    prompt = prompt_of(example, characters(bos=True, eos=True), max_length=max_length)
    n = len(resolve(prompt, "tokens")) + sum(left_out(prompt, "tokens").values())
    assert n == len(prompt.token_ids)


def test_a_lone_sink_is_read_and_not_left_out():
    prompt = prompt_of(text("a"), characters(eos=True))
    assert left_out(prompt, "tokens") == {"sink": 0, "special": 1, "template": 0}
    assert reads_sink(prompt, "tokens")
    assert reads_sink(prompt, "mean")
    assert not reads_sink(prompt_of(text("ab"), characters(eos=True)), "tokens")


def test_single_tokens_leave_nothing_out_but_may_be_the_sink():
    prompt = prompt_of(text("abc"), characters())
    assert left_out(prompt, "last") == left_out(prompt, "first_content") == {}
    assert reads_sink(prompt, "first_content")
    assert not reads_sink(prompt, "last")
    assert not reads_sink(prompt_of(text("abc"), characters(bos=True)), "first_content")


def test_the_sink_after_truncation_is_the_first_token_that_is_left():
    prompt = prompt_of(text("abcdef"), characters(), max_length=3)
    assert resolve(prompt, "tokens") == (1, 2)
    assert left_out(prompt, "tokens") == {"sink": 1, "special": 0, "template": 0}
