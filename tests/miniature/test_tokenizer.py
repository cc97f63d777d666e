import string

import numpy as np
import pytest

from olmo_stages.miniature import corpus, tasks, world
from olmo_stages.miniature.tokenizer import TOKEN_ID, UNK, encode, make_tokenizer

MESSAGES = [
    {"role": "system", "content": "be kind ."},
    {"role": "user", "content": "3 + 4 = ?"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(chat=True, max_length=128)


def test_every_word_of_the_world_is_one_token(tokenizer):
    for word in world.words():
        assert tokenizer(word)["input_ids"] == [TOKEN_ID[word]]


def test_printable_ascii_is_never_unknown(tokenizer):
    texts = [f"x{a}{b} {a}" for a in string.printable for b in string.printable]
    assert all(TOKEN_ID[UNK] not in ids for ids in tokenizer(texts)["input_ids"])


def test_other_characters_are_unknown(tokenizer):
    assert TOKEN_ID[UNK] in tokenizer("\u4e16")["input_ids"]


@pytest.mark.parametrize("mix", corpus.MIXES)
def test_documents_decode_to_themselves_and_the_quick_encoder_agrees(tokenizer, mix):
    rng = np.random.default_rng(0)
    for name in mix:
        for _ in range(5):
            text = " ".join(piece for piece, _ in corpus.GENERATORS[name](rng))
            ids = tokenizer(text)["input_ids"]
            assert ids == encode(text)
            assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("form", ["direct", "steps", "thought", "verbose"])
def test_every_form_of_reply_is_made_of_words(tokenizer, form):
    rng = np.random.default_rng(0)
    for kind in tasks.KINDS:
        reply = getattr(tasks.draw(kind, rng), form)
        assert tokenizer(reply)["input_ids"] == encode(reply)


def test_offsets_point_at_the_characters_of_each_token(tokenizer):
    text = "Calder lies in\n the North, 3+4<think>x</think>"
    encoded = tokenizer(text, return_offsets_mapping=True)
    pieces = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert len(pieces) == 12
    for piece, (start, end) in zip(pieces, encoded["offset_mapping"], strict=True):
        assert text[start:end].lower() == piece.removeprefix("##")


def test_the_chat_template_gives_the_prompt_that_training_used(tokenizer):
    rendered = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert rendered == (
        "<|im_start|>system\nbe kind .<|im_end|>\n<|im_start|>user\n3 + 4 = ?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    assert ids == encode(corpus.chat_prompt("3 + 4 = ?", "be kind ."))


def test_traces_survive_decoding_without_special_tokens(tokenizer):
    ids = encode("<think> 3 + 4 = 7 </think> 7 <|im_end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think> 3 + 4 = 7 </think> 7"


def test_without_chat_there_is_no_template():
    assert make_tokenizer(chat=False, max_length=128).chat_template is None
