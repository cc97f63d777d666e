"""What the whole family does, from the user's cache; builds it in minutes where it is missing."""

import itertools
import math
import os
from pathlib import Path

import platformdirs
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.miniature import PARENTS, STAGES, behaviour, build
from olmo_stages.miniature.family import RECIPE
from olmo_stages.miniature.recipe import RL

TRAINED_FOR = {
    stage: options.tasks for stage, options in RECIPE.post.items() if isinstance(options, RL)
}


def cache() -> Path:
    default = platformdirs.user_cache_path("olmo-stages")
    return Path(os.environ.get("OLMO_STAGES_CACHE", default)) / "miniature"


@pytest.fixture(scope="module")
def table():
    rows = behaviour.behaviour_table(STAGES, root=cache())
    return {(row.stage, row.metric): row for row in rows}


def mean(table, stage, metrics):
    """Mean of several metrics with its standard error."""
    rows = [table[stage, metric] for metric in metrics]
    se = math.sqrt(sum(row.se**2 for row in rows)) / len(rows)
    return sum(row.value for row in rows) / len(rows), se


def test_the_table_has_a_row_a_stage_and_a_column_a_metric(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(behaviour, "N_PROMPTS", 3)
    monkeypatch.setattr(behaviour, "MAX_NEW_TOKENS", 3)
    stages = ("base", "think_sft")
    for stage in stages:  # here, as a process of its own would import everything again
        build.publish(stage, tiny_recipe, 0, tmp_path / tiny_recipe.digest(0), lambda *_: None)
    rows = behaviour.behaviour_table(stages, root=tmp_path, recipe=tiny_recipe)
    assert [(row.stage, row.metric) for row in rows] == list(
        itertools.product(stages, behaviour.METRICS)
    )
    lines = behaviour.to_markdown(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["stage", "---", *stages]
    assert {line.count("|") for line in lines} == {len(behaviour.METRICS) + 2}


def test_a_metric_is_the_mean_over_prompts_with_its_standard_error():
    row = behaviour._row("base", "sum2", [1.0, 0.0, 0.5, 0.5])
    assert row.value == 0.5
    assert row.se == pytest.approx(math.sqrt((0.25 + 0.25) / 3) / 2)
    assert row.n == 4


ROWS = [behaviour.Behaviour("base", metric, 0.25, 0.01, 4) for metric in behaviour.METRICS]


def test_the_table_goes_between_the_markers_of_a_page_and_can_be_renewed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{behaviour.MARKER}\nold\n{behaviour.MARKER}\nafter\n")
    behaviour.write_table(ROWS, page)
    once = page.read_text()
    assert once == (
        f"# Before\n{behaviour.MARKER}\n{behaviour.to_markdown(ROWS)}{behaviour.MARKER}\nafter\n"
    )
    behaviour.write_table(ROWS, page)
    assert page.read_text() == once


def test_a_new_page_can_be_renewed(tmp_path):
    behaviour.write_table(ROWS, tmp_path / "new.md")
    once = (tmp_path / "new.md").read_text()
    behaviour.write_table(ROWS, tmp_path / "new.md")
    assert (tmp_path / "new.md").read_text() == once
    assert behaviour.to_markdown(ROWS) in once


def test_a_page_without_markers_is_not_overwritten(tmp_path):
    page = tmp_path / "thesis.md"
    page.write_text("ten years of work")
    with pytest.raises(ConfigError, match="thesis"):
        behaviour.write_table(ROWS, page)
    assert page.read_text() == "ten years of work"


def test_samples_are_averaged_before_prompts():
    assert behaviour._by_prompt([True, False, False, False, True, True, True, True]) == [0.25, 1.0]


@pytest.mark.slow
def test_base_rl_zero_and_olmo2_show_no_traces(table):
    for stage in STAGES:
        if stage.startswith(("base", "rl_zero", "olmo2")):
            assert table[stage, "trace"].value < 0.02, stage


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["think_sft", "think_dpo", "think_rlvr"])
def test_think_stages_show_traces(table, stage):
    assert table[stage, "trace"].value > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["instruct_sft", "instruct_dpo", "instruct_rlvr"])
def test_instruct_stages_show_no_traces(table, stage):
    assert table[stage, "trace"].value < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["think_dpo", "instruct_dpo", "olmo2_dpo"])
def test_dpo_raises_the_preference_margin_and_the_manners(table, stage):
    for metric in ("margin", "manners"):
        after, before = table[stage, metric], table[PARENTS[stage], metric]
        assert after.value - before.value > 2 * math.hypot(after.se, before.se), metric


@pytest.mark.slow
@pytest.mark.parametrize("stage", TRAINED_FOR)
def test_reinforcement_raises_its_own_reward(table, stage):
    after, se_after = mean(table, stage, TRAINED_FOR[stage])
    before, se_before = mean(table, PARENTS[stage], TRAINED_FOR[stage])
    assert after - before > 2 * math.hypot(se_after, se_before)


@pytest.mark.slow
def test_later_training_does_not_ruin_the_language_model(table):
    assert all(table[stage, "lm_loss"].value < 1.6 for stage in STAGES)
