"""A release without a tokenizer.json is read with the tokenizer of another stage."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from olmo_stages.activations.request import describe
from olmo_stages.data.dataset import Dataset
from olmo_stages.models import digests, released
from olmo_stages.models.checkpoints import locate, model_digest
from olmo_stages.models.compute import Compute
from olmo_stages.models.loading import load
from olmo_stages.models.tokenizer import load_tokenizer
from olmo_stages.stages import lookup, release, searching
from olmo_stages.types import Example

YAML = """\
name: {name}
family: llama
parent: null
revision: main
format: raw
branches: {{}}
{more}
sources:
  1b: {source}
"""


@pytest.fixture
def stages(checkpoints, tmp_path, monkeypatch):
    """Two stages; the first has weights and only vocab.json, the second a whole tokenizer."""
    taker, giver = tmp_path / "taker", tmp_path / "giver"
    shutil.copytree(checkpoints[0], taker)
    shutil.copytree(checkpoints[1], giver)
    for file in digests.tokenizer_files(taker):
        file.unlink()
    (taker / "vocab.json").write_text("{}")
    (giver / "model.safetensors").unlink()  # its weights are not asked for
    (giver / "chat_template.jinja").write_text("{{ messages }}")
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    more = "tokenizer_from: {1b: giver}"
    (folder / "taker.yaml").write_text(YAML.format(name="taker", source=taker, more=more))
    (folder / "giver.yaml").write_text(YAML.format(name="giver", source=giver, more=""))
    # As if they came with the package.
    monkeypatch.setattr(released, "conf_folder", lambda: tmp_path / "conf")
    with searching([tmp_path / "conf"]):
        yield lookup("taker", "1b"), lookup("giver", "1b")


def path_of(stage):
    return locate(stage, cache_of(stage)).path


def cache_of(stage):
    return Path(stage.source).parent / "cache"


def test_weights_are_its_own_and_the_tokenizer_is_the_others(stages, checkpoints):
    taker, giver = stages
    path = path_of(taker)
    names = {file.name for file in digests.tokenizer_files(path)}
    assert names == {file.name for file in digests.tokenizer_files(Path(giver.source))}
    assert "vocab.json" not in names
    assert (path / "model.safetensors").is_symlink()  # of a large model no second copy
    loaded = load(taker, locate(taker, cache_of(taker)), dtype="float32", device="cpu").model
    wanted = load_file(checkpoints[0] / "model.safetensors")
    assert all(values.equal(wanted[name]) for name, values in loaded.state_dict().items())
    assert load_tokenizer(locate(taker, cache_of(taker)))


def test_the_identity_is_of_its_weights_and_the_others_tokenizer(stages, checkpoints):
    taker, giver = stages
    dataset = Dataset("some", tuple(Example(c, c, i % 2, text=c) for i, c in enumerate("abcd")))
    compute = Compute("cpu", "float32", 64, 1)
    work = describe(taker, dataset, compute, cache_of(taker), max_length=8)
    assert work.identity.tokenizer == digests.tokenizer_digest(Path(giver.source))
    assert work.identity.weights == digests.weights_digest(checkpoints[0], cache_of(taker))
    (Path(giver.source) / "chat_template.jinja").write_text("{{ other }}")
    other = describe(taker, dataset, compute, cache_of(taker), max_length=8).identity
    assert other.tokenizer != work.identity.tokenizer
    assert other.weights == work.identity.weights


def test_it_is_said_and_recorded(stages):
    taker, giver = stages
    path = path_of(taker)
    said = "taker was released without a tokenizer and is read with that of giver"
    assert released.caveats(taker, path) == (said,)
    assert json.loads((path / "derived.json").read_text())["tokenizer of"] == "giver"
    assert released.caveats(giver, Path(giver.source)) == ()


def test_a_tokenizer_of_its_own_is_kept(stages, checkpoints):
    taker, _ = stages
    own = Path(taker.source)
    shutil.copy(checkpoints[0] / "tokenizer.json", own)
    assert path_of(taker) == own


def test_shards_that_change_are_linked_anew(stages):
    taker, _ = stages
    before = path_of(taker)
    own = Path(taker.source)
    (own / "model.safetensors").rename(own / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (own / digests.INDEX).write_text(json.dumps(index))
    after = locate(taker, cache_of(taker)).path
    assert after != before
    assert model_digest(taker, locate(taker, cache_of(taker)), cache_of(taker))


def test_the_release_that_lacks_one_names_a_sibling_of_its_size():
    told = release("olmo2_sft", "32b")
    assert told.tokenizer_from == "olmo2_dpo"
    assert lookup(told.tokenizer_from, "32b").source == "allenai/OLMo-2-0325-32B-DPO"
    assert release("olmo2_sft", "13b").tokenizer_from is None
