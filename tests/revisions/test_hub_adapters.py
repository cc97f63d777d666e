"""LoRA adapters in a repository of the hub, through the same path as those in a directory."""

import json
import shutil

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ModelError
from olmo_stages.models.checkpoints import locate
from olmo_stages.revisions import hub
from olmo_stages.types import Stage

ADAPTER, BASE = "a" * 40, "b" * 40
TARGET = "model.layers.0.self_attn.q_proj"
CONFIG = {
    "base_model_name_or_path": "me/base",
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "lora_alpha": 4,
    "lora_dropout": 0.0,
    "peft_type": "LORA",
    "r": 2,
    "revision": None,
    "target_modules": ["layers.0.self_attn.q_proj"],
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}


@pytest.fixture
def repository(online, checkpoints, tmp_path):
    """A repository of an adapter, and one of its base."""
    path = tmp_path / "repository"
    path.mkdir()
    values = load_file(checkpoints[0] / "model.safetensors")[f"{TARGET}.weight"]
    generator = torch.Generator().manual_seed(0)
    sizes = {"lora_A": (2, values.shape[1]), "lora_B": (values.shape[0], 2)}
    weights = {
        f"base_model.model.{TARGET}.{name}.weight": torch.randn(size, generator=generator)
        for name, size in sizes.items()
    }
    save_file(weights, path / "adapter_model.safetensors", metadata={"format": "pt"})
    (path / "adapter_config.json").write_text(json.dumps(CONFIG))
    (path / "adapter_model.bin").write_bytes(b"pickled")
    (path / "optimizer.pt").write_bytes(b"pickled")
    online.files = {ADAPTER: path, BASE: checkpoints[0]}
    online.add("me/adapter", main=ADAPTER)
    online.add("me/base", main=BASE)
    return path


def adapter(**options):
    return Stage("mine", "custom", "me/adapter", **options)


def test_it_is_merged_as_one_in_a_directory_is(repository, checkpoints, tmp_path):
    found = locate(adapter(), tmp_path / "cache")
    own = Stage("base", "custom", "me/base")
    there = locate(Stage("mine", "custom", str(repository), parent=own), tmp_path / "cache")
    assert found == there
    merged, base = (load_file(it / "model.safetensors") for it in (found.path, checkpoints[0]))
    changed = {name for name in base if not torch.equal(merged[name], base[name].float())}
    assert changed == {f"{TARGET}.weight"}


def test_only_its_own_files_are_downloaded(repository, online, tmp_path):
    locate(adapter(), tmp_path / "cache")
    assert repository.is_dir()
    fetched = {it.rpartition("/")[2] for it in online.asked if ADAPTER in it and "resolve" in it}
    assert fetched == {"adapter_config.json", "adapter_model.safetensors", "model.safetensors"}
    snapshot = tmp_path / "hub" / "models--me--adapter" / "snapshots" / ADAPTER
    names = {it.name for it in snapshot.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}


def test_a_branch_that_moves_is_read_at_its_commit(repository, online, tmp_path):
    before = locate(adapter(), tmp_path / "cache")
    moved = shutil.copytree(repository, tmp_path / "moved")
    (moved / "adapter_config.json").write_text(json.dumps(CONFIG | {"lora_alpha": 8}))
    online.files["c" * 40] = moved
    online.add("me/adapter", main="c" * 40)
    assert locate(adapter(), tmp_path / "cache") == before
    hub._pinned.clear()  # as another process
    assert locate(adapter(), tmp_path / "cache").digest != before.digest


def test_what_was_downloaded_is_found_offline(repository, tmp_path, monkeypatch):
    before = locate(adapter(), tmp_path / "cache")
    assert repository.is_dir()
    hub._pinned.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(adapter(), tmp_path / "cache") == before


def test_a_repository_with_a_model_too_is_refused(repository, tmp_path):
    (repository / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"me/adapter holds an adapter .* and a model"):
        locate(adapter(), tmp_path / "cache")


def test_one_with_pickled_weights_alone_is_refused(repository, tmp_path):
    (repository / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors"):
        locate(adapter(), tmp_path / "cache")


def test_a_parent_that_it_was_not_trained_on_is_refused(repository, tmp_path):
    assert repository.is_dir()
    other = Stage("other", "custom", "me/other")
    with pytest.raises(ModelError, match=r"trained on me/base, but model.parent=other is me/other"):
        locate(adapter(parent=other), tmp_path / "cache")


def test_a_random_initialisation_downloads_no_weights_of_the_base(repository, online, tmp_path):
    assert repository.is_dir()
    locate(adapter(random_init=0), tmp_path / "cache")
    assert not [it for it in online.asked if BASE in it and it.endswith(".safetensors")]
