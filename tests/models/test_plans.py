"""Revisions of one architecture share the model without weights, and nothing of their numbers."""

import pytest
import torch
from transformers import AutoConfig

from olmo_stages.models import plans
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.loading import skeleton
from olmo_stages.types import Stage
from tests.models.test_layer_major import assert_same, both, saved

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def built(monkeypatch):
    """What was built."""
    seen, build = [], plans.build
    monkeypatch.setattr(plans, "build", lambda *args: seen.append(args) or build(*args))
    monkeypatch.setattr(plans, "_last", [])
    return seen


def changed(models, path, number):
    model = models("olmo3")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(number * torch.randn_like(parameter))
    return saved(model, path)


def test_revisions_in_a_row_build_one_and_have_their_own_numbers(models, tmp_path, built):
    first, second = (changed(models, tmp_path / name, n) for name, n in (("a", 0.1), ("b", 0.2)))
    results = [both(path, tmp_path) for path in (first, second, first)]
    for result in results:
        assert_same(*result)
    assert len(built) == 1
    key = max(results[0][1][0])
    assert not torch.equal(results[0][1][0][key], results[1][1][0][key])


@pytest.mark.parametrize("family", ["olmo3", "gemma3", "gpt2"])
def test_what_a_pass_leaves_in_the_model_is_gone_before_the_next(models, tmp_path, family):
    path = saved(models(family), tmp_path / "model")
    first, second = both(path, tmp_path), both(path, tmp_path)
    assert_same(*first)
    assert_same(*second)
    model = plans.model(AutoConfig.from_pretrained(path), torch.float32, CPU)
    assert all(it.device.type == "meta" for it in model.parameters())
    assert not any(it.device.type == "meta" for it in model.buffers())


def test_another_architecture_dtype_or_kind_of_weights(models, tmp_path, built):
    first, second = (saved(models(name), tmp_path / name) for name in ("olmo3", "olmo2"))
    for path, dtype in ((first, "float32"), (first, "bfloat16"), (second, "float32")):
        assert_same(*both(path, tmp_path, dtype=dtype))
    assert len(built) == 3
    assert_same(*both(second, tmp_path, seed=1))  # with weights of its own
    assert len(built) == 3


def test_weights_are_checked_for_each(models, tmp_path, built):
    path = saved(models("olmo3"), tmp_path / "model")
    stage, checkpoint = Stage("mine", "custom", str(path)), Checkpoint(path, None)
    skeletons = [skeleton(stage, checkpoint, dtype="float32", device="cpu") for _ in range(2)]
    assert skeletons[0].parts is not skeletons[1].parts
    assert len(built) == 1


def test_rotary_embeddings_that_grow_are_not_shared(models, tmp_path, built):
    path = saved(models("llama"), tmp_path / "model")
    config = AutoConfig.from_pretrained(path)
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    for _ in range(2):
        plans.model(config, torch.float32, CPU)
    assert len(built) == 2
