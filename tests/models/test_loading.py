import json
import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ModelError
from olmo_stages.models import checkpoints, digests, guards
from olmo_stages.models.checkpoints import Checkpoint, locate, model_digest
from olmo_stages.models.loading import load
from olmo_stages.types import Stage


@pytest.fixture(scope="session")
def saved(tmp_path_factory, models):
    """An Olmo3 checkpoint on disk; tests that change it copy it first."""
    path = tmp_path_factory.mktemp("checkpoint") / "olmo3"
    models("olmo3").save_pretrained(path)
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def stage(source, **options):
    return Stage("mine", "custom", str(source), **options)


def load_here(path, **options):
    return load(stage(path, **options), Checkpoint(path, None), dtype="float32", device="cpu")


def rewrite(path, change):
    weights = load_file(path / "model.safetensors")
    change(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def test_the_loaded_model_is_the_saved_one(saved, models):
    loaded = load_here(saved)
    for name, parameter in models("olmo3").named_parameters():
        assert torch.equal(loaded.model.get_parameter(name), parameter)
    assert not loaded.model.training
    assert len(loaded.decoder.blocks) == 8


def test_dtype_as_asked(saved):
    loaded = load(stage(saved), Checkpoint(saved, None), dtype="bfloat16", device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}


def test_missing_weights_are_refused_by_name(copy):
    rewrite(copy, lambda weights: weights.pop("model.layers.3.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"1 missing weights, e.g. model.layers.3.mlp.up_proj"):
        load_here(copy)


def test_unexpected_weights_are_refused_by_name(copy):
    rewrite(copy, lambda weights: weights.update(extra=torch.ones(2)))
    with pytest.raises(ModelError, match=r"1 unexpected weights, e.g. extra"):
        load_here(copy)


def test_an_untied_head_may_not_be_missing(copy):
    rewrite(copy, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"1 missing weights, e.g. lm_head.weight"):
        load_here(copy)


def test_a_tied_head_may_be_missing(copy):
    rewrite(copy, lambda weights: weights.pop("lm_head.weight"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    loaded = load_here(copy)
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight


def test_weights_that_are_not_finite_are_refused(copy):
    rewrite(copy, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(ModelError, match=r"weight model.norm.weight is not finite"):
        load_here(copy)


def test_a_broken_file_is_one_line(copy):
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"cannot be loaded") as caught:
        load_here(copy)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_one_line(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    with pytest.raises(ModelError, match=r"cannot be loaded") as caught:
        load_here(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", ["5.0.0", "5.0.0rc1", "5.12.1"])
def test_wrong_versions_of_transformers_are_refused(version):
    with pytest.raises(ModelError, match=r"install transformers>=5.13"):
        guards.check_transformers(version)


@pytest.mark.parametrize("version", ["4.57.1", "5.13.0", "5.23.0", "6.0.0"])
def test_right_versions_of_transformers_pass(version):
    guards.check_transformers(version)


def weights_of(loaded):
    return torch.cat([p.flatten() for p in loaded.model.parameters()])


def test_random_init_is_deterministic_and_not_the_trained_model(saved):
    state = torch.get_rng_state()
    first = weights_of(load_here(saved, random_init=3))
    assert torch.equal(first, weights_of(load_here(saved, random_init=3)))
    assert not torch.equal(first, weights_of(load_here(saved, random_init=4)))
    assert not torch.equal(first, weights_of(load_here(saved)))
    assert torch.equal(state, torch.get_rng_state())  # nobody else's random numbers move


def test_random_init_is_normal_with_unit_gains(saved):
    model = load_here(saved, random_init=0).model.model
    assert float(model.layers[0].mlp.up_proj.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert torch.equal(model.norm.weight, torch.ones(32))


def test_random_init_reads_no_weights(copy):
    (copy / "model.safetensors").unlink()
    assert locate(stage(copy, random_init=0), copy).path == copy
    load_here(copy, random_init=0)
    with pytest.raises(ModelError, match=r"no \*.safetensors file"):
        locate(stage(copy), copy)


def test_locate_finds_a_directory(saved, tmp_path):
    assert locate(stage(saved), tmp_path) == Checkpoint(saved, None)


def test_locate_refuses_a_missing_directory(tmp_path):
    with pytest.raises(ModelError, match=r"stage mine: directory .*nowhere does not exist"):
        locate(stage(tmp_path / "nowhere"), tmp_path)


def test_locate_refuses_pickled_weights(copy, tmp_path):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled .bin weights are never loaded"):
        locate(stage(copy), tmp_path)


def test_locate_refuses_a_directory_without_config(copy, tmp_path):
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config.json cannot be read"):
        locate(stage(copy), tmp_path)


def test_locate_refuses_a_shard_that_the_index_names_and_is_missing(copy, tmp_path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (copy / digests.INDEX).write_text(json.dumps(index))
    (copy / "model-1.safetensors").touch()
    # transformers loads the single file and does not look at the index.
    assert [file.name for file in digests.weight_files(copy)] == ["model.safetensors"]
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-2.safetensors is named by"):
        locate(stage(copy), tmp_path)


def test_an_unreachable_hub_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    wanted = stage("allenai/never-downloaded", revision="step_20")
    with pytest.raises(ModelError, match=r"allenai/never-downloaded at revision step_20") as caught:
        locate(wanted, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hub_snapshot_is_identified_by_its_commit(copy, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = shutil.copytree(copy, tmp_path / "snapshots" / commit)
    asked = []

    def download(repo_id, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = {}
    for name in ("allenai/Olmo-3-7B-Think", "allenai/OLMo-3-7B-Think"):
        checkpoint = locate(stage(name), tmp_path)
        found[name] = model_digest(stage(name), checkpoint, tmp_path)
    assert set(found.values()) == {commit}  # however the id is spelt
    assert "*.safetensors*" in asked[0][2]
    assert not any(pattern.endswith(".bin") for pattern in asked[0][2])


def digest(path, cache, **options):
    return model_digest(stage(path, **options), Checkpoint(path, None), cache)


def test_the_model_digest_is_of_the_content(saved, copy, tmp_path):
    assert digest(saved, tmp_path) == digest(copy, tmp_path)
    rewrite(copy, lambda weights: weights["model.norm.weight"].add_(1e-3))
    assert digest(saved, tmp_path) != digest(copy, tmp_path)


def test_the_model_digest_depends_on_the_config(saved, copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert digest(saved, tmp_path) != digest(copy, tmp_path)
    assert digest(saved, tmp_path, random_init=0) != digest(copy, tmp_path, random_init=0)
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))
    assert digest(saved, tmp_path) == digest(copy, tmp_path)


def test_weights_are_hashed_once(copy, tmp_path, monkeypatch):
    first = digest(copy, tmp_path)
    hashed = []
    monkeypatch.setattr(digests, "_file_digest", lambda file: hashed.append(file) or "x")
    assert digest(copy, tmp_path) == first
    assert hashed == []
    rewrite(copy, lambda weights: weights["model.norm.weight"].add_(1e-3))
    assert digest(copy, tmp_path) != first
    assert len(hashed) == 1


def test_the_digest_of_a_random_init_needs_seed_and_config_only(saved, copy, tmp_path):
    random = digest(saved, tmp_path, random_init=0)
    rewrite(copy, lambda weights: weights["model.norm.weight"].add_(1e-3))
    assert digest(copy, tmp_path, random_init=0) == random
    assert digest(copy, tmp_path, random_init=1) != random
    assert digest(copy, tmp_path) != random


def test_the_tokenizer_digest_covers_the_chat_template(copy):
    before = digests.tokenizer_digest(copy)
    (copy / "README.md").write_text("no part of it")
    assert digests.tokenizer_digest(copy) == before
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert digests.tokenizer_digest(copy) != before


def test_a_directory_without_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer files"):
        digests.tokenizer_digest(copy)


def test_the_quantisation_and_attention_of_the_key_are_those_of_the_model(saved):
    assert load_here(saved).model.config._attn_implementation == checkpoints.ATTENTION
