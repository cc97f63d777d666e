"""Chats completed by stages, over two untrained models that write nonsense, reproducibly."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from olmo_stages.activations import responding, upkeep, written
from olmo_stages.activations.cleaning import Limits, gc
from olmo_stages.activations.entry import read_entry
from olmo_stages.activations.extraction import Source
from olmo_stages.activations.responses import Completion
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import Generation, Respond
from olmo_stages.errors import DataError, ModelError, PairingError, StoreError
from olmo_stages.models import generation
from olmo_stages.models.compute import Compute
from olmo_stages.types import Example, Message, Stage
from tests.chat_tokenizers import THINK, byte_level, small_model

N_NEW = 6


def chats(n=6):
    # Several lengths; the system prompts make pairs.
    return tuple(
        Example(
            f"{side}{i}",
            f"g{i}",
            int(side == "p"),
            messages=(
                Message("system", f"be {'kind' if side == 'p' else 'rude'} ."),
                Message(
                    "user",
                    "can you lend me " * (1 + i % 3)
                    + f"a {('pen', 'cup', 'hat', 'lamp', 'rope', 'coin')[i]} ?",
                ),
            ),
            pair=f"{i}",
        )
        for i in range(n)
        for side in "pn"
    )


def data(by, *, format="chat_fixed", examples=None, **options):
    options = Generation(**{"max_new_tokens": N_NEW} | options)
    return Dataset("chats", examples or chats(), format, respond=Respond(by, options))


@pytest.fixture
def stages(checkpoints):
    return [Stage(f"s{i}", "custom", str(path)) for i, path in enumerate(checkpoints)]


@pytest.fixture
def source_of(tmp_path, store, stages):
    def make(dataset, *, compared=None, where=None, positions=(), token_budget=10_000):
        by = dataset.respond.by
        completion = Completion(
            tuple(stages if compared is None else compared),
            None if by == "own" else next(it for it in stages if it.label == by),
            positions,
        )
        compute = Compute("cpu", "float32", token_budget, None)
        return Source(
            dataset, compute, tmp_path / "cache", store=where or store, completion=completion
        )

    return make


def refuse_to_load(monkeypatch):
    monkeypatch.setattr(
        "olmo_stages.models.loading.load", lambda *_, **__: pytest.fail("a model was loaded")
    )


def said(source, stage):
    return {k: it.token_ids for k, it in source.completed.dataset(stage).responses.items()}


# Who reads what


def test_replayed_responses_are_the_same_tokens_in_every_stage(source_of, stages):
    source = source_of(data("s0"))
    one, other = (source(it, position="response_mean") for it in stages)
    assert one.token_ids == other.token_ids
    assert one.ids == other.ids == tuple(it.id for it in source.examples)
    assert not np.allclose(one.values, other.values)
    # The control: each by itself would have written something else.
    own = source_of(data("own"))
    mine, theirs = (own(it, position="response_mean") for it in stages)
    assert mine.token_ids == one.token_ids
    assert theirs.token_ids != one.token_ids
    assert theirs.ids == one.ids


def test_what_is_read_is_the_prompt_and_what_was_written_to_it(source_of, stages):
    source = source_of(data("s1"))
    found = source(stages[0])
    responses = said(source, stages[0])
    bare = Source(
        dataclasses.replace(data("s1"), respond=None),
        Compute("cpu", "float32", 999, None),
        source._cache,
        store=source._store,
    )(stages[0])
    assert bare.ids == found.ids
    for name, prompt, whole in zip(found.ids, bare.token_ids, found.token_ids, strict=True):
        written_to_it = responses[name]
        assert len(written_to_it) == N_NEW
        assert whole[: len(prompt)] == prompt
        assert whole[len(prompt) : len(prompt) + N_NEW] == written_to_it


def test_a_random_initialisation_reads_the_trained_stages_responses(source_of, stages):
    source = source_of(data("own"))
    trained = source(stages[0])
    random = source(dataclasses.replace(stages[0], random_init=0))
    assert random.token_ids == trained.token_ids
    assert not np.allclose(random.values, trained.values)


def test_a_stage_that_is_not_compared_has_no_own_responses(source_of, stages):
    source = source_of(data("own"), compared=stages[:1])
    with pytest.raises(PairingError, match=r"s1 is not one of the stages .*\(s0\)"):
        source(stages[1])
    replayed = source_of(data("s0"), compared=stages[:1])
    assert replayed(stages[1]).token_ids == source(stages[0]).token_ids


def test_the_data_of_a_pass_are_the_completed_texts(source_of, stages):
    replay, own = source_of(data("s0")), source_of(data("own"))
    bare = dataclasses.replace(data("s0"), respond=None).digest
    assert replay.identity(stages[0]).data == replay.identity(stages[1]).data != bare
    assert own.identity(stages[0]) == replay.identity(stages[0])
    assert own.identity(stages[1]).data not in {own.identity(stages[0]).data, bare}
    longer = source_of(data("s0", max_new_tokens=N_NEW + 1))
    assert longer.identity(stages[0]).data != replay.identity(stages[0]).data


def test_readings_show_the_response(source_of, stages):
    source = source_of(data("s0"))
    first = source.readings(stages[1])[0]
    assert first.token_ids == source(stages[1]).token_ids[0]
    assert first.parts.count("response") >= N_NEW - 1


def test_a_stage_of_another_vocabulary_is_refused(source_of, tmp_path):
    other = small_model(tmp_path / "other", byte_level())
    source = source_of(data("s0"))
    with pytest.raises(ModelError, match=r"data.respond=own"):
        source(Stage("other", "custom", str(other)))


# What is kept


def fake(monkeypatch, texts):
    """Responses by label of the stage and id of the example; 'said' where none is given."""

    def respond(self, stages):
        return {
            stage: {
                it.id: written.Response((7, 8), texts.get((stage.label, it.id), "said"))
                for it in self._dataset.examples
            }
            for stage in stages
        }

    monkeypatch.setattr(Source, "_respond", respond)


def test_own_responses_keep_the_pairs_that_every_stage_has(source_of, stages, monkeypatch):
    fake(monkeypatch, {("s0", "p1"): "", ("s1", "n4"): " "})
    wanted = [f"{side}{i}" for i in (0, 2, 3, 5) for side in "pn"]
    own = source_of(data("own"))
    assert [it.id for it in own.examples] == wanted
    assert [list(own.completed.dataset(it).responses) for it in stages] == [wanted, wanted]
    alone = source_of(data("s0"))
    assert len(alone.examples) == 10
    assert [it.n_cut for it in own.completed.kept.tallies] == [0, 0]


def test_what_was_kept_is_told_for_each_stage_and_label(source_of, monkeypatch):
    fake(monkeypatch, {("s0", "p1"): "", ("s1", "n4"): " "})
    own = source_of(data("own")).completed
    mode, first, second = own.warnings
    assert mode.startswith("responses: own (greedy, at most 6 tokens); each stage reads what it")
    assert first == (
        "responses of s0: label 0: 6 of 6 usable, 4 kept; label 1: 5 of 6 usable, 4 kept; 1 empty"
    )
    assert second.startswith("responses of s1: label 0: 5 of 6 usable, 4 kept; label 1: 6 of 6")
    record = json.loads(json.dumps(own.describe()))
    assert record["mode"] == "own"
    assert record["generation"] == {"max_new_tokens": 6, "temperature": 0.0, "seed": 0}
    assert [it["kept"] for it in record["stages"]] == [{"1": 4, "0": 4}] * 2
    replay = source_of(data("s0")).completed
    assert replay.warnings[0] == (
        "responses: replay of s0 (greedy, at most 6 tokens); every stage reads the same tokens"
    )


def test_nothing_kept_is_an_error_before_any_pass(source_of, stages, monkeypatch):
    fake(monkeypatch, {("s0", it.id): "" for it in chats()})
    refuse_to_load(monkeypatch)
    with pytest.raises(DataError, match=r"responses of s0: label 0: 0 of 6 usable, 0 kept"):
        source_of(data("own")).identity(stages[1])


def test_too_few_groups_left_is_an_error_with_the_counts(source_of, monkeypatch):
    fake(monkeypatch, {("s0", f"p{i}"): "" for i in range(1, 6)})
    with pytest.raises(DataError, match=r"label 0 are in group 'g0'.*1 of 6 usable") as caught:
        source_of(data("s0")).completed.digest  # noqa: B018
    assert caught.value.__context__ is None  # or the command line would tell that one alone


def test_what_is_not_in_the_response_is_not_asked_of_it(source_of, monkeypatch):
    fake(monkeypatch, {("s0", "p1"): "<think>hm", ("s0", "p2"): "<think>hm</think>yes"})
    assert len(source_of(data("s0"), positions=("response_mean",)).examples) == 12
    with pytest.raises(DataError, match=r"11 without an answer behind a trace"):
        source_of(data("s0"), positions=("answer_mean",)).examples  # noqa: B018


# The store


def test_responses_are_written_once(source_of, stages, monkeypatch):
    first = source_of(data("s0"))
    responses = said(first, stages[0])
    refuse_to_load(monkeypatch)
    assert said(source_of(data("s0")), stages[1]) == responses
    # Labels and groups are no part of what is asked.
    other = tuple(dataclasses.replace(it, group=f"other{it.group}") for it in chats())
    assert said(source_of(data("s0", examples=other)), stages[1]) == responses


@pytest.mark.parametrize(
    "change",
    [
        {"max_new_tokens": 5},
        {"temperature": 1.0},
        {"format": "scaffold"},
        {"examples": chats(5)},
    ],
    ids=["room", "temperature", "format", "examples"],
)
def test_what_changes_a_response_is_another_entry(source_of, stages, store, change):
    source_of(data("s0")).identity(stages[0])
    source_of(data("s0", **change)).identity(stages[0])
    assert len(list(store.root.glob(f"*/*/{written.FOLDER}/manifest.json"))) == 2


def test_the_end_of_text_is_part_of_what_identifies_a_response(source_of, stages, store, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in Path(stages[0].source).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 60]}))
    source = source_of(data("own"), compared=[Stage("copy", "custom", str(copy)), stages[0]])
    source.identity(stages[0])
    assert len(list(store.root.glob(f"*/*/{written.FOLDER}/manifest.json"))) == 2


def test_batch_size_changes_no_response(source_of, stages, tmp_path):
    one = source_of(data("s0"), where=Store(tmp_path / "one"), token_budget=1)
    many = source_of(data("s0"), where=Store(tmp_path / "many"))
    assert said(one, stages[0]) == said(many, stages[0])
    assert one.identity(stages[0]) == many.identity(stages[0])


def test_an_interrupted_writer_is_continued(source_of, stages, monkeypatch):
    monkeypatch.setattr(written, "SHARD_RESPONSES", 4)
    asked = []
    real = generation.write

    def write(loaded, prompts, *args, **options):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append([it.id for it in prompts])
        return real(loaded, prompts, *args, **options)

    monkeypatch.setattr(generation, "write", write)
    with pytest.raises(KeyboardInterrupt):
        source_of(data("s0")).identity(stages[0])
    done, asked[:] = list(asked), [None]
    found = said(source_of(data("s0")), stages[0])
    (last,) = asked[1:]  # the two shards that were whole are not written again
    assert sorted([*done[0], *done[1], *last]) == sorted(found)


def test_damage_is_told_with_its_remedy(source_of, stages, store):
    source_of(data("s0")).identity(stages[0])
    (part,) = store.root.glob("*/*/responses/*.jsonl")
    whole = part.read_text()
    part.write_text(whole.replace("id", "ie", 1))
    with pytest.raises(StoreError, match=r"damaged.*delete the folder"):
        source_of(data("s0")).identity(stages[0])
    part.write_text(whole)
    assert source_of(data("s0")).identity(stages[0])


def test_the_store_lists_verifies_and_removes_responses(source_of, stages, store):
    with source_of(data("s0")) as source:
        source.identity(stages[0])
    (row,) = upkeep.ls(store)
    assert (row.state, row.stage, row.captures, row.n_layers, row.n_examples) == (
        "complete",
        "s0",
        ("responses",),
        0,
        12,
    )
    assert [it.problem for it in upkeep.verify(store)] == [""]
    assert gc(store).removed == []
    (part,) = row.folder.glob("*.jsonl")
    part.write_bytes(part.read_bytes()[:-1])
    (broken,) = upkeep.verify(store)
    assert broken.state == "damaged"
    assert [it.folder for it in gc(store, Limits(damaged=True)).removed] == [row.folder]
    assert not row.folder.exists()


def test_no_file_of_the_store_is_a_pickle(source_of, stages, store):
    source_of(data("s0")).identity(stages[0])
    (manifest,) = store.root.glob("*/*/responses/manifest.json")
    assert read_entry(manifest.parent).ids == tuple(it.id for it in chats())
    (part,) = manifest.parent.glob("*.jsonl")
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    assert {len(it["token_ids"]) for it in rows} == {N_NEW}
    assert all(it["is_cut"] and it["text"] for it in rows)


PROCESS = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from olmo_stages.models import generation
    from tests.activations.test_responses import N_NEW, chats, data
    from olmo_stages.activations.extraction import Source
    from olmo_stages.activations.responses import Completion
    from olmo_stages.activations.store import Store
    from olmo_stages.models.compute import Compute
    from olmo_stages.types import Stage

    real, n = generation.write, []
    def write(loaded, asked, *args, **options):
        time.sleep(0.5)
        n.extend(asked)
        return real(loaded, asked, *args, **options)
    generation.write = write
    import olmo_stages.models.loading
    stage = Stage("s0", "custom", {path!r})
    print("ready", flush=True)
    source = Source(data("s0"), Compute("cpu", "float32", 999, 1), Path({cache!r}),
        store=Store(Path({store!r}), heartbeat_s=5.0), completion=Completion((stage,), stage))
    source.identity(stage)
    print(len(n))
"""


def test_two_processes_write_each_response_once(stages, tmp_path, monkeypatch):
    # This process is the other one.
    real, asked = generation.write, []

    def write(loaded, wanted, *args, **options):
        time.sleep(0.5)
        asked.extend(wanted)
        return real(loaded, wanted, *args, **options)

    monkeypatch.setattr(generation, "write", write)
    root = str(Path(__file__).parents[2])
    places = {"cache": str(tmp_path / "cache"), "store": str(tmp_path / "store")}
    script = textwrap.dedent(PROCESS).format(root=root, path=stages[0].source, **places)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", script]
    other = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
    assert other.stdout.readline() == "ready\n"
    source = Source(
        data("s0"),
        Compute("cpu", "float32", 999, 1),
        tmp_path / "cache",
        store=Store(tmp_path / "store", heartbeat_s=5.0),
        completion=Completion((stages[0],), stages[0]),
    )
    source.identity(stages[0])
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    assert len(asked) + int(out) == len(chats())


# Prompts


def test_a_prompt_that_leaves_no_room_is_named(source_of, stages):
    long = dataclasses.replace(
        chats()[0], messages=(Message("user", "can you lend me a pen ? " * 80),)
    )
    with pytest.raises(DataError, match=r"'p0' has a prompt of \d+ tokens.*512 of s0"):
        source_of(data("s0", examples=(long, *chats()[1:]))).identity(stages[0])


def test_a_response_gets_what_room_there_is(source_of, stages):
    nearly = dataclasses.replace(chats()[0], messages=(Message("user", "pen " * 501),))
    source = source_of(data("s0", examples=(nearly, *chats()[1:])))
    found = source(stages[0])
    n = len(said(source, stages[0])["p0"])
    assert 0 < n < N_NEW
    assert len(found.token_ids[0]) == 512
    assert found.n_truncated == 0
    assert source.completed.kept.tallies[0].n_cut == 12


@pytest.mark.parametrize("next_speaker", ["User", "Assistant"])
def test_plain_text_ends_where_the_next_speaker_begins(next_speaker):
    tokenizer = byte_level(merges=(". Ċ", "Ċ Ċ"))
    ids = tokenizer(f" So it is.\n{next_speaker}: Why?")["input_ids"]
    ends = [responding.next_speaker(tokenizer, ids[: n + 1]) for n in range(len(ids))]
    n = next(it for it in ends if it is not None)
    assert tokenizer.decode(ids[:n]) == " So it is.\n"
    first = ends.index(n)
    assert tokenizer.decode(ids[: first + 1]).endswith(f"\n{next_speaker}:")
    # The control: a speaker's name within a line ends nothing.
    inline = tokenizer(f" As {next_speaker}: said")["input_ids"]
    assert {responding.next_speaker(tokenizer, inline[: n + 1]) for n in range(len(inline))} == {
        None
    }


def test_a_template_that_opens_the_trace_is_remembered(tmp_path):
    path = small_model(tmp_path / "think", byte_level(THINK))
    stage = Stage("think", "custom", str(path))
    dataset = data("think", format="chat_native")
    source = Source(
        dataset,
        Compute("cpu", "float32", 999, None),
        tmp_path / "cache",
        completion=Completion((stage,), stage, ("think_mean",)),
    )
    found = source(stage, position="think_mean")
    assert len(found.ids) == len(source.examples)
    assert all(it.opened for it in source.completed.dataset(stage).responses.values())
