"""A checkpoint under the name of a release must have the config.json of that release."""

import json
from dataclasses import replace

import pytest
from transformers import Olmo2Config, Olmo3Config

from olmo_stages.errors import ModelError
from olmo_stages.models import config_differences, released
from olmo_stages.models.checkpoints import locate
from olmo_stages.stages import custom, lookup, releases
from olmo_stages.types import Member, Stage
from tests.models.released import RELEASED, released_config

SLIDING, FULL = "sliding_attention", "full_attention"
YARN = RELEASED["rope_scaling"]
DEFAULT = {"rope_type": "default", "rope_theta": 500000.0}
NESTED = {FULL: {**YARN, "rope_theta": 500000.0}, SLIDING: DEFAULT}
# d_model, MLP, blocks, heads, key-value heads.
SIZES = {
    ("olmo3", "7b"): (4096, 11008, 32, 32, 32),
    ("olmo3", "32b"): (5120, 27648, 64, 40, 8),
    ("olmo2", "1b"): (2048, 8192, 16, 16, 16),
    ("olmo2", "7b"): (4096, 11008, 32, 32, 32),
    ("olmo2", "13b"): (5120, 13824, 40, 40, 40),
    ("olmo2", "32b"): (5120, 27648, 64, 40, 8),
}
OLMO2 = {
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "vocab_size": 100352,
    "max_position_embeddings": 4096,
    "sliding_window": None,
    "layer_types": None,
    "rope_scaling": None,
}
EARLY = {"max_position_embeddings": 8192, "rope_scaling": None}


def real(family, size, **changes):
    """The config.json of a release."""
    d_model, d_ff, n_layers, n_heads, n_kv = SIZES[family, size]
    shape = {
        "vocab_size": 100278,
        "hidden_size": d_model,
        "intermediate_size": d_ff,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv,
        "layer_types": ([SLIDING] * 3 + [FULL]) * (n_layers // 4),
    }
    return released_config(**{**shape, **(OLMO2 if family == "olmo2" else {}), **changes})


@pytest.fixture
def place(tmp_path):
    """Finds a stage whose directory holds a config.json and nothing else."""

    def place(stage, config):
        path = tmp_path / "checkpoint"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text("{}")
        # As a stage with a random initialisation, which needs no weights.
        return locate(replace(stage, source=str(path), random_init=0), tmp_path / "cache")

    return place


RELEASES = [(it.name, it.family, it.size) for it in releases() if it.size != "tiny"]


@pytest.mark.parametrize(("name", "family", "size"), RELEASES)
def test_every_release_is_what_it_should_be(place, name, family, size):
    place(lookup(name, size), real(family, size))


@pytest.mark.parametrize("size", ["7b", "32b"])
@pytest.mark.parametrize(
    ("revision", "changes"),
    [
        ("stage1-step1000", EARLY),
        ("stage2-step47684", EARLY),
        ("stage3-step11921", {}),
        ("main", {}),
        ("0123456789" * 4, EARLY),
        ("0123456789" * 4, {}),
        ("stage2-step47684-mix-code-from-2T-ckpt", EARLY),
    ],
)
def test_revisions_of_base_have_the_context_of_their_phase(place, size, revision, changes):
    place(lookup(f"base@{revision}", size), real("olmo3", size, **changes))


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        ("base@stage1-step1000", {}, r"max_position_embeddings 65536 \(released: 8192\)"),
        ("base@stage2-step47684", {}, r"rope_scaling.rope_type yarn \(released: default\)"),
        ("base@stage3-step11921", EARLY, r"max_position_embeddings 8192 \(released: 65536\)"),
        ("base", EARLY, r"rope_scaling.rope_type default \(released: yarn\)"),
        ("think_sft@step1000", EARLY, r"max_position_embeddings 8192 \(released: 65536\)"),
        ("rl_zero_math@step_100", EARLY, r"max_position_embeddings 8192 \(released: 65536\)"),
    ],
)
def test_the_context_of_another_phase_is_refused(place, stage, changes, said):
    with pytest.raises(ModelError, match=said):
        place(lookup(stage, "7b"), real("olmo3", "7b", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": NESTED, "rope_scaling": None, "rope_theta": None},
        {"model_type": "olmo2-retrofit", "sliding_window": 4097},
        {"model_type": "olmo2-retrofit"},
        {"vocab_size": 100352},  # as trained, with rows that no token has
        {"layer_types": None, "num_key_value_heads": None, "tie_word_embeddings": None},
        {"rope_scaling": {k: YARN[k] for k in ("rope_type", "factor")} | {
            "original_max_position_embeddings": 8192
        }},
        {"head_dim": 128, "use_cache": True, "eos_token_id": 100257},
    ],
    ids=["nested", "retrofit", "retrofit of 4096", "padded", "left out", "short", "more"],
)  # fmt: skip
def test_another_way_of_writing_it_is_the_same(place, changes):
    place(lookup("think_sft", "7b"), real("olmo3", "7b", **changes))


def yarn(**changes):
    return {"rope_scaling": YARN | changes}


WRONG = [
    (
        {"layer_types": [FULL] * 32},
        r"layer_types full in 0, 1, ..., 31 of 32 \(released: full in 3, 7, ..., 31 of",
    ),
    ({"layer_types": ([FULL] + [SLIDING] * 3) * 8}, r"layer_types full in 0, 4, ..., 28 of 32"),
    ({"sliding_window": 512}, r"sliding_window 512 \(released: 4096\)"),
    ({"sliding_window": 0}, r"sliding_window 0 \(released: 4096\)"),
    ({"sliding_window": 4097}, r"sliding_window 4097 \(released: 4096\)"),
    ({"rms_norm_eps": 1e-5}, r"rms_norm_eps 1e-05 \(released: 1e-06\)"),
    ({"rms_norm_eps": None}, r"rms_norm_eps left out, which means 1e-05 \(released: 1e-06\)"),
    ({"hidden_size": 4608}, r"hidden_size 4608 \(released: 4096\)"),
    ({"intermediate_size": 11000}, r"intermediate_size 11000 \(released: 11008\)"),
    ({"num_hidden_layers": 31}, r"num_hidden_layers 31 \(released: 32\)"),
    ({"num_attention_heads": 16}, r"num_attention_heads 16 \(released: 32\)"),
    ({"num_key_value_heads": 8}, r"num_key_value_heads 8 \(released: 32\)"),
    ({"head_dim": 64}, r"head_dim 64 \(released: 128\)"),
    ({"vocab_size": 50304}, r"vocab_size 50304 \(released: 100278 or 100352\)"),
    ({"tie_word_embeddings": True}, r"tie_word_embeddings True \(released: False\)"),
    ({"hidden_act": "gelu"}, r"hidden_act gelu \(released: silu\)"),
    ({"attention_bias": True}, r"attention_bias True \(released: False\)"),
    ({"max_position_embeddings": None}, r"max_position_embeddings left out \(released: 65536\)"),
    (yarn(factor=16.0), r"rope_scaling.factor 16.0 \(released: 8.0\)"),
    (yarn(attention_factor=1.0), r"rope_scaling.attention_factor 1.0 \(released: 1.2079"),
    (yarn(beta_fast=16.0), r"rope_scaling.beta_fast 16.0 \(released: 32.0\)"),
    (yarn(beta_slow=2.0), r"rope_scaling.beta_slow 2.0 \(released: 1.0\)"),
    (yarn(original_max_position_embeddings=4096), r"original_max_position_embeddings 4096 \("),
    ({"rope_scaling": None}, r"rope_scaling.rope_type default \(released: yarn\)"),
    ({"rope_theta": 10000}, r"rope_theta 10000 \(released: 500000.0\); take"),
    ({"model_type": "llama"}, r"model_type llama \(released: olmo3\)"),
    (
        {"rope_parameters": {k: v | {"rope_theta": 10000.0} for k, v in NESTED.items()}},
        r"rope_parameters.sliding_attention.rope_theta 10000.0 \(released: 500000.0\)",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=lambda it: next(iter(it), ""))
def test_another_config_under_the_name_of_a_release_is_refused(place, changes, said):
    with pytest.raises(ModelError, match=said) as caught:
        place(lookup("think_rlvr", "7b"), real("olmo3", "7b", **changes))
    message = str(caught.value)
    assert message.startswith("stage think_rlvr (")
    assert "\n" not in message
    assert message.endswith("model.parent=think_rlvr size=7b")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_theta": None}, r"rope_theta 10000.0 \(released: 500000.0\)"),
        ({"rope_theta": 10000}, r"rope_theta 10000 \(released: 500000.0\)"),
        (yarn(), r"rope_scaling.rope_type yarn \(released: default\)"),
        ({"rms_norm_eps": None}, r"rms_norm_eps left out, which means 1e-05"),
        ({"num_key_value_heads": 8}, r"num_key_value_heads 8 \(released: 40\)"),
        ({"model_type": "olmo3"}, r"model_type olmo3 \(released: olmo2\)"),
    ],
    ids=lambda it: next(iter(it), ""),
)
def test_another_config_under_the_name_of_an_olmo_2_is_refused(place, changes, said):
    with pytest.raises(ModelError, match=said):
        place(lookup("olmo2_dpo", "13b"), real("olmo2", "13b", **changes))


@pytest.mark.parametrize(
    ("name", "size", "changes", "said"),
    [
        (
            "think_sft@step1000",
            "7b",
            {"max_position_embeddings": 32768},
            "max_position_embeddings 32768 (expected: 65536), which changes how long a prompt may",
        ),
        (
            "olmo2_dpo",
            "13b",
            {"max_position_embeddings": 8192},
            "max_position_embeddings 8192 (expected: 4096), which changes how long a prompt may be",
        ),
        (
            "rl_zero_mix",
            "7b",
            {"sliding_window": 4097},
            "sliding_window 4097 (expected: 4096), which changes activations of prompts of more",
        ),
    ],
    ids=["olmo 3", "olmo 2", "renamed retrofit"],
)
def test_what_changes_little_is_said_and_not_refused(place, name, size, changes, said):
    stage = lookup(name, size)
    family = "olmo2" if name == "olmo2_dpo" else "olmo3"
    (sentence,) = released.caveats(stage, place(stage, real(family, size, **changes)).path)
    assert sentence.startswith(f"config.json of {stage.label} ({size}) has {said}")
    assert "\n" not in sentence


def test_of_a_release_as_it_should_be_nothing_is_said(place):
    for name, window in (("think_sft", 4096), ("rl_zero_mix", 4097)):
        stage = lookup(name, "7b")
        kind = "olmo3" if window == 4096 else "olmo2-retrofit"
        config = real("olmo3", "7b", sliding_window=window, model_type=kind)
        assert released.caveats(stage, place(stage, config).path) == ()


def test_the_same_rotary_embedding_of_an_olmo_2_in_the_newer_way(place):
    changes = {"rope_theta": None, "rope_parameters": DEFAULT}
    place(lookup("olmo2_base", "1b"), real("olmo2", "1b", **changes))


def test_a_size_under_the_name_of_another_is_refused(place):
    with pytest.raises(ModelError, match=r"hidden_size 4096 \(released: 5120\).* and \d more"):
        place(lookup("base", "32b"), real("olmo3", "7b"))


def test_what_is_left_out_means_what_transformers_takes_for_it():
    for family, config in (("olmo3", Olmo3Config()), ("olmo2", Olmo2Config())):
        defaults = config.to_dict()
        ropes = defaults["rope_parameters"]
        theta = {it["rope_theta"] for it in (ropes.values() if FULL in ropes else [ropes])}
        defaults["rope_theta"] = theta.pop()
        assumed = config_differences.ASSUMED[family]
        assert assumed == {name: defaults[name] for name in assumed}


# A checkpoint of one's own


@pytest.fixture
def own(tmp_path):
    """A fine-tune of a stage, and what is said of it."""

    def own(config, parent="think_sft", size="7b"):
        path = tmp_path / "own"
        path.mkdir(exist_ok=True)
        (path / "config.json").write_text(json.dumps(config))
        options = {"path": str(path), "name": None, "parent": parent, "revision": "main"}
        stage = custom(**options, size=size)
        found = locate(replace(stage, random_init=0), tmp_path / "cache")
        return released.caveats(stage, found.path)

    return own


@pytest.mark.parametrize(("changes", "said"), WRONG[4:8], ids=lambda it: next(iter(it), ""))
def test_ones_own_may_differ_and_it_is_said(own, changes, said):
    (sentence,) = own(real("olmo3", "7b", **changes))
    assert sentence.startswith("config.json of own is not that of think_sft (7b), from which it")
    expected = said.replace("released", "there").replace("\\", "")
    assert expected in sentence
    assert "\n" not in sentence


def test_of_ones_own_that_has_its_parents_shape_nothing_is_said(own):
    assert own(real("olmo3", "7b")) == ()
    assert own(real("olmo3", "7b", **EARLY), parent="base@stage1-step1000") == ()
    assert own(real("olmo3", "7b", sliding_window=512), parent=None) == ()
    # Fine-tuned on shorter prompts: activations are computed as before.
    assert own(real("olmo3", "7b", max_position_embeddings=32768)) == ()


def test_of_another_architecture_that_alone_is_said(own):
    (sentence,) = own({"model_type": "llama", "hidden_size": 64})
    assert "model_type llama (there: olmo3); " in sentence


def test_the_miniature_family_is_a_parent_too(own):
    built = Olmo3Config(
        vocab_size=10, rms_norm_eps=1e-6, max_position_embeddings=512, sliding_window=16
    ).to_dict()
    (sentence,) = own(built, size="tiny")
    assert "is not that of think_sft (tiny)" in sentence
    assert "hidden_size 4096 (there: 64)" in sentence


def test_a_soup_may_have_the_name_of_a_release():
    stage = replace(lookup("base", "7b"), members=(Member(lookup("base", "7b"), 1.0),))
    assert released.release_of(stage) is None
    assert released.release_of(lookup("base", "7b")) is not None
    assert released.release_of(Stage("base", "custom", "here")) is None
