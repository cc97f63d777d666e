import os
import re

import pytest
import yaml

from olmo_stages import miniature
from olmo_stages.errors import ConfigError
from olmo_stages.revisions import names
from olmo_stages.stages import (
    FORMATS,
    catalogue,
    conf_folder,
    custom,
    lookup,
    release,
    releases,
    resolve,
    searching,
)

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
    "olmo2_instruct": {
        "tiny": "olmo2_dpo",
        "1b": "olmo2_rlvr1",
        "7b": "olmo2_dpo",
        "13b": "olmo2_rlvr1",
        "32b": "olmo2_dpo",
    },
    "olmo2_rlvr1": "olmo2_dpo",
    "olmo2_base_early": None,
}

# Typed from the model cards and the technical reports, not from conf/model.
# stage, size: repository, parent, spelling of the revisions besides main (? = not known)
RELEASED = """
base              7b   Olmo-3-1025-7B    - stage1-stepN stage2-stepN stage3-stepN
base              32b  Olmo-3-1125-32B             -            stage1-stepN
think_sft         7b   Olmo-3-7B-Think-SFT         base         stepN
think_sft         32b  Olmo-3-32B-Think-SFT        base         5e-5-stepN 1e-4-stepN
think_dpo         7b   Olmo-3-7B-Think-DPO         think_sft
think_dpo         32b  Olmo-3-32B-Think-DPO        think_sft
think_rlvr        7b   Olmo-3-7B-Think             think_dpo    step_NNNN
think_rlvr        32b  Olmo-3-32B-Think            think_dpo    step_NNN
think_rlvr_31     32b  Olmo-3.1-32B-Think          think_dpo    step_NNNN
instruct_sft      7b   Olmo-3-7B-Instruct-SFT      think_sft    ?
instruct_sft      32b  Olmo-3.1-32B-Instruct-SFT   think_sft    ?
instruct_dpo      7b   Olmo-3-7B-Instruct-DPO      instruct_sft ?
instruct_dpo      32b  Olmo-3.1-32B-Instruct-DPO   instruct_sft ?
instruct_rlvr     7b   Olmo-3-7B-Instruct          instruct_dpo step_NNN
instruct_rlvr     32b  Olmo-3.1-32B-Instruct       instruct_dpo ?
rl_zero_math      7b   Olmo-3-7B-RL-Zero-Math      base         step_N
rl_zero_code      7b   Olmo-3-7B-RL-Zero-Code      base         step_N
rl_zero_if        7b   Olmo-3-7B-RL-Zero-IF        base         step_N
rl_zero_general   7b   Olmo-3-7B-RL-Zero-General   base         ?
rl_zero_mix       7b   Olmo-3-7B-RL-Zero-Mix       base         ?
rl_zero_math_31   7b   Olmo-3.1-7B-RL-Zero-Math    base         step_NNNN
rl_zero_code_31   7b   Olmo-3.1-7B-RL-Zero-Code    base         step_NNNN
olmo2_base        1b   OLMo-2-0425-1B              -            S1 S2
olmo2_base        7b   OLMo-2-1124-7B              -            S1 S2 stepN-tokensTB
olmo2_base        13b  OLMo-2-1124-13B             -            S1 S2
olmo2_base        32b  OLMo-2-0325-32B             -            S1 S2
olmo2_base_early  1b   OLMo-2-0425-1B-early-training -          stepN
olmo2_sft         1b   OLMo-2-0425-1B-SFT          olmo2_base   ?
olmo2_sft         7b   OLMo-2-1124-7B-SFT          olmo2_base   ?
olmo2_sft         13b  OLMo-2-1124-13B-SFT         olmo2_base   ?
olmo2_sft         32b  OLMo-2-0325-32B-SFT         olmo2_base   ?
olmo2_dpo         1b   OLMo-2-0425-1B-DPO          olmo2_sft    ?
olmo2_dpo         7b   OLMo-2-1124-7B-DPO          olmo2_sft    ?
olmo2_dpo         13b  OLMo-2-1124-13B-DPO         olmo2_sft    ?
olmo2_dpo         32b  OLMo-2-0325-32B-DPO         olmo2_sft    ?
olmo2_rlvr1       1b   OLMo-2-0425-1B-RLVR1        olmo2_dpo    ?
olmo2_rlvr1       13b  OLMo-2-1124-13B-Instruct-RLVR1 olmo2_dpo ?
olmo2_instruct    1b   OLMo-2-0425-1B-Instruct     olmo2_rlvr1  ?
olmo2_instruct    7b   OLMo-2-1124-7B-Instruct     olmo2_dpo    ?
olmo2_instruct    13b  OLMo-2-1124-13B-Instruct    olmo2_rlvr1  ?
olmo2_instruct    32b  OLMo-2-0325-32B-Instruct    olmo2_dpo    ?
"""
ABBREVIATED = {"S1": "stage1-stepN-tokensTB", "S2": "stage2-ingredientK-stepN-tokensTB"}
ROWS = {tuple(row.split()[:2]): row.split()[2:] for row in RELEASED.strip().splitlines()}

# stage, size, and a revision that the model card, or another one's notes, name.
SEEN = [
    ("base", "7b", "stage1-step1413814"),
    ("base", "7b", "stage2-step47684"),
    ("base", "7b", "stage3-step11921"),
    ("base", "32b", "stage1-step10000"),
    ("think_sft", "7b", "step1000"),
    ("think_sft", "7b", "step43000"),
    ("think_sft", "32b", "5e-5-step10790"),
    ("think_sft", "32b", "1e-4-step1000"),
    ("think_rlvr", "7b", "step_0025"),
    ("think_rlvr", "7b", "step_1375"),
    ("think_rlvr", "32b", "step_050"),
    ("think_rlvr", "32b", "step_750"),
    ("think_rlvr_31", "32b", "step_2300"),
    ("instruct_rlvr", "7b", "step_300"),
    ("rl_zero_math", "7b", "step_100"),
    ("rl_zero_math", "7b", "step_1900"),
    ("rl_zero_code", "7b", "step_2900"),
    ("rl_zero_math_31", "7b", "step_0100"),
    ("rl_zero_code_31", "7b", "step_1950"),
    ("olmo2_base", "1b", "stage1-step1907359-tokens4001B"),
    ("olmo2_base", "1b", "stage2-ingredient3-step23852-tokens51B"),
    ("olmo2_base", "7b", "stage1-step928646-tokens3896B"),
    ("olmo2_base", "7b", "step150-tokens1B"),
    ("olmo2_base", "13b", "stage2-ingredient4-step35773-tokens300B"),
    ("olmo2_base", "32b", "stage1-step721901-tokens6056B"),
    ("olmo2_base_early", "1b", "step36000"),
]


def test_every_stage_has_its_parent():
    assert {name: spec["parent"] for name, spec in catalogue().items()} == LINEAGE


def test_parents_come_before_their_children():
    order = list(catalogue())
    for name, parent in LINEAGE.items():
        for each in parent.values() if isinstance(parent, dict) else [parent]:
            assert each is None or order.index(each) < order.index(name)


def test_every_released_repository_is_there_and_no_other():
    assert {(it.name, it.size) for it in releases() if it.size != "tiny"} == set(ROWS)


@pytest.mark.parametrize(("stage", "size"), ROWS)
def test_source_parent_and_spelling_of_a_release(stage, size):
    repository, parent, *branches = ROWS[stage, size]
    told = release(stage, size)
    found = lookup(stage, size)
    assert told.source == found.source == f"allenai/{repository}"
    assert found.parent == (None if parent == "-" else lookup(parent, size))
    spelt = None if branches == ["?"] else [ABBREVIATED.get(it, it) for it in branches]
    shown = told.branches if told.branches is None else [it.split()[0] for it in told.branches]
    assert shown == spelt


@pytest.mark.parametrize(("stage", "size", "revision"), SEEN)
def test_revisions_that_exist_fit_their_spelling(stage, size, revision):
    spellings = [names.spelling(text) for text in release(stage, size).branches]
    fitting = [it for it in spellings if it.fits(revision)]
    assert len(fitting) == 1
    step = names.parse(revision).step
    assert fitting[0].last is None or step <= fitting[0].last
    assert fitting[0].first is None or step >= fitting[0].first


GRIDS = [
    (name, size, [it.strip() for it in grid.split(",")])
    for name, spec in catalogue().items()
    for size, grid in spec.get("grid", {}).items()
]


@pytest.mark.parametrize(("stage", "size", "grid"), GRIDS)
def test_a_grid_names_revisions_that_there_are_in_the_order_of_training(stage, size, grid):
    told = release(stage, size)
    if told.source == "miniature":
        assert set(grid) <= set(miniature.revisions(stage))
    else:
        spellings = [names.spelling(text) for text in told.branches]
        assert all(any(it.fits(name) for it in spellings) for name in grid if name != "main")
        assert all(
            names.parse(name).step <= it.last for name in grid for it in spellings if it.fits(name)
        )
    assert [it.name for it in names.in_order(grid)[0]] == grid
    assert grid[-1] == "main"


def test_the_miniature_family_has_the_stages_that_it_builds():
    tiny = {it.name: it.parent for it in releases("tiny")}
    assert tiny == miniature.PARENTS
    assert {it.source for it in releases("tiny")} == {"miniature"}


@pytest.mark.parametrize(
    ("family", "size", "n_layers", "n_full", "context", "before"),
    [
        ("olmo3", "7b", 32, 8, 65536, 8192),
        ("olmo3", "32b", 64, 16, 65536, 8192),
        ("olmo2", "1b", 16, 16, 4096, None),
        ("olmo2", "7b", 32, 32, 4096, None),
        ("olmo2", "13b", 40, 40, 4096, None),
        ("olmo2", "32b", 64, 64, 4096, None),
    ],
)
def test_shape_of_a_family(family, size, n_layers, n_full, context, before):
    for it in releases(size):
        if it.family == family:
            types = it.shape.layer_types
            assert (len(types), types.count("full_attention")) == (n_layers, n_full)
            assert (it.shape.context, it.shape.pretraining_context) == (context, before)


def test_every_fourth_layer_of_olmo_3_has_full_attention():
    types = release("base", "7b").shape.layer_types
    assert [i for i, kind in enumerate(types) if kind == "full_attention"] == [*range(3, 32, 4)]


def test_the_miniature_shape_is_the_one_that_is_built():
    from olmo_stages.miniature.recipe import Architecture

    shape, built = release("base", "tiny").shape, Architecture()
    assert (shape.n_layers, shape.context) == (built.n_layers, built.max_positions)


def test_base_models_are_made_for_raw_text_and_post_trained_ones_for_chats():
    formats = {it.name: it.format for it in releases()}
    raw = {name for name, format in formats.items() if format == "raw"}
    assert raw == {name for name in formats if "base" in name or name.startswith("rl_zero")}
    assert set(formats.values()) == {"raw", "chat_fixed"} < set(FORMATS)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"format": "raw"}, r"model\.format=raw .*data\.format="),
        ({"branches": ["step_0025"]}, r"model\.branches=.*model\.revision="),
        ({"formt": "raw"}, r"no option 'formt' \(did you mean format\?\)"),
        ({"format": "chat"}, r"format 'chat' does not exist; choose from raw, scaffold"),
    ],
)
def test_what_was_released_is_no_option(told, said):
    spec = catalogue()["think_rlvr"]
    given = {key: spec[key] for key in ("name", "family", "parent", "revision", "sources")}
    with pytest.raises(ConfigError, match=said):
        resolve(**given, size="7b", **told)


def test_comments_and_keys_of_a_stage_are_the_same_in_every_file():
    for path in (conf_folder() / "model").glob("*.yaml"):
        text = path.read_text()
        keys = list(yaml.safe_load(text))
        assert text.startswith("# "), path
        if path.stem not in {"custom", "soup"}:
            keys = [key for key in keys if key not in {"tokenizer_from", "grid"}]  # of few
            assert keys == [key for key in catalogue()["base"] if key != "grid"], path
            assert re.search(r"^size: \$\{size\}$", text, re.MULTILINE), path


def test_instruct_descends_from_think_sft():
    lineage = [stage.name for stage in lookup("instruct_rlvr", "7b").lineage()]
    assert lineage == ["base", "think_sft", "instruct_sft", "instruct_dpo", "instruct_rlvr"]


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


def test_a_size_in_capitals_is_recognised():
    with pytest.raises(ConfigError, match=r"size=7B; .*did you mean 7b\?"):
        lookup("base", "7B")


def test_a_stage_that_changes_while_we_run_is_read_again(tmp_path):
    (tmp_path / "model").mkdir()
    text = (conf_folder() / "model" / "think_sft.yaml").read_text()
    file = tmp_path / "model" / "mine.yaml"
    with searching([tmp_path]):
        for name in ("first", "second"):
            file.write_text(text.replace("name: think_sft", f"name: {name}"))
            os.utime(file, ns=(0, len(name)))
            assert name in catalogue()
        assert "first" not in catalogue()
    assert "second" not in catalogue()
