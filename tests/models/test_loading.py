import json
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.models.olmo3.modeling_olmo3 import Olmo3Attention, Olmo3RotaryEmbedding

from olmo_stages.activations.request import describe
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ModelError
from olmo_stages.models import checkpoints, digests, guards
from olmo_stages.models.checkpoints import Checkpoint, locate, model_digest
from olmo_stages.models.compute import Compute
from olmo_stages.models.loading import load
from olmo_stages.types import Example, Stage
from tests.models.released import RELEASED, released_config

YARN = RELEASED["rope_scaling"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
    with pytest.raises(ModelError, match=r"1 weight is missing \(model.layers.3.mlp.up_proj"):
        load_here(copy)


def test_unexpected_weights_are_refused_by_name(copy):
    rewrite(copy, lambda weights: weights.update(extra=torch.ones(2)))
    with pytest.raises(ModelError, match=r"1 weight is unexpected \(extra\)"):
        load_here(copy)


def test_weights_of_another_shape_are_refused_by_name(copy):
    name = "model.layers.3.mlp.up_proj.weight"
    rewrite(copy, lambda weights: weights.update({name: weights[name][:, :5].contiguous()}))
    with pytest.raises(ModelError, match=r"1 weight is misshapen \(model.layers.3.mlp.up_proj"):
        load_here(copy)


def test_an_untied_head_may_not_be_missing(copy):
    rewrite(copy, lambda weights: weights.pop("lm_head.weight"))
    with pytest.raises(ModelError, match=r"lm_head.weight.*or write tie_word_embeddings: true"):
        load_here(copy)


def tie(path):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


def test_a_tied_head_that_differs_is_refused(copy):
    tie(copy)
    with pytest.raises(ModelError, match=r"tie_word_embeddings, but the file holds a vocabulary"):
        load_here(copy)


def test_a_tied_head_that_is_saved_once_more_is_fine(copy):
    tie(copy)
    rewrite(copy, lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"].clone()}))
    load_here(copy)


def test_a_tied_head_may_be_missing(copy):
    rewrite(copy, lambda weights: weights.pop("lm_head.weight"))
    tie(copy)
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


def test_an_unknown_activation_is_named_with_a_remedy(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "swishish"}))
    with pytest.raises(ModelError, match=r"knows no 'swishish', which .*; take the config.json"):
        load_here(copy)


@pytest.mark.parametrize("version", ["5.0.0", "5.0.0rc1", "5.12.1"])
def test_wrong_versions_of_transformers_are_refused(version):
    with pytest.raises(ModelError, match=r"install transformers>=5.13"):
        guards.check_transformers(version)


@pytest.mark.parametrize("version", ["4.57.1", "5.13.0", "5.23.0", "6.0.0"])
def test_right_versions_of_transformers_pass(version):
    guards.check_transformers(version)


def test_the_miniature_architecture_passes(checkpoints):
    assert len(load_here(checkpoints[0]).decoder.blocks) == 4


def test_a_wrong_config_is_refused_before_the_store_is_asked(released, tmp_path):
    """Activations that an earlier version made of it are not handed out either."""
    flat = {**YARN, "rope_theta": 500000.0}
    path = released(rope_scaling=None, rope_parameters=flat)
    (path / "tokenizer.json").write_text("{}")
    examples = tuple(Example(c, c, i % 2, text=c) for i, c in enumerate("abcd"))
    dataset = Dataset("some", examples, "raw")
    compute = Compute("cpu", "float32", 64, 1)
    with pytest.raises(ModelError, match="one rope_parameters"):
        describe(stage(path), dataset, compute, tmp_path, max_length=8)
    (path / "config.json").write_text(json.dumps(released_config()))
    assert describe(stage(path), dataset, compute, tmp_path, max_length=8).n_layers == 4


def test_a_version_that_gives_all_layers_one_rotary_embedding_is_refused(released, monkeypatch):
    path = released()
    load_here(path)
    monkeypatch.setattr(transformers, "__version__", "5.5.3")
    with pytest.raises(ModelError, match=r"transformers 5.5.3 computes OLMo 3 wrongly"):
        load_here(path)


def test_that_version_may_load_what_has_one_rotary_embedding(released, monkeypatch):
    monkeypatch.setattr(transformers, "__version__", "5.5.3")
    load_here(released(rope_scaling=None, max_position_embeddings=8192))


def test_yarn_is_in_the_full_layers_of_the_model(released):
    decoder = load_here(released()).decoder
    scalings = [float(cos[0, 0, 0]) for cos, _ in decoder.rotary]
    assert scalings == pytest.approx([1, 1, 1, 1.2079441541679836])


def test_one_yarn_for_all_layers_is_refused_although_transformers_loads_it(released):
    path = released(rope_scaling=None, rope_parameters={**YARN, "rope_theta": 500000.0})
    alone = AutoModelForCausalLM.from_pretrained(path)
    assert set(alone.model.rotary_emb.rope_type.values()) == {"default"}
    with pytest.raises(ModelError, match=r"one rope_parameters .yarn. for all layers"):
        load_here(path)


def test_a_model_that_ignores_its_config_is_refused(released, monkeypatch):
    """As by transformers 5.0 to 5.12 under another version: sliding layers receive YaRN too."""
    forward = Olmo3RotaryEmbedding.forward

    def one_for_all(self, x, position_ids, layer_type):  # noqa: ARG001
        return forward(self, x, position_ids, "full_attention")

    path = released()
    monkeypatch.setattr(Olmo3RotaryEmbedding, "forward", one_for_all)
    with pytest.raises(ModelError, match=r"block 0 \(sliding_attention\) must have default"):
        load_here(path)


def test_another_theta_that_transformers_does_not_read_is_refused(released):
    """Of the released way of writing it, 5.23 gives the sliding layers 500000 whatever it says."""
    path = released(rope_theta=10000)
    alone = AutoModelForCausalLM.from_pretrained(path).config.rope_parameters
    assert {kind: it["rope_theta"] for kind, it in alone.items()} == {
        "sliding_attention": 500000.0,
        "full_attention": 10000,
    }
    with pytest.raises(ModelError, match=r"rope_theta 10000, of which .* 500000") as caught:
        load_here(path)
    # What the message says to write is what then loads.
    text = str(caught.value)
    meant = json.loads(text[text.index("{") : text.rindex("}") + 1])
    changed = released_config(rope_theta=None, rope_scaling=None, rope_parameters=meant)
    (path / "config.json").write_text(json.dumps(changed))
    assert load_here(path).decoder.blocks


def test_a_retrofit_is_loaded_as_olmo3(released):
    path = released(
        model_type="olmo2-retrofit",
        architectures=["Olmo2RetrofitForCausalLM"],
        sliding_window=4097,
    )
    with pytest.raises((ValueError, KeyError)):
        AutoModelForCausalLM.from_pretrained(path)
    loaded = load_here(path)
    assert type(loaded.model).__name__ == "Olmo3ForCausalLM"
    # It counts the token before the window in; see olmo_stages.models.families.
    assert loaded.model.model.layers[0].self_attn.sliding_window == 4096


def test_a_retrofit_computes_what_the_olmo3_does(released, tmp_path):
    path = released()
    retrofit = shutil.copytree(path, tmp_path / "retrofit")
    changed = released_config(model_type="olmo2-retrofit", sliding_window=4097)
    (retrofit / "config.json").write_text(json.dumps(changed))
    ids = torch.tensor([[5, 17, 42, 8]])
    with torch.no_grad():
        assert torch.equal(load_here(retrofit).model(ids).logits, load_here(path).model(ids).logits)


@pytest.mark.parametrize(
    ("changes", "ignored"),
    [
        ({"architectures": None, "layer_types": None}, "sliding_window"),
        ({"architectures": None, "sliding_window": None}, "layer_types"),
        ({"sliding_window": None, "layer_types": None}, "architectures Olmo3ForCausalLM"),
    ],
)
def test_an_olmo3_under_the_name_of_olmo2_is_refused(released, changes, ignored):
    path = released(model_type="olmo2", rope_scaling=None, **changes)
    alone = AutoModelForCausalLM.from_pretrained(path)  # nothing is missing, nothing unexpected
    assert type(alone).__name__ == "Olmo2ForCausalLM"
    with pytest.raises(ModelError, match=f"would ignore its {ignored}.*write .model_type"):
        load_here(path)


def test_an_olmo2_loads(released):
    path = released(
        model_type="olmo2",
        architectures=["Olmo2ForCausalLM"],
        rope_scaling=None,
        sliding_window=None,
        layer_types=None,
    )
    assert load_here(path).decoder.layer_types == ("full_attention",) * 4


def test_windows_that_disagree_with_the_config_are_refused(released, monkeypatch):
    made = Olmo3Attention.__init__

    def wide(self, config, layer_idx):
        made(self, config, layer_idx)
        self.sliding_window = None

    path = released()
    monkeypatch.setattr(Olmo3Attention, "__init__", wide)
    with pytest.raises(ModelError, match=r"block 0: sliding_attention .* window of 4096, but"):
        load_here(path)


def test_weights_that_are_saved_quantised_are_refused(released):
    path = released(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ModelError, match=r"saved quantised \(bitsandbytes\)"):
        load_here(path)


def with_code(path, **config):
    """A checkpoint that brings code along, which would leave a file behind."""
    (path / "own.py").write_text(f"open({str(path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    changed = released_config(auto_map=auto, **config)
    (path / "config.json").write_text(json.dumps(changed))
    return path


def test_code_of_an_unknown_architecture_is_never_run(released):
    path = with_code(released(), model_type="own")
    with pytest.raises(ModelError, match=r"architecture 'own' needs Python code .* never run"):
        load_here(path)
    assert not (path / "ran").exists()


def test_a_known_architecture_is_loaded_without_the_code_it_brings(released):
    path = with_code(released())
    assert type(load_here(path).model).__module__.startswith("transformers.")
    assert not (path / "ran").exists()


def test_infinite_weights_are_refused_too(copy):
    rewrite(copy, lambda weights: weights["model.norm.weight"][3:4].fill_(float("-inf")))
    with pytest.raises(ModelError, match=r"weight model.norm.weight is not finite"):
        load_here(copy)


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
    with pytest.raises(ModelError, match=r"pickled .bin weights are never loaded.; convert it"):
        locate(stage(copy), tmp_path)


def test_shards_load(released):
    path = released(shards=3)
    assert weights_of(load_here(path)).isfinite().all()


def test_a_partial_download_is_refused(released, tmp_path):
    path = released(shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00003.safetensors is named by"):
        locate(stage(path), tmp_path)


def test_shards_without_their_index_are_refused(released, tmp_path):
    path = released(shards=3)
    (path / digests.INDEX).unlink()
    with pytest.raises(ModelError, match=r"model-00001-of-00003.safetensors without"):
        locate(stage(path), tmp_path)


def test_an_index_that_is_cut_off_is_refused(released, tmp_path):
    path = released(shards=3)
    (path / digests.INDEX).write_text('{"weight_map": {')
    with pytest.raises(ModelError, match=r"index.json: cannot be read"):
        locate(stage(path), tmp_path)


def test_a_shard_that_is_cut_off_is_refused(released):
    path = released(shards=3)
    shard = path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"download or save it again"):
        load_here(path)


def test_locate_refuses_a_directory_without_config(copy, tmp_path):
    (copy / "config.json").unlink()
    with pytest.raises(ModelError, match=r"there is no config\.json"):
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for the download, which takes from a folder what is asked for."""
    repository, asked = tmp_path / "repository", []
    snapshot = tmp_path / "snapshots" / COMMIT

    def download(repo_id, *, revision, allow_patterns, ignore_patterns, local_files_only):
        assert not local_files_only
        asked.append((repo_id, revision))
        names = [str(f.relative_to(repository)) for f in repository.rglob("*") if f.is_file()]
        for name in filter_repo_objects(
            names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, snapshot / name)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return repository, snapshot, asked


def test_only_the_files_that_are_needed_are_downloaded(hub, released, tmp_path):
    repository, snapshot, asked = hub
    released(shards=2).rename(repository)
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        (repository / name).write_text("{}")
    needed = sorted(file.name for file in repository.iterdir())
    (repository / "original").mkdir()
    for name in (
        "pytorch_model-00001-of-00002.bin",
        "model-00001-of-00003.safetensors",  # a second set of shards, not in the index
        "original/config.json",
        "README.md",
        "training_args.bin",
        "modeling_own.py",
    ):
        (repository / name).write_text("not needed")
    wanted = stage("allenai/some", revision="step_20")
    assert locate(wanted, tmp_path) == Checkpoint(snapshot, COMMIT)
    assert sorted(str(f.relative_to(snapshot)) for f in snapshot.rglob("*")) == needed
    # The weights are those of the commit that the small files came from.
    assert asked == [("allenai/some", "step_20"), ("allenai/some", COMMIT)]


def test_a_random_init_downloads_no_weights(hub, released, tmp_path):
    repository, snapshot, asked = hub
    released(shards=2).rename(repository)
    locate(stage("allenai/some", random_init=0), tmp_path)
    assert list(snapshot.glob("*.safetensors")) == []
    assert len(asked) == 1


def test_a_repository_of_pickles_is_refused(hub, released, tmp_path):
    repository, _, _ = hub
    released().rename(repository)
    (repository / "model.safetensors").rename(repository / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*.safetensors file"):
        locate(stage("allenai/some"), tmp_path)


def test_a_hub_snapshot_is_identified_by_its_commit(copy, hub, tmp_path):
    copy.rename(hub[0])
    found = {}
    for name in ("allenai/Olmo-3-7B-Think", "allenai/OLMo-3-7B-Think"):
        checkpoint = locate(stage(name), tmp_path)
        found[name] = model_digest(stage(name), checkpoint, tmp_path)
    assert set(found.values()) == {COMMIT}  # however the id is spelt


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
    monkeypatch.setattr(digests, "file_digest", lambda file: hashed.append(file) or "x")
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
