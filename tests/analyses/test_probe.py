import json
from dataclasses import replace

import numpy as np
import pytest

from olmo_stages import estimates
from olmo_stages.analyses.probe import Probe
from olmo_stages.controls import bag_of_tokens, control_labels
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.types import Analysis, Example
from tests.fakes import BASE, THINK, FakeSource, grouped_examples

OPTIONS = {
    "kind": "logistic",
    "site": "resid_post",
    "position": "last",
    "layers": None,
    "strengths": [0.01, 0.1, 1.0],
    "n_folds": 5,
    "n_inner": 3,
    "n_resamples": 400,
    "n_permutations": 99,
    "n_controls": 1,
    "random_init": True,
}


def probe(**options):
    return Probe(**(OPTIONS | options))


def concept(signal, n_groups=30, d=10, heads=3, per_group=4, **kwargs):
    """Activations whose layer k shows the label with strength `signal[stage] * k / (heads - 1)`."""
    examples = tuple(grouped_examples(n_groups, per_group, **kwargs))
    labels = np.array([e.label for e in examples])

    def make(stage):
        seed = sum(map(ord, stage.label))
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(heads, len(labels), d))
        strength = 0 if stage.random_init is not None else signal.get(stage.name, 0)
        direction = np.zeros(d)
        direction[0] = 1
        depth = np.linspace(0, 1, heads)[:, None, None]
        return x + strength * depth * (labels[:, None] - 0.5) * direction

    return FakeSource(examples, make)


def rows(result, metric, variant):
    found = [m for m in result.measurements if (m.metric, m.variant) == (metric, variant)]
    assert found, (metric, variant)
    return found


def test_is_an_analysis():
    assert isinstance(probe(), Analysis)


def test_finds_the_concept_in_the_layer_that_has_it():
    result = probe()(THINK, None, concept({"think_sft": 4}), 0)
    auroc = rows(result, "auroc", "probe")
    assert [m.layer for m in auroc] == [0, 1, 2]
    assert auroc[2].value > 0.9
    assert auroc[2].p_max == 0.01
    assert result.headline["best layer"] == 2
    assert rows(result, "selectivity", "probe")[2].value > 0.25


def test_shuffled_labels_are_at_chance():
    source = concept({"think_sft": 4})
    # One of the two pairs of each group is turned round, so that half of the labels are right.
    flips = np.random.default_rng(1).permuted(np.tile([0, 1], (30, 1)), axis=1).ravel()
    shuffled = tuple(
        replace(e, label=int((e.label + flips[i // 2]) % 2)) for i, e in enumerate(source.examples)
    )
    result = probe()(THINK, None, FakeSource(shuffled, source.make), 0)
    for row in rows(result, "auroc", "probe"):
        assert row.ci_low < 0.5 < row.ci_high
        assert row.p_max > 0.05


def test_every_score_has_interval_null_and_counts():
    result = probe()(THINK, BASE, concept({"think_sft": 4}), 7)
    for row in rows(result, "auroc", "probe"):
        assert row.ci_low <= row.value <= row.ci_high
        # Within-group relabelling is exchangeable about one half.
        assert row.null == pytest.approx(0.5, abs=0.06)
        assert row.p <= row.p_max
        assert row.p <= row.q
        assert (row.n, row.n_groups, row.seed) == (120, 30, 7)
        assert row.layer_type == "full_attention"
        assert (row.stage, row.reference) == ("think_sft", "")
    compared = rows(result, "auroc_difference", "probe") + rows(result, "auroc", "reference")
    assert {(row.stage, row.reference) for row in compared} == {("think_sft", "base")}


def test_baselines_are_run_and_a_probe_that_does_not_clear_them_is_flagged():
    source = concept({"think_sft": 4})
    lengths = tuple((1,) * (5 + 3 * e.label) for e in source.examples)
    leaky = FakeSource(source.examples, source.make, lengths)
    result = probe()(THINK, None, leaky, 0)
    assert rows(result, "auroc", "baseline:length")[0].value == 1.0
    assert all("baseline length (1.00)" in m.note for m in rows(result, "auroc", "probe"))
    fair = probe()(THINK, None, source, 0)
    assert rows(fair, "auroc", "baseline:length")[0].value == 0.5
    assert rows(fair, "auroc", "baseline:embedding")[0].value == 0.5
    assert rows(fair, "auroc", "probe")[2].note == ""
    assert "not above baseline" in rows(fair, "auroc", "probe")[0].note
    assert all(m.ci_low < 0.6 for m in rows(fair, "auroc", "baseline:random_init"))


def test_difference_from_the_reference_is_paired_and_zero_for_the_same_weights():
    source = concept({"think_sft": 4, "base": 1})
    result = probe()(THINK, BASE, source, 0)
    last = rows(result, "auroc_difference", "probe")[2]
    theirs = rows(result, "auroc", "reference")[2]
    assert last.value == pytest.approx(rows(result, "auroc", "probe")[2].value - theirs.value)
    assert last.ci_low > 0
    twin = FakeSource(source.examples, lambda stage: source.make(replace(stage, name="base")))
    same = probe()(THINK, BASE, twin, 0)
    assert [m.value for m in rows(same, "auroc_difference", "probe")] == [0, 0, 0]


def test_transfer_within_a_stage_is_its_own_score_and_across_unrelated_ones_is_chance():
    source = concept({"think_sft": 4, "base": 4})

    def turned(stage):
        x = source.make(stage)
        return x if stage.name == "base" else np.roll(x, 5, axis=2)

    result = probe()(THINK, BASE, FakeSource(source.examples, turned), 0)
    own = rows(result, "auroc", "probe")
    within = rows(result, "transfer_auroc", "stage->stage")
    assert [m.value for m in within] == pytest.approx([m.value for m in own], abs=1e-12)
    assert rows(result, "transfer_auroc", "reference->reference")[2].value > 0.9
    for variant in ("stage->reference", "reference->stage"):
        assert rows(result, "transfer_auroc", variant)[2].value < 0.75
    aligned = probe()(THINK, BASE, source, 0)
    for variant in ("stage->reference", "reference->stage"):
        assert rows(aligned, "transfer_auroc", variant)[2].value > 0.9


def test_transfer_accounts_for_an_offset_between_stages():
    source = concept({"think_sft": 6, "base": 6})

    def shifted(stage):
        return source.make(stage) + (4 if stage.name == "base" else 0)

    result = probe()(THINK, BASE, FakeSource(source.examples, shifted), 0)
    at = "transfer_balanced_accuracy"
    assert rows(result, at, "stage->reference:source")[2].value < 0.65
    assert rows(result, at, "stage->reference:own")[2].value > 0.9


def test_without_a_reference_the_comparison_is_left_out_and_said():
    result = probe()(BASE, None, concept({"base": 4}), 0)
    assert not [m for m in result.measurements if m.metric.startswith("transfer")]
    assert any("no reference" in w for w in result.warnings)


def test_negated_statements_are_reported_apart():
    source = concept({"think_sft": 6}, polarity=True)
    negated = np.array([e.polarity == "negated" for e in source.examples])

    def flipped(stage):
        x = source.make(stage)
        x[:, negated, 0] *= -1
        return x

    result = probe()(THINK, None, FakeSource(source.examples, flipped), 0)
    assert rows(result, "polarity_auroc", "affirmative->negated")[2].value < 0.1
    same = probe()(THINK, None, source, 0)
    assert rows(same, "polarity_auroc", "affirmative->negated")[2].value > 0.9


def test_selectivity_falls_as_the_probe_can_memorise_groups():
    """Hewitt & Liang: features that identify the group let a wide probe learn any labelling."""
    examples = tuple(grouped_examples(40, 4))
    labels = np.array([e.label for e in examples])
    member = np.array([int(e.group[1:]) for e in examples])
    control = {}
    for d in (4, 200):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(40, d))[member] + 0.1 * rng.normal(size=(160, d))
        x[:, 0] += 2 * (labels - 0.5)
        source = FakeSource(examples, lambda _, x=x: x[None])
        result = probe(strengths=[0.001, 0.01, 0.1])(THINK, None, source, 0)
        control[d] = rows(result, "balanced_accuracy", "control")[0].value
    assert control[4] < 0.7
    assert control[200] > 0.95


def test_group_leakage_does_not_pay():
    """Groups with random labels and features that identify the group: a random split gives 1.0."""
    rng = np.random.default_rng(0)
    label_of = rng.permutation(np.arange(60) % 2)
    examples = tuple(
        Example(id=f"{g}-{i}", group=f"g{g}", label=int(label_of[g]), text=f"t {g} {i}")
        for g in range(60)
        for i in range(4)
    )
    member = np.repeat(np.arange(60), 4)
    x = rng.normal(size=(60, 128))[member] + 0.05 * rng.normal(size=(240, 128))
    result = probe()(THINK, None, FakeSource(examples, lambda _: x[None]), 0)
    row = rows(result, "auroc", "probe")[0]
    assert row.ci_low < 0.5 < row.ci_high
    assert row.p > 0.05


def test_best_layer_is_chosen_without_the_test_examples():
    """Of many noise layers the best test score is far above chance, the nested one is not."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(32, 60, 6))
    source = FakeSource(tuple(grouped_examples(30, 2)), lambda _: x)
    result = probe(n_resamples=200)(THINK, None, source, 0)
    best = max(m.value for m in rows(result, "auroc", "probe"))
    nested = rows(result, "auroc", "best_layer")[0]
    assert best > 0.6
    assert nested.ci_low < 0.5
    assert min(m.p_max for m in rows(result, "auroc", "probe")) > 0.05


@pytest.mark.parametrize("kind", ["lda", "mean_difference"])
def test_other_kinds_find_the_concept_too(kind):
    result = probe(kind=kind)(THINK, None, concept({"think_sft": 4}), 0)
    assert rows(result, "auroc", "probe")[2].value > 0.9
    assert not [m for m in result.measurements if m.metric == "log_loss"]


def test_directions_are_kept_for_every_layer():
    result = probe()(THINK, None, concept({"think_sft": 4}), 0)
    assert result.tensors["direction"].shape == (3, 10)
    direction = result.tensors["direction"][2]
    assert direction[0] / np.linalg.norm(direction) > 0.85


def test_figure_is_plotly_json():
    result = probe()(THINK, BASE, concept({"think_sft": 4}), 0)
    assert json.loads(result.figures["auroc"])["data"]


def test_few_groups_lower_the_number_of_folds_and_say_so():
    result = probe()(THINK, None, concept({"think_sft": 6}, n_groups=4, per_group=10), 0)
    assert any("4 outer folds instead of 5" in w for w in result.warnings)
    assert any("fewer than 10 are rough" in w for w in result.warnings)


def test_two_folds_are_enough_where_there_are_groups_enough():
    result = probe(n_folds=2)(THINK, None, concept({"think_sft": 6}), 0)
    assert rows(result, "auroc", "probe")[2].value > 0.9


def test_labels_about_several_traits_are_refused_by_name():
    source = concept({})
    halves = [replace(e, trait="a" if i % 2 else "b") for i, e in enumerate(source.examples)]
    with pytest.raises(DataError, match=r"2 traits \(b, a\)"):
        probe()(BASE, None, FakeSource(tuple(halves), source.make), 0)


def test_two_groups_a_class_are_too_few():
    with pytest.raises(DataError, match="at least 3 groups"):
        probe()(THINK, None, concept({}, n_groups=2, per_group=10), 0)


def test_one_class_only_is_an_error():
    source = concept({})
    examples = tuple(replace(e, label=1) for e in source.examples)
    with pytest.raises(DataError):
        probe()(THINK, None, FakeSource(examples, source.make), 0)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("kind", "svm", "logistic, lda, mean_difference"),
        ("site", "resid", "resid_post"),
        ("position", "end", "last"),
        ("n_folds", 1, "n_folds=1"),
        ("strengths", [0.0], "positive"),
        ("n_permutations", -1, "negative"),
        ("layers", [2, 2], "twice"),
    ],
)
def test_an_unusable_option_is_one_line_with_the_remedy(option, value, message):
    with pytest.raises(ConfigError, match=message) as error:
        probe(**{option: value})
    assert "\n" not in str(error.value)


def test_without_groups_the_control_task_is_about_a_token_that_repeats():
    examples = tuple(
        Example(id=str(i), group=str(i), label=i % 2, text=f"t {i}") for i in range(80)
    )
    x = np.random.default_rng(0).normal(size=(1, 80, 6))
    tokens = tuple((i // 2 % 10, 50 + i, 7) for i in range(80))
    result = probe()(THINK, None, FakeSource(examples, lambda _: x, tokens), 0)
    assert any("about the first token" in w for w in result.warnings)
    assert rows(result, "selectivity", "probe")[0].ci_low is not None
    # Every text ends alike and begins anew: there is nothing to remember, and nothing is reported.
    tokens = tuple((100 + i, 200 + i, 7) for i in range(80))
    result = probe()(THINK, None, FakeSource(examples, lambda _: x, tokens), 0)
    assert any("no control task and no selectivity" in w for w in result.warnings)
    assert not [m for m in result.measurements if m.metric == "selectivity"]
    assert result.headline["selectivity"] is None


def test_rounding_of_a_constant_feature_is_no_signal():
    """A last token that is the same everywhere differs by rounding, which may follow the length."""
    examples = tuple(grouped_examples(30))
    labels = np.array([e.label for e in examples])
    x = 1 + 1e-7 * (labels[:, None] + 0.1 * np.random.default_rng(0).normal(size=(120, 6)))
    result = probe()(THINK, None, FakeSource(examples, lambda _: x[None]), 0)
    assert rows(result, "auroc", "probe")[0].value == 0.5
    loud = probe()(THINK, None, FakeSource(examples, lambda _: 1 + 1e4 * (x[None] - 1)), 0)
    assert rows(loud, "auroc", "probe")[0].value > 0.9


def test_p_is_left_out_where_no_label_can_be_exchanged():
    examples = tuple(
        Example(id=f"{g}-{i}", group=f"g{g}", label=g % 2, text=f"t {g} {i}")
        for g in range(12)
        for i in range(2 + g % 2)
    )
    x = np.random.default_rng(0).normal(size=(1, len(examples), 4))
    result = probe()(THINK, None, FakeSource(examples, lambda _: x), 0)
    assert rows(result, "auroc", "probe")[0].p is None
    assert any("no permutation p" in w for w in result.warnings)


def test_control_labels_are_balanced_by_type_and_change_with_the_salt():
    types = [*(f"g{i // 3}" for i in range(60)), "once"]
    labels = control_labels(types, "0")
    assert labels[-1] == -1
    assert labels[:-1].sum() == 30
    assert all(len(set(labels[3 * i : 3 * i + 3])) == 1 for i in range(20))
    assert (labels != control_labels(types, "1")).any()


def test_bag_of_tokens_counts():
    assert bag_of_tokens([[7, 7, 3], [5]]).tolist() == [[[1, 0, 2], [0, 1, 0]]]


def test_the_headline_compares_the_score_it_shows():
    result = probe()(THINK, BASE, concept({"think_sft": 4, "base": 1}), 0)
    assert result.headline["auroc"] == rows(result, "auroc", "best_layer")[0]
    difference = rows(result, "auroc_difference", "best_layer")[0]
    assert result.headline["auroc - reference"] == difference
    layer = result.headline["best layer"]
    (own,) = [row for row in rows(result, "auroc", "probe") if row.layer == layer]
    assert (result.headline["p (max)"], result.headline["note"]) == (own.p_max, own.note)
    (own,) = [row for row in rows(result, "selectivity", "probe") if row.layer == layer]
    assert result.headline["selectivity"] == own


def test_a_row_a_token_is_refused_and_one_an_example_is_not():
    with pytest.raises(ConfigError, match=r"analysis.position 'tokens' gives a row a token.*mean"):
        probe(position="tokens")
    with pytest.raises(ConfigError, match=r"analysis.position 'middle' does not exist"):
        probe(position="middle")
    assert probe(position="mean").position == "mean"


def test_held_out_scores_of_both_sides_are_kept():
    result = probe()(THINK, BASE, concept({"think_sft": 4, "base": 1}), 0)
    assert list(result.tables) == ["held_out", "held_out_reference"]
    for name, variant in (("held_out", "probe"), ("held_out_reference", "reference")):
        table = result.tables[name]
        scores = np.stack([table[f"layer_{layer}"] for layer in range(3)])
        ones = np.ones((1, 120))
        found = estimates.auroc(scores, table["label"], table["fold"], ones)[0]
        assert found.tolist() == [row.value for row in rows(result, "auroc", variant)]
        assert (
            table["best_layer_score"].tolist()
            == scores[table["best_layer"], np.arange(120)].tolist()
        )
    assert table["example"] == [e.id for e in concept({}).examples]
    assert set(table["prompt"][::3]) != set(table["prompt"][1::3])  # token ids go in threes
    alone = probe()(THINK, None, concept({"think_sft": 4}), 0)
    assert list(alone.tables) == ["held_out"]
