import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.stages import catalogue, custom, lookup, searching

LINEAGE = {
    "base": None,
    "think_sft": "base",
    "think_dpo": "think_sft",
    "think_rlvr": "think_dpo",
    "think_rlvr_31": "think_dpo",
    "instruct_sft": "think_sft",
    "instruct_dpo": "instruct_sft",
    "instruct_rlvr": "instruct_dpo",
    "rl_zero_math": "base",
    "rl_zero_code": "base",
    "rl_zero_if": "base",
    "rl_zero_general": "base",
    "rl_zero_mix": "base",
    "rl_zero_math_31": "base",
    "rl_zero_code_31": "base",
    "olmo2_base": None,
    "olmo2_sft": "olmo2_base",
    "olmo2_dpo": "olmo2_sft",
    "olmo2_instruct": "olmo2_dpo",
}


def test_every_stage_has_its_parent():
    assert {name: spec["parent"] for name, spec in catalogue().items()} == LINEAGE


def test_parents_come_before_their_children():
    names = list(catalogue())
    for name, parent in LINEAGE.items():
        assert parent is None or names.index(parent) < names.index(name)


@pytest.mark.parametrize(
    ("stage", "size", "source"),
    [
        ("base", "7b", "allenai/Olmo-3-1025-7B"),
        ("base", "32b", "allenai/Olmo-3-1125-32B"),
        ("think_rlvr", "7b", "allenai/Olmo-3-7B-Think"),
        ("think_rlvr", "32b", "allenai/Olmo-3-32B-Think"),
        ("think_rlvr_31", "32b", "allenai/Olmo-3.1-32B-Think"),
        ("instruct_sft", "32b", "allenai/Olmo-3.1-32B-Instruct-SFT"),
        ("instruct_rlvr", "7b", "allenai/Olmo-3-7B-Instruct"),
        ("rl_zero_mix", "7b", "allenai/Olmo-3-7B-RL-Zero-Mix"),
        ("rl_zero_code_31", "7b", "allenai/Olmo-3.1-7B-RL-Zero-Code"),
        ("olmo2_dpo", "32b", "allenai/OLMo-2-0325-32B-DPO"),
        ("olmo2_instruct", "1b", "allenai/OLMo-2-0425-1B-Instruct"),
        ("base", "tiny", "miniature"),
    ],
)
def test_source_of_a_stage(stage, size, source):
    assert lookup(stage, size).source == source


def test_instruct_descends_from_think_sft():
    names = [stage.name for stage in lookup("instruct_rlvr", "7b").lineage()]
    assert names == ["base", "think_sft", "instruct_sft", "instruct_dpo", "instruct_rlvr"]


def test_a_revision_is_named_after_an_at_sign():
    stage = lookup("base@stage1-step100", "tiny")
    assert (stage.revision, stage.label) == ("stage1-step100", "base@stage1-step100")


@pytest.mark.parametrize("size", ["32b", "1b", "nonsense"])
def test_a_missing_size_lists_those_there_are(size):
    with pytest.raises(ConfigError, match=rf"rl_zero_math .*size={size}; its sizes: tiny, 7b\."):
        lookup("rl_zero_math", size)


def test_an_unknown_stage_lists_the_stages_and_the_nearest():
    with pytest.raises(ConfigError, match=r"'think_stf'.*base, .*did you mean think_sft\?"):
        lookup("think_stf", "tiny")


def test_custom_takes_a_directory_and_a_parent(tmp_path):
    stage = custom(path=str(tmp_path), name=None, parent="think_sft", revision="main", size="7b")
    assert stage.name == tmp_path.name
    assert stage.source == str(tmp_path)
    assert stage.parent == lookup("think_sft", "7b")


def test_custom_keeps_a_hub_id_as_it_is():
    stage = custom(path="me/my-olmo", name=None, parent=None, revision="main", size="7b")
    assert (stage.source, stage.name, stage.parent) == ("me/my-olmo", "my-olmo", None)


def test_custom_without_a_path_says_what_to_give():
    with pytest.raises(ConfigError, match=r"model\.path="):
        custom(path=None, name=None, parent=None, revision="main", size="7b")


def test_a_new_stage_is_one_file(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text(
        "name: mine\nfamily: olmo3\nparent: think_sft\nrevision: main\nsources: {7b: me/mine}\n"
    )
    with searching([tmp_path]):
        assert lookup("mine", "7b").parent == lookup("think_sft", "7b")
    with pytest.raises(ConfigError):
        lookup("mine", "7b")
