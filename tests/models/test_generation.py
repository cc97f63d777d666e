import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
import torch

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models import generation
from olmo_stages.models.discovery import find_decoder
from olmo_stages.models.generation import Asked, Writing, write
from olmo_stages.models.loading import Loaded
from olmo_stages.models.memory import TokenBudget
from olmo_stages.models.stops import ends_of_text, stop_tokens
from olmo_stages.types import Stage
from tests.chat_tokenizers import byte_level
from tests.models.conftest import SHAPE

VOCABULARY = SHAPE["vocab_size"]
NO_STOPS = Writing(frozenset(), VOCABULARY)
STAGE = Stage("mine", "custom", "x")


@pytest.fixture
def loaded(models):
    return lambda family: Loaded(STAGE, models(family), find_decoder(models(family)))


def prompts(n=8, room=20):
    # Lengths in no order, from 1 to beyond the sliding window of 4.
    rng = np.random.default_rng(0)
    lengths = [1 + (5 * i) % 13 for i in range(n)]
    return [
        Asked(f"e{i}", tuple(rng.integers(2, VOCABULARY, length).tolist()), room)
        for i, length in enumerate(lengths)
    ]


def without_cache(model, asked):
    """The likeliest tokens, the whole text read anew for each: no cache, no padding, no batch."""
    ids = list(asked.token_ids)
    with torch.no_grad():
        for _ in range(asked.room):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(asked.token_ids) :])


@pytest.mark.parametrize("family", ["olmo3", "olmo2", "gemma3", "gpt2"])
def test_a_batch_writes_what_its_examples_write_alone(loaded, family):
    model = loaded(family)
    asked = prompts()
    single = write(model, asked, NO_STOPS, token_budget=1)
    batch = write(model, asked, NO_STOPS, token_budget=10_000)
    assert [it.token_ids for it in single] == [without_cache(model.model, it) for it in asked]
    assert batch == single
    assert len({it.token_ids for it in batch}) > 1


def test_a_response_ends_at_a_stop_and_is_cut_without_room(loaded):
    model = loaded("olmo3")
    (asked,) = prompts(1)
    whole = without_cache(model.model, asked)
    i = next(i for i in range(3, 20) if whole[i] not in whole[:i])
    stopping = dataclasses.replace(NO_STOPS, stops=frozenset({whole[i]}))
    (found,) = write(model, [asked], stopping, token_budget=99)
    assert found == generation.Written(whole[:i], is_cut=False)
    # With room for all but the stop, nobody knows that it would have come.
    (cut,) = write(model, [dataclasses.replace(asked, room=i)], stopping, token_budget=99)
    assert cut == generation.Written(whole[:i], is_cut=True)


def test_a_response_may_be_empty(loaded):
    model = loaded("olmo3")
    (asked,) = prompts(1)
    first = without_cache(model.model, asked)[0]
    stopping = dataclasses.replace(NO_STOPS, stops=frozenset({first}))
    assert write(model, [asked], stopping, token_budget=9) == [generation.Written((), is_cut=False)]


def test_rows_that_end_leave_the_others_as_they_are(loaded):
    model = loaded("olmo3")
    asked = [dataclasses.replace(it, room=1 + 3 * (i % 5)) for i, it in enumerate(prompts())]
    found = write(model, asked, NO_STOPS, token_budget=10_000)
    assert [it.token_ids for it in found] == [without_cache(model.model, it) for it in asked]
    assert all(it.is_cut for it in found)


def test_what_ends_a_text_may_be_seen_later_and_is_taken_back(loaded):
    model = loaded("olmo3")
    (asked,) = prompts(1)
    whole = without_cache(model.model, asked)
    writing = dataclasses.replace(NO_STOPS, ends=lambda ids: 4 if len(ids) == 6 else None)
    (found,) = write(model, [asked], writing, token_budget=99)
    assert found == generation.Written(whole[:4], is_cut=False)


def test_no_token_is_written_that_the_tokenizer_does_not_have(loaded):
    model = loaded("olmo3")
    asked = prompts()
    free = {
        token for it in write(model, asked, NO_STOPS, token_budget=999) for token in it.token_ids
    }
    half = sorted(free)[len(free) // 2]
    found = write(model, asked, dataclasses.replace(NO_STOPS, n_tokens=half), token_budget=999)
    assert max(token for it in found for token in it.token_ids) < half <= max(free)


SAMPLED = dataclasses.replace(NO_STOPS, temperature=1.0, seed=3)


def test_neither_batch_nor_order_change_what_is_sampled(loaded):
    model = loaded("olmo3")
    asked = prompts()
    single = write(model, asked, SAMPLED, token_budget=1)
    batch = write(model, asked, SAMPLED, token_budget=10_000)
    backwards = write(model, asked[::-1], SAMPLED, token_budget=150)
    assert batch == single == backwards[::-1]
    greedy = write(model, asked, NO_STOPS, token_budget=10_000)
    other_seed = write(model, asked, dataclasses.replace(SAMPLED, seed=4), token_budget=10_000)
    assert all(a != b for a, b in zip(batch, greedy, strict=True))
    assert all(a != b for a, b in zip(batch, other_seed, strict=True))


def test_each_example_draws_from_a_stream_of_its_own(loaded):
    model = loaded("olmo3")
    (asked,) = prompts(1)
    twins = [dataclasses.replace(asked, id=name) for name in ("a", "b", "a")]
    one, other, same = write(model, twins, SAMPLED, token_budget=999)
    assert one == same != other


@pytest.mark.parametrize("temperature", [0.1, 0.4])
def test_samples_have_the_probabilities_of_the_softmax(loaded, temperature):
    model = loaded("olmo3")
    (asked,) = prompts(1)
    n = 4000
    many = [dataclasses.replace(asked, id=str(i), room=1) for i in range(n)]
    writing = dataclasses.replace(SAMPLED, temperature=temperature)
    found = [it.token_ids[0] for it in write(model, many, writing, token_budget=2 * n)]
    with torch.no_grad():
        logits = model.model(torch.tensor([asked.token_ids])).logits[0, -1].double()

    def p_value(at):
        expected = n * torch.softmax(logits / at, dim=-1).numpy()
        order = np.argsort(expected)
        # From the rarest token up, classes of at least five expected draws, as the test wants it.
        classes = np.minimum((np.cumsum(expected[order]) // 5).astype(int), 60)
        counts = np.bincount(found, minlength=VOCABULARY)[order]
        sums = [
            np.bincount(classes, weights=it)[np.unique(classes)] for it in (counts, expected[order])
        ]
        return scipy.stats.chisquare(*sums).pvalue

    assert p_value(temperature) > 0.001
    assert p_value(1.5 * temperature) < 1e-6  # the control: another temperature is told apart


def test_too_little_memory_halves_the_batch_and_changes_nothing(loaded, monkeypatch):
    model = loaded("olmo3")
    asked = prompts()
    real, sizes, said = generation._Batch.run, [], []

    def run(self):
        sizes.append(len(self._rows))
        if len(self._rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self)

    monkeypatch.setattr(generation._Batch, "run", run)
    found = write(model, asked, NO_STOPS, token_budget=TokenBudget(10_000, said.append))
    monkeypatch.undo()
    assert found == write(model, asked, NO_STOPS, token_budget=10_000)
    assert sizes[0] == 8
    assert all("out of memory with a batch of" in line for line in said)
    assert said


def test_one_example_for_which_memory_does_not_suffice_is_an_error(loaded, monkeypatch):
    def run(_self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation._Batch, "run", run)
    with pytest.raises(ModelError, match=r"one example of 21 tokens"):
        write(loaded("olmo3"), prompts(1), NO_STOPS, token_budget=99)


def test_scores_that_are_not_finite_are_refused(fresh_model):
    model = fresh_model("olmo3")
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    broken = Loaded(STAGE, model, find_decoder(model))
    with pytest.raises(NonFiniteError, match=r"response to example 'e0'.*compute.dtype=float32"):
        write(broken, prompts(2), NO_STOPS, token_budget=99)


def test_ids_without_an_embedding_are_refused(loaded):
    with pytest.raises(ModelError, match=r"'e'.*97 embeddings"):
        write(loaded("olmo3"), [Asked("e", (3, 97), 4)], NO_STOPS, token_budget=99)


# Where a response ends


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    return tmp_path


def test_ends_of_text_come_from_both_configs(checkpoint):
    assert ends_of_text(checkpoint) == (7,)
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [9, 3]}))
    assert ends_of_text(checkpoint) == (3, 7, 9)


def test_every_special_token_stops_and_the_tags_of_a_trace_do_not(checkpoint):
    tokenizer = byte_level()
    special = set(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))
    assert special | {7} <= stop_tokens(checkpoint, tokenizer)
    stopping = stop_tokens(checkpoint, tokenizer)
    tagged = byte_level(merges=("a b",))  # a tokenizer of its own, which the test may change
    tagged.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    tags = set(tagged.convert_tokens_to_ids(["<think>", "</think>"]))
    assert not tags & stop_tokens(checkpoint, tagged)
    assert tags & set(tagged.all_special_ids)  # they would be, as special tokens
    assert not stopping & set(tokenizer("plain words")["input_ids"])


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_generation_config_that_is_none_is_one_line(checkpoint, content):
    (checkpoint / "generation_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"generation_config.json"):
        ends_of_text(checkpoint)
