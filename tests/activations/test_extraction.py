import dataclasses
import errno
import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import SoftReadWriteLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from olmo_stages.activations import extraction, extras, held_model
from olmo_stages.activations.entry import read_entry
from olmo_stages.activations.store import Store
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError, DataError, StoreError
from olmo_stages.types import ActivationSource, Stage, Wanted


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def direct(checkpoint, example, layer):
    """Hidden states of one example by transformers itself, without batch, padding or hooks."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer(example.text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        states = model(ids, output_hidden_states=True).hidden_states
    return states[layer + 1][0].numpy()


def test_the_activations_are_those_of_the_model(make_source, stage, checkpoint):
    source = make_source()
    last = source(stage, position="last", layers=(-1, 2, 5))
    mean = source(stage, position="mean", layers=(-1, 2, 5))
    for i, example in enumerate(source.examples):
        for row, layer in enumerate(last.layers):
            states = direct(checkpoint, example, layer)
            assert relative(last.values[row, i], states[-1]) < 1e-5  # fp32 rounding
            assert relative(mean.values[row, i], states[1:].mean(axis=0)) < 1e-5
            # Twin: another token gives another vector.
            assert relative(last.values[row, i], states[-2]) > 0.01
        if i == 3:
            break


def test_the_answer_is_complete(make_source, stage):
    source = make_source()
    found = source(stage)
    assert isinstance(source, ActivationSource)
    assert found.ids == tuple(example.id for example in source.examples)
    assert found.values.shape == (8, 11, 32)
    assert found.values.dtype == np.float32
    assert found.layers == tuple(range(8))
    assert found.layer_types == (("sliding_attention",) * 3 + ("full_attention",)) * 2
    assert [len(ids) for ids in found.token_ids] == [len(e.text.split()) for e in source.examples]
    assert found.n_truncated == 0
    assert found.stage == stage


def test_the_embedding_layer_says_so(make_source, stage):
    found = make_source()(stage, layers=(3, -1))
    assert found.layers == (3, -1)
    assert found.layer_types == ("full_attention", "embedding")


def test_examples_come_in_the_order_of_the_data(make_source, stage, dataset):
    forward = make_source()(stage)
    reversed_data = Dataset("toy", dataset.examples[::-1], "raw")
    backward = make_source(reversed_data)(stage)
    assert backward.ids == forward.ids[::-1]
    np.testing.assert_allclose(backward.values[:, ::-1], forward.values, rtol=1e-5, atol=1e-5)
    assert not np.allclose(backward.values, forward.values)


def test_a_second_request_does_no_forward_pass(make_source, stage, monkeypatch):
    first = make_source()
    before = first(stage)
    assert first.forward_passes[stage] == 3  # 11 examples in shards of 4
    monkeypatch.setattr(
        "olmo_stages.models.loading.load", lambda *_, **__: pytest.fail("the model was loaded")
    )
    second = make_source()
    after = second(stage)
    assert second.forward_passes[stage] == 0
    assert np.array_equal(before.values, after.values)
    assert before.token_ids == after.token_ids
    assert before.key == after.key


def test_fewer_layers_come_from_the_bigger_entry(make_source, stage):
    source = make_source()
    everything = source(stage)
    n = source.forward_passes[stage]
    some = source(stage, layers=(6, 1, -1))
    assert source.forward_passes[stage] == n
    assert np.array_equal(some.values[0], everything.values[6])
    assert np.array_equal(some.values[1], everything.values[1])


def test_more_layers_do_not_come_from_the_smaller_entry(make_source, stage):
    source = make_source()
    source(stage, layers=(1, 2))
    n = source.forward_passes[stage]
    assert source(stage, layers=(2, 3)).layers == (2, 3)
    assert source.forward_passes[stage] == 2 * n


def test_another_site_is_another_pass(make_source, stage):
    source = make_source()
    post = source(stage)
    n = source.forward_passes[stage]
    mid = source(stage, site="resid_mid")
    assert source.forward_passes[stage] == 2 * n
    assert post.key != mid.key
    assert not np.allclose(post.values, mid.values)


def test_another_position_is_of_the_same_pass(make_source, stage):
    source = make_source()
    post = source(stage)
    n = source.forward_passes[stage]
    first = source(stage, position="first_content")
    mean = source(stage, position="mean")
    assert source.forward_passes[stage] == n
    assert post.key == first.key == mean.key
    assert not np.allclose(post.values, first.values)


@pytest.mark.usefixtures("thrifty")
def test_another_position_is_another_pass_where_nothing_else_is_kept(make_source, stage):
    source = make_source()
    post = source(stage)
    n = source.forward_passes[stage]
    first = source(stage, position="first_content")
    assert source.forward_passes[stage] == 2 * n
    assert post.key != first.key
    assert not np.allclose(post.values, first.values)


@pytest.mark.parametrize("position", ["last", "mean", "first_content"])
@pytest.mark.parametrize("layers", [None, (2,)])
def test_what_nobody_asked_for_has_the_values_of_a_pass_of_its_own(
    make_source, stage, tmp_path, position, layers, monkeypatch
):
    source = make_source()
    source(stage, position="last_content", layers=layers)
    n = source.forward_passes[stage]
    found = source(stage, position=position, layers=layers and (0, *layers))
    assert source.forward_passes[stage] == n
    monkeypatch.setattr(extras, "SHARE", 0.0)
    alone = make_source(where=Store(tmp_path / "alone", shard_examples=4))
    assert np.array_equal(
        found.values, alone(stage, position=position, layers=layers and (0, *layers)).values
    )


def test_a_position_that_an_example_lacks_is_not_kept_and_is_refused(make_source, stage, store):
    source = make_source()
    source(stage)
    (entry,) = [read_entry(path.parent) for path in store.root.glob("*/*/*/manifest.json")]
    kept = {it.position for it in entry.captures}
    assert {"last", "mean", "last_prompt"} <= kept
    assert not kept & {"last_user", "response_mean", "think_mean"}
    with pytest.raises(DataError, match="position response_mean"):
        source(stage, position="response_mean")


def test_a_pass_gives_what_other_jobs_are_going_to_ask_for(make_source, stage):
    source, asked = make_source(), []
    other = Wanted(stage, (("attn_out", "mean"),))

    def others(stages):
        asked.append(stages)
        return [other, Wanted(dataclasses.replace(stage, random_init=0), other.captures)]

    source.expect([Wanted(stage, (("resid_post", "last"),))], others)
    source(stage)
    n = source.forward_passes[stage]
    source(stage, site="attn_out", position="mean")
    assert source.forward_passes == {stage: n}
    again = make_source()
    again.expect([Wanted(stage, (("resid_post", "last"),))], others)
    again(stage)
    assert asked == [{stage}]


def test_prefetch_takes_one_pass_for_several(make_source, stage):
    source = make_source()
    source.prefetch(stage, [("resid_post", "last"), ("attn_out", "mean"), ("resid_pre", "last")])
    n = source.forward_passes[stage]
    assert n == 3
    post = source(stage)
    source(stage, site="attn_out", position="mean")
    pre = source(stage, site="resid_pre")
    source.prefetch(stage, [("resid_post", "last"), ("attn_out", "mean")])
    assert source.forward_passes[stage] == n
    assert np.array_equal(pre.values[1:], post.values[:-1])


@pytest.mark.usefixtures("thrifty")
def test_prefetch_leaves_out_what_is_there(make_source, stage, store):
    source = make_source()
    source(stage)
    source.prefetch(stage, [("resid_post", "last"), ("mlp_out", "last")])
    entries = [read_entry(path.parent) for path in store.root.glob("*/*/*/manifest.json")]
    captures = sorted(entry.captures for entry in entries)
    assert captures == [(("mlp_out", "last"),), (("resid_post", "last"),)]


def test_one_model_at_a_time(make_source, stage, monkeypatch):
    source = make_source()
    held = []
    real = held_model.gc.collect
    monkeypatch.setattr(
        held_model.gc, "collect", lambda: held.append(source._model.loaded) or real()
    )
    source(stage)
    source(dataclasses.replace(stage, random_init=0))
    assert held == [None, None]
    assert source._model.loaded.stage.random_init == 0


def test_random_init_is_not_the_trained_model(make_source, stage):
    source = make_source()
    random = dataclasses.replace(stage, random_init=0)
    trained, untrained = source(stage), source(random)
    assert not np.allclose(trained.values, untrained.values)
    assert trained.model_digest != untrained.model_digest
    again = make_source(where=Store(source._store.root.parent / "other", shard_examples=4))(random)
    assert np.array_equal(again.values, untrained.values)


def test_batch_size_changes_no_number_and_no_key(make_source, stage, tmp_path):
    one = make_source(where=Store(tmp_path / "one"), token_budget=1)
    many = make_source(where=Store(tmp_path / "many"), token_budget=10_000, threads=1)
    a, b = one(stage), many(stage)
    assert (one.forward_passes[stage], many.forward_passes[stage]) == (11, 1)
    assert a.key == b.key
    assert relative(a.values, b.values) < 1e-5


def test_bfloat16_is_stored_as_it_was(make_source, stage):
    found = make_source(dtype="bfloat16")(stage)
    as_bfloat16 = torch.from_numpy(found.values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(found.values, as_bfloat16)
    assert relative(found.values, make_source()(stage).values) < 0.1


def keys(make_source, stage, data=None, **options):
    return make_source(data, **options)(stage, layers=(0,)).key


def test_the_identity_changes_with_each_ingredient(
    make_source, stage, dataset, checkpoint, tmp_path, make_checkpoint, monkeypatch
):
    def identified(stage=stage, data=None, **options):
        return make_source(data, **options).identity(stage).key

    base = identified()
    examples = dataset.examples
    text = Dataset("toy", (*examples[:-1], dataclasses.replace(examples[-1], text="w1")), "raw")
    other_weights = make_checkpoint(tmp_path / "weights", seed=1)
    template = shutil.copytree(checkpoint, tmp_path / "template")
    (template / "chat_template.jinja").write_text("{{ messages }}")
    config = shutil.copytree(checkpoint, tmp_path / "config")
    content = json.loads((config / "config.json").read_text())
    (config / "config.json").write_text(json.dumps(content | {"rms_norm_eps": 1e-3}))
    found = {
        "weights": identified(Stage("mine", "custom", str(other_weights))),
        "template": identified(Stage("mine", "custom", str(template))),
        "config": identified(Stage("mine", "custom", str(config))),
        "random": identified(dataclasses.replace(stage, random_init=0)),
        "seed": identified(dataclasses.replace(stage, random_init=1)),
        "dtype": identified(dtype="bfloat16"),
        "data": identified(data=text),
        "format": identified(data=Dataset("toy", examples, "chat_fixed")),
        "max_length": identified(max_length=5),
    }
    monkeypatch.setattr("olmo_stages.models.checkpoints.ATTENTION", "eager")
    found["attention"] = identified()
    assert len({base, *found.values()}) == 1 + len(found)


@pytest.mark.usefixtures("thrifty")
def test_the_key_changes_with_the_identity_and_what_is_kept(make_source, stage):
    found = [
        make_source()(stage, layers=(0,)),
        make_source(max_length=5)(stage, layers=(0,)),
        make_source()(stage, layers=(1,)),
        make_source()(stage, layers=(0,), site="mlp_out"),
        make_source()(stage, layers=(0,), position="mean"),
    ]
    assert len({it.key for it in found}) == len(found)
    assert make_source()(stage, layers=(0,)).key == found[0].key


def test_the_identity_depends_on_the_quantisation_and_not_on_devices(
    make_source, stage, monkeypatch
):
    found = object()
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: found)
    identities = {
        kind: make_source(quantisation=kind).identity(stage) for kind in ("none", "int8", "int4")
    }
    assert len({identity.key for identity in identities.values()}) == 3
    assert identities["none"].quantisation == "none"
    assert make_source(device="auto", device_map="auto").identity(stage) == identities["none"]


def test_a_quantisation_that_is_not_installed_is_refused_before_the_checkpoint(
    make_source, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="needs bitsandbytes"):
        make_source(quantisation="int8")(Stage("mine", "custom", "/no/such/checkpoint"))


def test_the_key_does_not_change_with_names(make_source, stage, dataset, checkpoint, tmp_path):
    base = keys(make_source, stage)
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    source = make_source(Dataset("another name", dataset.examples, "raw"))
    assert source(Stage("other", "custom", str(copy)), layers=(0,)).key == base
    assert sum(source.forward_passes.values()) == 0


def test_truncation_is_from_the_left_and_counted(make_source, stage):
    whole, cut = make_source()(stage), make_source(max_length=5)(stage)
    assert cut.n_truncated == sum(len(ids) > 5 for ids in whole.token_ids) > 0
    assert cut.token_ids == tuple(ids[-5:] for ids in whole.token_ids)


def test_the_context_of_the_model_is_never_exceeded(make_source, stage, dataset):
    long = dataclasses.replace(dataset.examples[0], text=" ".join(["w1 w2"] * 30))
    data = Dataset("long", (long, *dataset.examples[1:]), "raw")
    found = make_source(data, max_length=1000)(stage, layers=(0,))
    assert len(found.token_ids[0]) == 32
    assert found.n_truncated == 1


@pytest.mark.parametrize("layers", [(8,), (-2, 0), ()])
def test_layers_that_do_not_exist_are_refused(make_source, stage, layers):
    with pytest.raises(ConfigError, match=r"-1 \(embeddings\) to 7"):
        make_source()(stage, layers=layers)


def test_progress_is_one_line_without_a_terminal(make_source, stage, capsys):
    make_source()(stage)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "mine: activations of examples: 11 done\n"


def test_all_blocks_come_from_an_entry_without_embeddings(make_source, stage):
    source = make_source()
    source(stage, layers=tuple(range(8)))
    n = source.forward_passes[stage]
    source(stage)
    assert source.forward_passes[stage] == n


def test_identity_needs_no_model(make_source, stage):
    source = make_source()
    identity = source.identity(stage)
    assert source._model.loaded is None
    assert identity.data == source._dataset.digest
    assert identity.weights == source(stage, layers=(0,)).model_digest
    assert make_source(dtype="bfloat16").identity(stage) != identity


def test_asking_imports_neither_torch_nor_transformers():
    code = (
        "import sys, olmo_stages.activations.extraction, olmo_stages.activations.upkeep\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    root = str(Path(extraction.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


# Readings


def test_readings_are_those_of_the_activations_and_run_no_model(make_source, stage):
    source = make_source()
    found = source.readings(stage)
    assert source.forward_passes[stage] == 0
    acts = source(stage, position="tokens", layers=(0,))
    assert tuple(it.id for it in found) == acts.ids
    assert tuple(it.token_ids for it in found) == acts.token_ids
    assert ["".join(it.texts) for it in found] == [e.text for e in source.examples]
    assert {part for it in found for part in it.parts} == {"text"}


def test_readings_of_truncated_prompts_align(make_source, stage):
    source = make_source(max_length=5)
    found = source.readings(stage)
    acts = source(stage, position="tokens", layers=(0,))
    assert acts.n_truncated > 0
    assert tuple(it.token_ids for it in found) == acts.token_ids
    for example, it in zip(source.examples, found, strict=True):
        assert "".join(it.texts).split() == example.text.split()[-5:]


# What is expected


def entries(store):
    return sorted(path.parent.name for path in store.root.glob("*/*/*/manifest.json"))


@pytest.mark.usefixtures("thrifty")
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_expecting_takes_one_pass_a_stage(make_source, stage, store, tmp_path, layers):
    random = dataclasses.replace(stage, random_init=0)
    pair = (("resid_post", "last"),)
    wanted = [
        Wanted(stage, pair, layers),
        Wanted(random, pair, layers),
        Wanted(stage, pair, (-1,)),  # of all layers' pass, where there is one
        Wanted(stage, (*pair, ("mlp_out", "mean")), layers),
    ]

    def ask(source):
        return [
            source(it.stage, site=site, position=position, layers=it.layers).values.tolist()
            for it in wanted
            for site, position in it.captures
        ]

    asked = make_source(where=dataclasses.replace(store, root=tmp_path / "asked"))
    expected = make_source()
    expected.expect(wanted)
    assert not store.root.exists()
    expected(stage, layers=layers)
    assert ask(expected) == ask(asked)
    one = expected.forward_passes[random]
    assert expected.forward_passes == {stage: one, random: one}
    assert len(entries(store)) == 2
    assert asked.forward_passes[stage] > one


def test_what_is_expected_and_wrong_is_told_at_the_first_request(make_source, stage):
    source = make_source()
    source.expect([Wanted(stage, (("resid_post", "last"),), (99,))])
    with pytest.raises(ConfigError, match=r"-1 \(embeddings\) to 7"):
        source(stage)


# How long entries are held


def is_free(store, name):
    (folder,) = {it.parent for it in store.root.glob("*/*/*/manifest.json") if name in str(it)}
    with store.user(folder).claim() as held:
        return held


def test_what_is_read_or_written_is_held_until_the_end(make_source, stage, store):
    with make_source() as source:
        key = source(stage).key
        assert not is_free(store, key)
        with make_source() as reader:
            reader(stage)
        assert not is_free(store, key)
    assert is_free(store, key)


def test_nothing_stays_held_after_an_error(make_source, stage, store):
    source = make_source()
    key = source(stage).key
    with pytest.raises(ConfigError), source:
        source(stage, layers=(99,))
    assert is_free(store, key)


def test_a_source_that_nobody_closed_holds_nothing_once_it_is_gone(make_source, stage, store):
    source = make_source()
    key = source(stage).key
    assert not is_free(store, key)
    del source
    gc.collect()
    assert is_free(store, key)


def test_a_store_that_can_only_be_read_is_read(make_source, stage, monkeypatch):
    with make_source() as source:
        before = source(stage)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(SoftReadWriteLock, "acquire_read", refuse)
    monkeypatch.setattr(SoftReadWriteLock, "acquire_write", refuse)
    with make_source() as source:
        assert np.array_equal(source(stage).values, before.values)
        # The control: what is not there cannot be computed.
        with pytest.raises(StoreError, match="Read-only file system"):
            source(stage, site="mlp_out")
        assert sum(source.forward_passes.values()) == 0
