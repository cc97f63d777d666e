import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ModelError
from olmo_stages.models import adapter_files, derived, digests
from olmo_stages.models.checkpoints import Checkpoint, locate, model_digest
from olmo_stages.models.loading import load
from olmo_stages.stages import lookup
from olmo_stages.types import Stage

RANK, ALPHA = 4, 6
TARGETS = ("q_proj", "up_proj")
WEIGHTS = "model.safetensors"
# As peft 0.21 writes it, with the fields that this adapter does not use.
CONFIG = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "auto_mapping": None,
    "bias": "none",
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": ALPHA,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": RANK,
    "rank_pattern": {},
    "revision": None,
    "target_modules": list(TARGETS),
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}


def targets(weights):
    return [name for name in weights if name.split(".")[-2] in TARGETS]


def inside(name, part):
    return f"base_model.model.{name.removesuffix('weight')}{part}"


def factors(base, ranks=None):
    """Random A and B of every target, under the names that peft gives them."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, values in base.items():
        if name in targets(base):
            rank = (ranks or {}).get(name.split(".")[-2], RANK)
            a, b = (rank, values.shape[1]), (values.shape[0], rank)
            found[inside(name, "lora_A.weight")] = torch.randn(a, generator=generator) * 0.1
            found[inside(name, "lora_B.weight")] = torch.randn(b, generator=generator) * 0.1
    return found


def product(weights, name):
    return weights[inside(name, "lora_B.weight")] @ weights[inside(name, "lora_A.weight")]


@pytest.fixture
def base(checkpoints):
    return load_file(checkpoints[0] / WEIGHTS)


@pytest.fixture
def write(checkpoints, base, tmp_path):
    """Writes an adapter as peft saves it, with other fields in its config or other weights."""

    def write(change=lambda _: None, *, ranks=None, **fields):
        path = tmp_path / "adapter"
        path.mkdir(exist_ok=True)
        said = CONFIG | {"base_model_name_or_path": str(checkpoints[0])} | fields
        (path / "adapter_config.json").write_text(json.dumps(said))
        weights = factors(base, ranks)
        change(weights)
        save_file(weights, path / "adapter_model.safetensors", metadata={"format": "pt"})
        return path

    return write


@pytest.fixture
def merge(tmp_path):
    def merge(path, parent=None, **options):
        return locate(stage(path, parent, **options), tmp_path / "cache")

    return merge


def stage(path, parent=None, **options):
    return Stage("mine", "custom", str(path), parent=parent, **options)


def merged_weights(found):
    return load_file(found.path / WEIGHTS)


# The arithmetic


def check(found, base, wanted):
    """What `wanted` makes of the targets, in float32; everything else bit by bit as it was."""
    assert found.keys() == base.keys()
    for name, values in base.items():
        if name in targets(base):
            torch.testing.assert_close(found[name], wanted(name), rtol=1e-6, atol=1e-7)
            assert not torch.equal(found[name], values.float())
        else:
            assert found[name].dtype == values.dtype
            assert torch.equal(found[name], values), name


def test_merged_weights_are_w_plus_scaled_b_a(write, merge, base):
    weights = factors(base)
    wanted = lambda name: base[name] + ALPHA / RANK * product(weights, name)  # noqa: E731
    check(merged_weights(merge(write())), base, wanted)


def test_rank_stabilised(write, merge, base):
    weights = factors(base)
    wanted = lambda name: base[name] + ALPHA / RANK**0.5 * product(weights, name)  # noqa: E731
    check(merged_weights(merge(write(use_rslora=True))), base, wanted)


def test_ranks_and_alphas_of_their_own(write, merge, base):
    ranks, alphas = {"q_proj": 2}, {"up_proj": 20}
    weights = factors(base, ranks)

    def wanted(name):
        kind = name.split(".")[-2]
        scale = alphas.get(kind, ALPHA) / ranks.get(kind, RANK)
        return base[name] + scale * product(weights, name)

    path = write(ranks=ranks, rank_pattern=ranks, alpha_pattern=alphas)
    check(merged_weights(merge(path)), base, wanted)


def test_weight_decomposed(write, merge, base):
    magnitudes = {
        name: torch.rand(base[name].shape[0], generator=torch.Generator().manual_seed(1)) + 0.5
        for name in targets(base)
    }

    def add(weights):
        for name, values in magnitudes.items():
            weights[inside(name, "lora_magnitude_vector")] = values

    weights = factors(base)

    def wanted(name):
        whole = base[name] + ALPHA / RANK * product(weights, name)
        return magnitudes[name][:, None] * whole / whole.norm(dim=1, keepdim=True)

    check(merged_weights(merge(write(add, use_dora=True))), base, wanted)


def test_modules_that_were_trained_whole(write, merge, base):
    head = base["lm_head.weight"] * 2
    path = write(
        lambda w: w.update({"base_model.model.lm_head.weight": head}), modules_to_save=["lm_head"]
    )
    found = merged_weights(merge(path))
    assert torch.equal(found["lm_head.weight"], head)
    assert torch.equal(found["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


def test_a_change_below_the_spacing_of_bfloat16_stays(write, checkpoints, merge, tmp_path):
    """Merged in bfloat16, most of a small change would be rounded away."""
    half = shutil.copytree(checkpoints[0], tmp_path / "half")
    base = {name: values.bfloat16() for name, values in load_file(half / WEIGHTS).items()}
    save_file(base, half / WEIGHTS, metadata={"format": "pt"})

    def shrink(weights):
        for name, values in weights.items():
            weights[name] = (values * 0.02).bfloat16()

    path = write(shrink, base_model_name_or_path=str(half))
    weights = {n: v.float() for n, v in load_file(path / "adapter_model.safetensors").items()}
    wanted = lambda name: base[name].float() + ALPHA / RANK * product(weights, name)  # noqa: E731
    check(merged_weights(merge(path)), base, wanted)
    name = targets(base)[0]
    assert (wanted(name).bfloat16() == base[name]).float().mean() > 0.5


def test_the_merged_model_computes_what_base_and_adapter_do(write, merge, checkpoints):
    path = write()
    found = load(stage(path), merge(path), dtype="float32", device="cpu").model
    plain = Checkpoint(checkpoints[0], None)
    reference = load(stage(path), plain, dtype="float32", device="cpu").model
    ids = torch.tensor([[5, 17, 42, 8]])
    with torch.no_grad():
        alone = reference(ids).logits
        weights = load_file(path / "adapter_model.safetensors")
        for name in targets(dict(reference.named_parameters())):
            a, b = (weights[inside(name, f"lora_{it}.weight")] for it in "AB")
            layer = reference.get_submodule(name.removesuffix(".weight"))
            layer.register_forward_hook(
                lambda _, x, y, a=a, b=b: y + ALPHA / RANK * x[0] @ a.T @ b.T
            )
        torch.testing.assert_close(found(ids).logits, reference(ids).logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found(ids).logits, alone, rtol=1e-2)


def test_nobody_elses_random_numbers_move(write, merge):
    path, state = write(), torch.get_rng_state()
    merge(path)
    assert torch.equal(state, torch.get_rng_state())


# Identity


def test_identity_is_of_base_and_adapter(write, merge, checkpoints, tmp_path):
    found = {merge(write()).digest, merge(write(lora_alpha=7)).digest}
    found.add(merge(write(lambda w: w[min(w)].add_(1))).digest)
    found.add(merge(write(base_model_name_or_path=str(checkpoints[1]))).digest)
    found |= {digests.weights_digest(path, tmp_path) for path in checkpoints}
    assert len(found) == 6
    located = merge(write())
    assert model_digest(stage(tmp_path / "adapter"), located, tmp_path) == located.digest


def test_where_the_base_lies_is_no_part(write, merge, checkpoints, tmp_path):
    found = merge(write())
    moved = shutil.copytree(checkpoints[0], tmp_path / "moved")
    assert merge(write(base_model_name_or_path=str(moved), peft_version="9")) == found


def test_merged_once(write, merge, monkeypatch):
    found = merge(write())
    monkeypatch.setattr("olmo_stages.models.adapters.changes", None)  # it would fail
    assert merge(write()) == found


def test_a_random_initialisation_needs_no_weights(write, merge, checkpoints, tmp_path):
    bare = shutil.copytree(checkpoints[0], tmp_path / "bare")
    (bare / WEIGHTS).unlink()
    path = write(base_model_name_or_path=str(bare))
    (path / "chat_template.jinja").write_text("{{ messages }}")
    found = merge(path, random_init=3)
    told = stage(path, random_init=3)
    assert model_digest(told, found, tmp_path) == digests.random_digest(checkpoints[0], 3)
    assert (found.path / "chat_template.jinja").read_text() == "{{ messages }}"


# The tokenizer


def test_a_template_of_its_own_over_the_tokenizer_of_the_base(write, merge, checkpoints):
    path = write()
    (path / "chat_template.jinja").write_text("{{ messages }}")
    found = merge(path).path
    assert (found / "chat_template.jinja").read_text() == "{{ messages }}"
    same = (found / "tokenizer.json").read_bytes()
    assert same == (checkpoints[0] / "tokenizer.json").read_bytes()


def test_a_whole_tokenizer_replaces_that_of_the_base(write, merge):
    path = write()
    (path / "tokenizer.json").write_text("{}")
    found = merge(path).path
    assert [it.name for it in digests.tokenizer_files(found)] == ["tokenizer.json"]


def test_another_tokenizer_is_another_directory_of_the_same_weights(write, merge):
    first = merge(write())
    (write() / "chat_template.jinja").write_text("{{ messages }}")
    second = merge(write())
    assert (first.digest, first.path == second.path) == (second.digest, False)


# What it was trained on


def own(path):
    return Stage("parent", "custom", str(path))


def test_a_parent_is_the_base(write, merge, checkpoints):
    assert merge(write(), own(checkpoints[0])) == merge(write())


def test_a_parent_with_other_weights_is_refused(write, merge, checkpoints):
    with pytest.raises(ModelError, match=r"not those of model.parent=parent.*model.parent=null"):
        merge(write(), own(checkpoints[1]))


def test_a_copy_of_the_base_is_the_base(write, merge, checkpoints, tmp_path):
    copy = shutil.copytree(checkpoints[0], tmp_path / "copy")
    assert merge(write(), own(copy)) == merge(write())


@pytest.mark.parametrize("away", ["/far/away", "./away", "../far/away", "../away"])
def test_a_directory_elsewhere_is_taken_on_trust_and_said(write, merge, checkpoints, caplog, away):
    found = merge(write(base_model_name_or_path=away), own(checkpoints[0]))
    assert found == merge(write())
    assert f"trained on {away}, which is not here; it is merged into parent" in caplog.text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_model_name_or_path": "/far/away"}, r"not a directory here; give it with model.par"),
        ({"base_model_name_or_path": None}, r"does not say what it was trained on; .*=STAGE"),
    ],
)
def test_without_a_usable_base_the_parent_is_asked_for(write, merge, fields, said):
    with pytest.raises(ModelError, match=said):
        merge(write(**fields))


SFT = "allenai/Olmo-3-7B-Think-SFT"


@pytest.mark.parametrize(
    ("fields", "parent", "said"),
    [
        ({}, lookup("think_sft", "tiny"), r"miniature \(size=tiny\); .*=think_sft size=7b"),
        ({}, lookup("think_dpo", "7b"), r"Think-DPO \(size=7b\); give model.parent=think_sft"),
        (
            {"revision": "step1000"},
            lookup("think_sft", "7b"),
            r"at revision step1000, .* at main; give model.parent=think_sft@step1000",
        ),
    ],
)
def test_a_parent_of_another_name_is_refused(write, merge, fields, parent, said):
    with pytest.raises(ModelError, match=said):
        merge(write(base_model_name_or_path=SFT, **fields), parent)


@pytest.mark.parametrize(
    ("fields", "parent", "revision"),
    [
        ({}, lookup("think_sft", "7b"), "main"),
        ({}, lookup("think_sft@step1000", "7b"), "step1000"),
        ({"revision": "step1000"}, lookup("think_sft@step1000", "7b"), "step1000"),
        ({"revision": "step1000"}, None, "step1000"),
        ({"base_model_name_or_path": SFT.upper()}, lookup("think_sft", "7b"), "main"),
    ],
)
def test_a_released_base(write, fields, parent, revision):
    adapter = adapter_files.read_adapter(write(**{"base_model_name_or_path": SFT} | fields))
    found = adapter_files.base_stage(stage(adapter.path, parent), adapter)
    assert (found.source, found.revision) == (SFT, revision)


def test_a_base_of_another_shape_is_refused(write, merge, tmp_path):
    def widen(weights):
        for name in weights:
            if "lora_A" in name:
                weights[name] = torch.ones(RANK, 5)

    with pytest.raises(ModelError, match=r"does not fit .*size mismatch") as caught:
        merge(write(widen))
    assert "\n" not in str(caught.value)
    kept = (tmp_path / "cache" / derived.FOLDER).iterdir()
    assert not [it for it in kept if it.suffix != ".rw"]  # besides leases


# What is refused


def test_pickled_weights_are_never_loaded(write, merge):
    path = write()
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"pickled .bin weights are never loaded"):
        merge(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "of type IA3, not LORA"),
        ({"bias": "all"}, "bias=all"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights=pissa_niter_4"),
        ({"init_lora_weights": ["strange"]}, "init_lora_weights="),
        ({"layer_replication": [[0, 2]]}, r"layer_replication=\[\[0, 2\]\]"),
        ({"alora_invocation_tokens": [5]}, r"alora_invocation_tokens=\[5\]"),
        ({"trainable_token_indices": [5]}, r"trainable_token_indices=\[5\]"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"of_a_later_version": 1}, "of_a_later_version=1"),
    ],
)
def test_more_than_lora_is_refused_by_name(write, merge, fields, said):
    with pytest.raises(ModelError, match=f"{said}.*merge_and_unload"):
        merge(write(**fields))


def test_weights_that_the_config_does_not_know_are_refused(write, merge, base):
    name = "base_model.model.lm_head.weight"
    path = write(lambda w: w.update({name: base["lm_head.weight"]}))
    with pytest.raises(ModelError, match=f"holds {name}, unlike an adapter of its"):
        merge(path)


def test_missing_weights_are_refused(write, merge):
    with pytest.raises(ModelError, match=r"lacks .*layers.0.mlp.up_proj.lora_A.weight"):
        merge(write(lambda w: w.pop(min(w))))


def test_resized_embeddings_are_refused(write, merge, base):
    wide = torch.cat([base["lm_head.weight"], torch.ones(2, base["lm_head.weight"].shape[1])])
    path = write(
        lambda w: w.update({"base_model.model.lm_head.weight": wide}), modules_to_save=["lm_head"]
    )
    with pytest.raises(ModelError, match=r"lm_head"):
        merge(path)


def test_a_tied_head_is_refused(write, merge, checkpoints, base, tmp_path):
    tied = shutil.copytree(checkpoints[0], tmp_path / "tied")
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    path = write(
        lambda w: w.update({"base_model.model.lm_head.weight": base["lm_head.weight"]}),
        modules_to_save=["lm_head"],
        base_model_name_or_path=str(tied),
    )
    with pytest.raises(ModelError, match=r"changes lm_head .* tied to its embeddings"):
        merge(path)


def test_weights_that_are_not_finite_are_refused(write, merge):
    with pytest.raises(ModelError, match="is not finite once merged"):
        merge(write(lambda w: w[min(w)].fill_(float("nan"))))


def test_a_model_and_an_adapter_in_one_directory_are_refused(write, merge, checkpoints):
    path = write()
    shutil.copy(checkpoints[1] / WEIGHTS, path)
    with pytest.raises(ModelError, match=r"holds an adapter .* and a model"):
        merge(path)


def test_a_config_that_is_no_json_is_one_line(write, merge):
    path = write()
    (path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config.json: cannot be read"):
        merge(path)


def test_without_peft_the_package_is_named(write, merge, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'olmo-stages\[peft\]'"):
        merge(write())


def test_an_adapter_on_itself_is_refused(write, merge, tmp_path):
    with pytest.raises(ModelError, match="give it with"):
        merge(write(base_model_name_or_path=str(tmp_path / "adapter")))


def test_a_full_fine_tune_is_loaded_as_it_is(merge, checkpoints):
    found = merge(checkpoints[1], own(checkpoints[0]))
    assert found == Checkpoint(checkpoints[1], None)
    assert replace(found, commit="x").commit == "x"
