"""compute=streamed fills the same entries of the store with the same values."""

import dataclasses

import numpy as np
import pytest

from olmo_stages.activations.entry import Writer
from olmo_stages.activations.store import Store
from olmo_stages.errors import ConfigError
from olmo_stages.models import layer_major, room
from olmo_stages.models.compute import Compute


def sources(make_source, tmp_path):
    """One that streams and one that does not, each with a store of its own."""
    streamed = make_source(streamed=True, where=Store(tmp_path / "streamed", shard_examples=4))
    return streamed, make_source(where=Store(tmp_path / "whole", shard_examples=4))


@pytest.mark.parametrize("position", ["last", "mean", "tokens"])
def test_the_values_are_those_of_the_ordinary_pass(make_source, stage, tmp_path, position):
    streamed, whole = sources(make_source, tmp_path)
    found, expected = streamed(stage, position=position), whole(stage, position=position)
    assert np.array_equal(found.values, expected.values)
    assert found.key == expected.key
    assert found.layer_types == expected.layer_types
    assert streamed.ran_on == whole.ran_on


def test_a_random_initialisation_is_the_same_too(make_source, stage, tmp_path):
    random = dataclasses.replace(stage, random_init=0)
    streamed, whole = sources(make_source, tmp_path)
    assert np.array_equal(streamed(random).values, whole(random).values)
    assert not np.array_equal(streamed(stage).values, whole(random).values)


def test_what_was_streamed_is_found_by_an_ordinary_run(make_source, stage):
    make_source(streamed=True)(stage)
    again = make_source()
    again(stage)
    assert not again.forward_passes


def test_nothing_is_found_of_other_data(make_source, stage, dataset):
    make_source(streamed=True)(stage)
    other = make_source(dataclasses.replace(dataset, examples=dataset.examples[:6]))
    other(stage)
    assert other.forward_passes


def test_all_captures_of_one_request_take_one_pass(make_source, stage):
    source = make_source(streamed=True)
    source.prefetch(stage, [("resid_post", "last"), ("attn_out", "mean")])
    source(stage)
    source(stage, site="attn_out", position="mean")
    assert source.forward_passes[stage] == 1


def test_shards_of_an_interrupted_run_are_kept(make_source, stage, tmp_path, monkeypatch):
    streamed, whole = sources(make_source, tmp_path)
    expected = whole(stage).values
    add = Writer.add

    def killed(self, part, ids, found):
        if part == 1:
            raise KeyboardInterrupt
        return add(self, part, ids, found)

    monkeypatch.setattr(Writer, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        streamed(stage)
    monkeypatch.setattr(Writer, "add", add)
    seen = []
    pooled = layer_major.pooled

    def watched(model, shards, *rest):
        seen.extend(item.id for shard in shards for item in shard)
        return pooled(model, shards, *rest)

    monkeypatch.setattr(layer_major, "pooled", watched)
    assert np.array_equal(streamed(stage).values, expected)
    assert len(seen) == len(expected[0]) - 4  # the first shard was there


def test_nothing_but_entries_is_left_in_the_store(make_source, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARE", 0)
    streamed, _ = sources(make_source, tmp_path)
    streamed(stage)
    assert not list((tmp_path / "streamed").glob("scratch-*"))


def test_responses_cannot_be_written(make_source, stage):
    source = make_source(streamed=True)
    with pytest.raises(ConfigError, match="cannot write responses"):
        source._model.of(source._work(stage))


@pytest.mark.parametrize("other", [{"quantisation": "int8"}, {"device_map": "auto"}])
def test_it_excludes_what_places_a_whole_model(other):
    with pytest.raises(ConfigError, match="exclude each other"):
        Compute("auto", "auto", 64, None, streamed=True, **other)
