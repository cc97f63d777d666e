"""analysis=projection as a whole: planted directions, their controls, folds, vectors, tokens."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from olmo_stages import records
from olmo_stages.analyses.projection import Projection
from olmo_stages.errors import ConfigError, DataError, PairingError
from olmo_stages.types import Activations, Analysis, Example, Reading
from olmo_stages.vectors.files import TraitVector
from tests.fakes import BASE, THINK, FakeSource, grouped_examples
from tests.figures.told import captions

TYPES = ["sliding_attention", "full_attention"]
EXACT = 1e-6  # activations are float32


def projection(**changes):
    options = {
        "vector": None,
        "site": None,
        "position": None,
        "layers": None,
        "tokens": False,
        "shown": 2,
        "n_folds": 4,
        "n_resamples": 200,
        "n_permutations": 99,
    }
    return Projection(**options | changes)


def planted(examples, *, gaps=(2.0, 0.0), noise=0.0, d_model=16, seed=0):
    """Two layers; in each the classes are a gap apart along the first dimension."""
    rng = np.random.default_rng(seed)
    labels = np.array([e.label for e in examples])
    values = 4.0 + noise * rng.normal(size=(2, len(examples), d_model))
    for layer, gap in enumerate(gaps):
        values[layer, :, 0] += gap * labels
    return values


def source_of(values, examples=None, **changes):
    """Hands out `values[label of the stage]`."""
    examples = tuple(examples or grouped_examples(12))
    return FakeSource(examples, lambda stage: values[stage.label], layer_types=TYPES, **changes)


def run(source, stage=THINK, reference=BASE, **options):
    return projection(**options)(stage, reference, source, seed=0)


def rows(result, metric, variant="", trait="trait"):
    named = [it for it in result.measurements if (it.metric, it.variant) == (metric, variant)]
    return [it for it in named if it.trait == trait]


def values_of(result, metric, variant="", trait="trait"):
    return [it.value for it in rows(result, metric, variant, trait)]


def warned(result, *words):
    return any(all(word in warning for word in words) for warning in result.warnings)


def saved(path, directions, *, midpoint=None, separation=None, types=TYPES, **told):
    """A vector's file; by default its source's classes are at 0 and 1."""
    layers = range(len(directions))
    provenance = {"stage": "base", "name": "base", "size": "tiny", "source": "miniature"}
    TraitVector(
        trait=told.pop("trait", "trait"),
        vectors={i: np.array(directions[i], dtype=np.float32) for i in layers},
        layer_types={i: types[i] for i in layers},
        site="resid_post",
        position=told.pop("position", "mean"),
        kind="mean_difference",
        midpoint=dict.fromkeys(layers, 0.5) if midpoint is None else dict(enumerate(midpoint)),
        separation=dict.fromkeys(layers, 1.0)
        if separation is None
        else dict(enumerate(separation)),
        provenance=provenance | told,
    ).save(path)
    return str(path)


def test_is_an_analysis():
    assert isinstance(projection(), Analysis)


# Planted scores


def test_a_planted_direction_gives_the_planted_scores():
    examples = grouped_examples(12)
    theirs = planted(examples, gaps=(2.0, 2.0), noise=1e-3)
    ours = planted(examples, gaps=(3.0, 2.0), noise=1e-3)
    ours[1] += 1.0  # along the vector all examples of layer 1 move by half a separation
    result = run(source_of({"base": theirs, "think_sft": ours}))
    near = 0.01  # noise of 1e-3 against separations of 2
    assert values_of(result, "projection", "positive") == pytest.approx([1.5, 1.5], abs=near)
    assert values_of(result, "projection", "negative") == pytest.approx([0, 0.5], abs=near)
    assert values_of(result, "projection_separation") == pytest.approx([1.5, 1], abs=near)
    assert values_of(result, "projection_raw", "positive") == pytest.approx([7, 7], abs=near)
    assert values_of(result, "projection_raw", "negative") == pytest.approx([4, 5], abs=near)
    assert values_of(result, "projection_difference", "positive") == pytest.approx(
        [0.5, 0.5], abs=near
    )
    assert values_of(result, "projection_difference", "negative") == pytest.approx(
        [0, 0.5], abs=near
    )
    assert values_of(result, "projection_auroc") == [1, 1]
    for row in rows(result, "projection_auroc"):
        assert (row.p, row.p_max) == (1 / 100, 1 / 100)
        assert row.null == pytest.approx(0.5, abs=0.1)
        assert (row.reference, row.n, row.n_groups) == ("base", 48, 12)
        assert row.layer_type == TYPES[row.layer]
    assert all(row.n == 24 for row in rows(result, "projection", "positive"))
    shown = result.headline["positive - reference"]
    assert (shown.metric, shown.variant) == ("projection_difference", "positive")
    assert [shown.value, shown.ci_low, shown.ci_high] == pytest.approx([0.5] * 3, abs=5e-3)


def test_labels_that_are_in_nothing_are_not_found():
    examples = grouped_examples(12)
    noise = planted(examples, gaps=(0, 0), noise=1.0)
    result = run(source_of({"base": noise, "think_sft": noise}))
    for row in rows(result, "projection_auroc"):
        assert row.p_max > 0.05
        assert row.note == "not distinguishable from the null"
        assert row.ci_low < 0.5 < row.ci_high
    assert not warned(result, "same weights")  # other weights with the same activations
    assert set(values_of(result, "projection_difference", "positive")) == {0}


def test_the_same_weights_are_told():
    examples = grouped_examples(12)
    values = planted(examples, noise=1.0)
    source = source_of({"base": values, "think_sft": values})
    source.change = lambda acts: dataclasses.replace(acts, model_digest="one")
    assert warned(run(source), "same weights", "exactly 0")


def test_a_vector_of_constant_activations_scores_nothing():
    examples = grouped_examples(12)
    values = planted(examples, noise=0.0)  # layer 1 is constant
    result = run(source_of({"base": values, "think_sft": values}))
    score = rows(result, "projection_auroc")[1]
    assert (score.value, score.note) == (
        0.5,
        "the source's classes have the same mean: no direction, no score",
    )
    assert np.isnan(values_of(result, "projection", "positive")[1])
    assert values_of(result, "projection", "positive")[0] == pytest.approx(1)


def test_without_reference_the_vector_is_the_stages_own():
    values = planted(grouped_examples(12), noise=0.1)
    source = source_of({"base": values})
    result = run(source, stage=BASE, reference=None)
    assert set(source.asked) == {"base"}
    assert values_of(result, "projection_separation")[0] == pytest.approx(1, abs=0.1)
    assert not rows(result, "projection_difference", "positive")
    assert {row.reference for row in result.measurements} == {""}
    assert warned(result, "base has no reference", "its own, cross-fitted")


# Held out


def test_no_group_is_scored_along_a_vector_that_saw_it():
    examples = grouped_examples(12)
    clean = planted(examples, gaps=(1.0, 1.0), noise=1.0)
    poisoned = clean.copy()
    own = np.array([e.group == "g5" for e in examples])
    poisoned[:, own] = 1e4 * np.random.default_rng(1).normal(size=poisoned[:, own].shape)
    tables = [
        run(source_of({"base": theirs, "think_sft": clean})).tables["examples"]
        for theirs in (clean, poisoned)
    ]
    fold = tables[0]["fold"]
    same_fold = fold == fold[own][0]
    for layer in ("layer_0", "layer_1"):
        before, after = (table[layer] for table in tables)
        assert np.array_equal(before[same_fold], after[same_fold])
        assert not np.isclose(before[~same_fold], after[~same_fold]).any()  # twin: they saw it


def test_groups_are_never_cut_by_folds():
    examples = grouped_examples(12)
    table = run(source_of({"base": planted(examples), "think_sft": planted(examples)})).tables[
        "examples"
    ]
    folds_of = {}
    for group, fold in zip(table["group"], table["fold"].tolist(), strict=True):
        folds_of.setdefault(group, set()).add(fold)
    assert all(len(it) == 1 for it in folds_of.values())
    assert len(set(table["fold"].tolist())) == 4


def test_fewer_groups_than_folds_are_told():
    examples = grouped_examples(3)
    source = source_of({"base": planted(examples)}, examples)
    result = run(source, stage=BASE, reference=None)
    assert warned(result, "3 folds instead of 4")
    assert warned(result, "3 groups", "rough")


# A vector from a file


def test_a_given_vector_scores_by_hand(tmp_path):
    examples = grouped_examples(12)
    values = planted(examples, gaps=(2.0, 4.0), d_model=4)
    # (0, 3, 4, 0) / 5 sees none of the gap and 4 * 7 / 5 of the rest; the other sees all of it.
    path = saved(
        tmp_path / "v.safetensors",
        [[3, 0, 0, 0], [0, 3, 4, 0]],
        midpoint=[5.0, 5.6],
        separation=[2.0, 1.0],
    )
    result = run(source_of({"think_sft": values}), reference=None, vector=path)
    assert values_of(result, "projection", "positive") == pytest.approx([1, 0.5], abs=EXACT)
    assert values_of(result, "projection", "negative") == pytest.approx([0, 0.5], abs=EXACT)
    assert values_of(result, "projection_raw", "positive") == pytest.approx([6, 5.6], abs=EXACT)
    assert values_of(result, "projection_auroc") == [1, 0.5]
    assert result.tables["examples"]["fold"].tolist() == [-1] * len(examples)
    assert result.headline["vector"] == "of base"
    assert warned(result, "of base, of the lineage of think_sft")


def test_an_orthogonal_vector_ranks_nothing(tmp_path):
    examples = grouped_examples(30)
    values = planted(examples, gaps=(2.0, 2.0), noise=1.0)
    along, across = np.eye(16)[0], np.eye(16)[1]
    path = saved(tmp_path / "v.safetensors", [along, across])
    result = run(source_of({"think_sft": values}, examples), reference=None, vector=path)
    seen, unseen = rows(result, "projection_auroc")
    assert seen.value > 0.85
    assert (seen.p_max, seen.note) == (1 / 100, "")
    assert unseen.ci_low < 0.5 < unseen.ci_high
    assert unseen.p_max > 0.05
    assert unseen.note == "not distinguishable from the null"


def test_a_vector_that_points_the_other_way_is_not_called_chance(tmp_path):
    examples = grouped_examples(30)
    values = planted(examples, gaps=(2.0, 0.0), noise=1.0)
    path = saved(tmp_path / "v.safetensors", -np.eye(16)[[0, 0]])
    result = run(source_of({"think_sft": values}, examples), reference=None, vector=path)
    reverse, none = rows(result, "projection_auroc")
    assert reverse.value < 0.15
    assert (reverse.p, reverse.note) == (1, "scores fall with the label, more than under the null")
    assert none.note == "not distinguishable from the null"


def test_a_given_vector_beside_a_reference(tmp_path):
    examples = grouped_examples(12)
    ours, theirs = planted(examples, gaps=(3.0, 3.0)), planted(examples, gaps=(1.0, 2.0))
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]])
    result = run(source_of({"think_sft": ours, "base": theirs}), vector=path)
    moved = rows(result, "projection_difference", "positive")
    assert [row.value for row in moved] == pytest.approx([2, 1], abs=EXACT)
    assert {row.reference for row in moved} == {"base"}
    assert {row.reference for row in rows(result, "projection_auroc")} == {""}


def test_site_and_position_are_the_vectors_unless_others_are_asked_for(tmp_path):
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]], position="last_content")
    asked = []

    def note(acts):
        asked.append((acts.site, acts.position))
        return acts

    source = source_of({"think_sft": planted(grouped_examples(12))}, change=note)
    result = run(source, reference=None, vector=path)
    assert set(asked) == {("resid_post", "last_content")}
    assert not warned(result, "is applied at")
    asked.clear()
    result = run(source, reference=None, vector=path, position="last", site="resid_mid")
    assert set(asked) == {("resid_mid", "last")}
    assert warned(result, "resid_post, last_content", "is applied at resid_mid, last")
    assert projection(vector=path).positions == ("last_content",)
    assert projection().positions == ("mean",)


def test_a_vector_that_does_not_know_its_classes_scores_raw(tmp_path):
    examples = grouped_examples(12)
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]], midpoint=(), separation=())
    result = run(source_of({"think_sft": planted(examples)}), reference=None, vector=path)
    assert values_of(result, "projection", "positive") == pytest.approx([6, 4])
    assert warned(result, "scores are raw")
    assert "scale of the activations" in result.figures["projection"]


def test_a_vector_of_these_very_examples_is_told(tmp_path):
    from olmo_stages.data.dataset import Dataset

    examples = tuple(grouped_examples(12))
    digests = [Dataset("x", it).digest for it in (examples, examples[:24])]
    source = source_of({"think_sft": planted(examples)}, examples)
    for digest, same in zip(digests, (True, False), strict=True):
        path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]], data_digest=digest)
        result = run(source, reference=None, vector=path)
        assert warned(result, "these very examples", "nothing here is held out") is same


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": "think_rlvr", "stage": "think_rlvr"}, "of think_rlvr, of the lineage of"),
        ({"weights": "think_sft"}, "the same weights as think_sft"),
        ({"source": "elsewhere"}, "not known whether it is of the lineage"),
        ({"random_init": 0}, "not known whether it is of the lineage"),
        ({"name": "", "stage": ""}, "an unknown stage"),
    ],
)
def test_where_a_vector_is_from_is_told(tmp_path, told, words):
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]], **told)
    source = source_of({"think_sft": planted(grouped_examples(12))})
    assert warned(run(source, reference=None, vector=path), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"directions": np.eye(8)[[0, 0]]}, ["d_model 8", "the model has 16"]),
        ({"size": "7b"}, ["size 7b", "the model has tiny"]),
        ({"types": TYPES[::-1]}, ["layer 0", "full_attention", "sliding_attention"]),
    ],
)
def test_a_vector_of_another_model_is_refused(tmp_path, change, words):
    directions = change.pop("directions", np.eye(16)[[0, 0]])
    path = saved(tmp_path / "v.safetensors", directions, **change)
    source = source_of({"think_sft": planted(grouped_examples(12))})
    with pytest.raises(ConfigError) as caught:
        run(source, reference=None, vector=path)
    assert all(word in str(caught.value) for word in words)


def test_layers_that_a_vector_lacks_are_refused(tmp_path):
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]])
    with pytest.raises(ConfigError, match=r"layers \[5\] are not in the vector.*\[0, 1\]"):
        projection(vector=path, layers=[0, 5])


def test_layers_of_a_vector_that_the_model_lacks_are_refused(tmp_path):
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]])
    source = source_of({"think_sft": planted(grouped_examples(12))})

    def refuse(*_, **__):
        raise ConfigError("layers [0, 1] of think_sft: choose one or more of -1 to 0")

    source.stream = refuse
    with pytest.raises(ConfigError, match=r"vector of trait 'trait' is not of this model.*\[0, 1]"):
        run(source, reference=None, vector=path)


def test_a_missing_file_is_found_when_the_config_is_built(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        projection(vector=str(tmp_path / "none.safetensors"))


def test_another_vector_in_the_same_file_is_another_job(tmp_path):
    path = tmp_path / "v.safetensors"
    contents = []
    for direction in (0, 1, 0):
        saved(path, np.eye(16)[[direction, 0]])
        contents.append(dataclasses.asdict(projection(vector=str(path)))["content"])
    assert contents[0] == contents[2] != contents[1]
    assert projection().content == ""


# Pairs that do not fit


def test_stages_of_other_widths_are_refused():
    examples = grouped_examples(12)
    values = {"base": planted(examples, d_model=8), "think_sft": planted(examples)}
    with pytest.raises(PairingError, match="d_model 16 and 8"):
        run(source_of(values))


@pytest.mark.parametrize("shorter", ["base", "think_sft"])
def test_stages_of_other_depths_are_refused(shorter):
    examples = grouped_examples(12)
    values = {"base": planted(examples), "think_sft": planted(examples)}
    values[shorter] = values[shorter][:1]
    with pytest.raises(PairingError, match="fewer layers"):
        run(source_of(values))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"position": "tokens"}, "row a token"),
        ({"position": "middle"}, "does not exist"),
        ({"site": "logits"}, "analysis.site"),
        ({"n_folds": 1}, "n_folds=1"),
        ({"n_resamples": 10}, "n_resamples=10"),
        ({"n_permutations": -1}, "n_permutations=-1"),
        ({"shown": -1}, "shown=-1"),
        ({"layers": []}, "layers"),
        ({"layers": [1, 1]}, "layers"),
    ],
)
def test_options_that_cannot_be_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        projection(**options)


# Several traits


def test_each_trait_has_its_own_vectors():
    examples = [
        dataclasses.replace(e, id=f"{trait}{e.id}", trait=trait, group=f"{trait}{e.group}")
        for trait in ("rude", "long")
        for e in grouped_examples(10)
    ]
    examples = examples[::2] + examples[1::2]  # mixed
    rng = np.random.default_rng(0)
    values = 0.1 * rng.normal(size=(1, len(examples), 8))
    for i, e in enumerate(examples):
        values[0, i, 0 if e.trait == "rude" else 1] += 2.0 * e.label
    result = run(source_of({"base": values}, examples), stage=BASE, reference=None)
    for place, trait in enumerate(("rude", "long")):
        assert values_of(result, "projection_auroc", trait=trait) == [1]
        assert rows(result, "projection_auroc", trait=trait)[0].n == 40
        directions = result.tensors[f"{trait}.directions"]
        assert directions.shape == (4, 1, 8)
        assert (np.abs(directions[:, 0, place]) > 0.95).all()
    table = result.tables["examples"]
    assert table["trait"] == [e.trait for e in examples]
    labels = table["label"]
    assert labels.tolist() == [e.label for e in examples]
    np.testing.assert_allclose(table["layer_0"], labels, atol=0.4)


# What is kept


def test_raw_scores_follow_from_the_table_and_the_tensors():
    examples = grouped_examples(12)
    values = {"base": planted(examples, noise=1.0), "think_sft": planted(examples, noise=2.0)}
    result = run(source_of(values))
    table, tensors = result.tables["examples"], result.tensors
    assert tensors["layers"].tolist() == [0, 1]
    for layer in (0, 1):
        fold = table["fold"]
        middle = tensors["trait.midpoints"][fold, layer]
        raw = middle + (table[f"layer_{layer}"] - 0.5) * tensors["trait.separations"][fold, layer]
        along = np.einsum(
            "ed,ed->e", values["think_sft"][layer], tensors["trait.directions"][fold, layer]
        )
        np.testing.assert_allclose(raw, along, atol=1e-4)


def test_a_result_is_written_and_read_back(tmp_path):
    examples = grouped_examples(12)
    values = planted(examples, noise=1.0)
    result = run(source_of({"base": values, "think_sft": values}))
    records.write(tmp_path / "job", result, {})
    back = records.read(tmp_path / "job").result
    assert back.tables["examples"]["example"] == [e.id for e in examples]
    assert set(back.figures) == {"projection", "auroc"}


# Tokens


PARTS = ("special", "user", "user", "response", "think", "think", "answer")


class TokenSource:
    """Tokens by hand; pooled positions average the tokens that they name.

    Only every second example has reasoning.
    """

    def __init__(self, examples, tokens, *, repeat=1, cut=0):
        self.examples = tuple(examples)
        self.fetched = []
        self._parts = []
        for i in range(len(examples)):
            parts = PARTS if i % 4 < 2 else PARTS[:4]
            self._parts.append(
                (parts[:1] + tuple(p for p in parts[1:] for _ in range(repeat)))[cut:]
            )
        self._tokens = [
            np.concatenate([it[:, :1], np.repeat(it[:, 1:], repeat, axis=1)], axis=1)[
                :, cut : cut + len(parts)
            ]
            for it, parts in zip(tokens, self._parts, strict=True)
        ]

    def prefetch(self, stage, captures, layers=None):
        self.fetched.append((stage.label, tuple(captures), layers))

    def __call__(self, stage, *, site="resid_post", position="mean", layers=None):
        chosen = tuple(range(self._tokens[0].shape[0])) if layers is None else layers
        read = [[i for i in range(1, len(parts)) if parts[i] != "special"] for parts in self._parts]
        if position == "tokens":
            values = np.concatenate(
                [it[:, index] for it, index in zip(self._tokens, read, strict=True)], axis=1
            )
            where = {
                "owners": np.repeat(np.arange(len(read)), [len(it) for it in read]),
                "token_index": np.concatenate([np.array(it) for it in read]),
            }
        else:
            values = np.stack(
                [it[:, index].mean(1) for it, index in zip(self._tokens, read, strict=True)],
                axis=1,
            )
            where = {}
        return Activations(
            stage=stage,
            site=site,
            position=position,
            layers=chosen,
            layer_types=("full_attention",) * len(chosen),
            ids=tuple(e.id for e in self.examples),
            values=values[list(chosen)].astype(np.float32),
            token_ids=tuple(tuple(range(len(parts))) for parts in self._parts),
            n_truncated=0,
            model_digest=stage.label,
            key="",
            **where,
        )

    def stream(self, stage, *, site="resid_post", position="mean", layers=None):
        for layer in range(self._tokens[0].shape[0]) if layers is None else layers:
            yield self(stage, site=site, position=position, layers=(layer,))

    def readings(self, stage):
        del stage
        return tuple(
            Reading(
                e.id,
                tuple(range(len(parts))),
                tuple(f" <b>%{{x}}{i}" for i in range(len(parts))),
                parts,
            )
            for e, parts in zip(self.examples, self._parts, strict=True)
        )


def token_values(examples, d_model=4, seed=0):
    """Per example [layer, token, d_model]; the layers are alike but for noise."""
    rng = np.random.default_rng(seed)
    return [
        rng.normal(size=(2, len(PARTS), d_model)) + 3.0 * e.label * np.eye(d_model)[0]
        for e in examples
    ]


@pytest.fixture(scope="module")
def with_tokens():
    examples = grouped_examples(12)
    source = TokenSource(examples, token_values(examples))
    return source, run(source, stage=BASE, reference=None, tokens=True)


def test_token_means_are_the_pooled_scores(with_tokens):
    _, result = with_tokens
    tokens, pooled = result.tables["tokens"], result.tables["examples"]
    names = np.array(tokens["example"])
    for layer in ("layer_0", "layer_1"):
        means = [
            tokens[layer][names == name].astype(np.float64).mean() for name in pooled["example"]
        ]
        np.testing.assert_allclose(means, pooled[layer], atol=1e-5)  # float32 scores of size 1
    # Every token counted: text, think, answer and tags.
    assert len(names) == sum(6 if i % 4 < 2 else 3 for i in range(48))


def test_texts_and_tokens_are_read_in_one_forward_pass(with_tokens):
    source, _ = with_tokens
    wanted = (("resid_post", "mean"), ("resid_post", "tokens"))
    assert set(source.fetched) == {(BASE.label, wanted, None)}
    without = TokenSource(source.examples, token_values(source.examples))
    run(without, stage=BASE, reference=None, tokens=False)
    assert not without.fetched


def test_parts_are_means_of_examples_then_of_groups(with_tokens):
    _, result = with_tokens
    tokens = result.tables["tokens"]
    names, parts = np.array(tokens["example"]), np.array(tokens["part"])
    expected = {
        "user": ("user",),
        "think": ("think",),
        "answer": ("answer",),
        "response": ("response", "think", "answer"),
    }
    for part, members in expected.items():
        inside = np.isin(parts, members)
        means = {
            name: tokens["layer_1"][inside & (names == name)].astype(np.float64).mean()
            for name in dict.fromkeys(names[inside].tolist())
        }
        row = rows(result, "projection_part", part)[1]
        assert row.value == pytest.approx(np.mean(list(means.values())), abs=1e-6)
        assert row.n == len(means) == (24 if part in {"think", "answer"} else 48)
        assert row.n_groups == 12
        assert row.ci_low < row.value < row.ci_high
    assert {row.variant for row in result.measurements if row.metric == "projection_part"} == {
        f"{part}{of}" for part in expected for of in ("", ":positive", ":negative")
    }


def test_think_less_answer_is_paired(with_tokens):
    _, result = with_tokens
    think, answer, difference = (
        rows(result, *it)[0]
        for it in (
            ("projection_part", "think"),
            ("projection_part", "answer"),
            ("projection_part_difference", "think-answer"),
        )
    )
    assert difference.value == pytest.approx(think.value - answer.value, abs=1e-9)
    assert (difference.n, difference.n_groups) == (24, 12)


def test_what_think_and_answer_share_cancels_in_their_difference():
    examples = grouped_examples(12)
    values = token_values(examples)
    shared = np.random.default_rng(5).normal(size=12) * 20
    for i, it in enumerate(values):
        it[:, 4:, 0] += shared[i // 4]  # think and answer of a group alike
        it[:, 4:6, 0] += 1.5  # and think further along
    result = run(TokenSource(examples, values), stage=BASE, reference=None, tokens=True)
    think = rows(result, "projection_part", "think")[0]
    difference = rows(result, "projection_part_difference", "think-answer")[0]
    assert difference.ci_high - difference.ci_low < 0.3 * (think.ci_high - think.ci_low)
    assert difference.ci_low > 0


def test_more_tokens_are_no_more_evidence(with_tokens):
    _, once = with_tokens
    examples = grouped_examples(12)
    source = TokenSource(examples, token_values(examples), repeat=5)
    many = run(source, stage=BASE, reference=None, tokens=True)
    for part in ("user", "think", "answer"):
        one, five = (rows(it, "projection_part", part)[0] for it in (once, many))
        for end in ("value", "ci_low", "ci_high"):
            assert getattr(five, end) == pytest.approx(getattr(one, end), abs=1e-6)


def test_a_token_is_scored_along_a_vector_that_never_saw_its_group(with_tokens):
    _, clean = with_tokens
    examples = grouped_examples(12)
    values = token_values(examples)
    for i, e in enumerate(examples):
        if e.group == "g5":
            values[i] = 1e3 * np.random.default_rng(i).normal(size=values[i].shape)
    poisoned = run(TokenSource(examples, values), stage=BASE, reference=None, tokens=True)
    fold = dict(
        zip(clean.tables["examples"]["example"], clean.tables["examples"]["fold"], strict=True)
    )
    group = {e.id: e.group for e in examples}
    names = clean.tables["tokens"]["example"]
    kept = [fold[it] == fold["g5e0"] and group[it] != "g5" for it in names]
    others = [fold[it] != fold["g5e0"] for it in names]
    before, after = (it.tables["tokens"]["layer_0"] for it in (clean, poisoned))
    assert np.array_equal(before[kept], after[kept])
    assert not np.isclose(before[others], after[others]).all()


def test_prompts_cut_from_the_left_keep_their_parts():
    examples = grouped_examples(12)
    source = TokenSource(examples, token_values(examples), cut=2)
    result = run(source, stage=BASE, reference=None, tokens=True)
    tokens = result.tables["tokens"]
    # Of special user user response think think answer the first two are gone, and one is the sink.
    assert tokens["part"][:4] == ["response", "think", "think", "answer"]
    assert tokens["index"][:4].tolist() == [1, 2, 3, 4]
    assert not rows(result, "projection_part", "user")


def test_figures_of_tokens_show_text_as_it_is(with_tokens):
    _, result = with_tokens
    drawn = [name for name in result.figures if name.startswith("tokens ")]
    assert drawn == ["tokens g0e1", "tokens g0e0"]  # label 1 first; both have reasoning
    for name in drawn:
        figure = json.loads(result.figures[name])
        assert len(figure["data"][0]["z"]) == 2
        assert "<b>%{x}" not in json.dumps(figure["layout"])
        assert "&lt;b&gt;%&#123;x}" in json.dumps(figure["layout"])
    assert "parts" in result.figures
    assert result.headline["think - answer"]


def test_captions_say_what_was_resampled_and_which_null():
    examples = grouped_examples(12)
    source = TokenSource(examples, token_values(examples))
    options = {"n_resamples": 123, "n_permutations": 19}
    said = captions(run(source, stage=BASE, reference=None, tokens=True, **options))
    assert "123 resamples" in said["projection"]
    assert "19 relabellings" in said["auroc"]
    assert "refitted" in said["auroc"]
    assert "widened" in said["parts"]
    assert any("No interval" in it or "no interval" in it for it in said.values())


def test_no_figures_of_tokens_on_request():
    examples = grouped_examples(12)
    source = TokenSource(examples, token_values(examples))
    result = run(source, stage=BASE, reference=None, tokens=True, shown=0)
    assert not [name for name in result.figures if name.startswith("tokens")]


def test_plain_texts_have_one_part():
    examples = [Example(f"e{i}", f"g{i // 4}", i % 2, text=f"text {i}") for i in range(48)]
    owners = np.repeat(np.arange(48), 3)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 144, 8))
    values[:, :, 0] += 3.0 * (owners % 2)
    pooled = values.reshape(2, 48, 3, 8).mean(2)

    class Texts(FakeSource):
        def stream(self, stage, *, site="resid_post", position="last", layers=None):
            tokens = position == "tokens"
            self.owners = owners if tokens else None
            self.make = lambda _: values if tokens else pooled
            self.token_ids = tuple((5, 6, 7, 8) for _ in range(48))
            yield from super().stream(stage, site=site, position=position, layers=layers)

    result = run(Texts(tuple(examples), lambda _: pooled), BASE, None, tokens=True)
    assert values_of(result, "projection_part", "text:positive") == pytest.approx(
        values_of(result, "projection", "positive"), abs=EXACT
    )


# Without labels


FULL = ["full_attention", "full_attention"]


def without_labels(examples):
    return [dataclasses.replace(it, label=None) for it in examples]


def both(tmp_path, source, **options):
    """The same texts along the same vector, with labels and without."""
    path = saved(tmp_path / "v.safetensors", [[3, 0, 0, 0], [0, 3, 4, 0]], **options)
    bare = copy.copy(source)
    bare.examples = tuple(without_labels(source.examples))
    return [run(it, vector=path, tokens=isinstance(source, TokenSource)) for it in (source, bare)]


def test_texts_without_labels_score_what_they_score_with_them(tmp_path):
    examples = grouped_examples(12)
    ours, theirs = (planted(examples, noise=1.0, d_model=4, seed=seed) for seed in (1, 2))
    source = source_of({"think_sft": ours, "base": theirs}, examples)
    labelled, bare = both(tmp_path, source)
    for layer in ("layer_0", "layer_1"):
        scores = bare.tables["examples"][layer]
        assert np.array_equal(scores, labelled.tables["examples"][layer])
        row = rows(bare, "projection", "all")[int(layer[-1])]
        assert row.value == pytest.approx(scores.astype(np.float64).mean(), abs=EXACT)
        assert (row.n, row.n_groups) == (48, 12)
        assert row.ci_low < row.value < row.ci_high
    for metric in ("projection", "projection_raw", "projection_difference"):
        classes = [values_of(labelled, metric, name) for name in ("positive", "negative")]
        # Classes of one size.
        assert values_of(bare, metric, "all") == pytest.approx(np.mean(classes, axis=0), abs=EXACT)
    assert {row.variant for row in bare.measurements} == {"all"}
    assert {row.metric for row in bare.measurements} == {
        "projection",
        "projection_raw",
        "projection_difference",
    }


def test_without_labels_nothing_is_said_of_classes(tmp_path):
    examples = grouped_examples(12)
    source = source_of({name: planted(examples, d_model=4) for name in ("base", "think_sft")})
    labelled, bare = both(tmp_path, source)
    assert warned(bare, "no labels", "no classes", "means are over all")
    assert not warned(labelled, "no labels")
    assert "label" in labelled.tables["examples"]
    assert "label" not in bare.tables["examples"]
    assert set(bare.figures) == {"projection"}
    assert "all texts" in bare.figures["projection"]
    assert bare.headline["middle layer"] == 1
    assert not {"auroc", "p (max)", "positive"} & set(bare.headline)


def test_intervals_of_texts_without_labels_resample_groups(tmp_path):
    examples = grouped_examples(12)
    values = planted(examples, gaps=(0, 0), d_model=4)
    values += np.random.default_rng(0).normal(size=12).repeat(4)[None, :, None]  # of a group alike
    alone = [dataclasses.replace(it, group=it.id) for it in examples]
    widths = []
    for them in (examples, alone):
        source = source_of({"think_sft": values, "base": values}, them)
        row = rows(both(tmp_path, source)[1], "projection", "all")[0]
        widths.append(row.ci_high - row.ci_low)
    # Were the 48 texts independent, their mean would vary half as much as that of 12 groups; few
    # groups and 200 resamples leave some noise.
    assert 1.5 < widths[0] / widths[1] < 2.5


def test_few_groups_without_labels_are_told(tmp_path):
    for n_groups, few in ((6, True), (12, False)):
        examples = grouped_examples(n_groups)
        values = {name: planted(examples, d_model=4) for name in ("base", "think_sft")}
        result = both(tmp_path, source_of(values, examples))[1]
        assert warned(result, "6 groups; intervals", "rough") is few


def test_whether_texts_without_labels_are_the_vectors_own_is_said_to_be_unknown(tmp_path):
    examples = grouped_examples(12)
    source = source_of({name: planted(examples, d_model=4) for name in ("base", "think_sft")})
    labelled, bare = both(tmp_path, source, data_digest="of other data")
    assert warned(bare, "these very texts is not known")
    assert not warned(labelled, "these very")
    assert not warned(both(tmp_path, source)[1], "these very")


def test_tokens_without_labels_have_parts_and_no_classes(tmp_path):
    examples = grouped_examples(12)
    labelled, bare = both(tmp_path, TokenSource(examples, token_values(examples)), types=FULL)
    for part in ("user", "think", "answer", "response"):
        assert rows(bare, "projection_part", part) == rows(labelled, "projection_part", part)
    difference = ("projection_part_difference", "think-answer")
    assert rows(bare, *difference) == rows(labelled, *difference)
    assert not [row for row in bare.measurements if ":" in row.variant]
    with_labels, without = labelled.tables["tokens"], bare.tables["tokens"]
    assert set(with_labels) - set(without) == {"label"}
    assert np.array_equal(without["layer_1"], with_labels["layer_1"])
    drawn = [name for name in bare.figures if name.startswith("tokens ")]
    assert drawn == ["tokens g0e0", "tokens g0e1"]
    assert "label" not in json.loads(bare.figures[drawn[0]])["layout"]["title"]["text"]


def test_without_labels_no_vector_is_fitted():
    examples = grouped_examples(12)
    values = {"think_sft": planted(examples), "base": planted(examples)}
    with pytest.raises(DataError, match="example 'g0e0' has no label"):
        run(source_of(values, without_labels(examples)))


def test_one_text_without_a_label_among_others_is_refused(tmp_path):
    examples = grouped_examples(12)
    examples[5] = dataclasses.replace(examples[5], label=None)
    path = saved(tmp_path / "v.safetensors", np.eye(16)[[0, 0]])
    values = {"think_sft": planted(grouped_examples(12))}
    with pytest.raises(DataError, match="example 'g1e1' has no label"):
        run(source_of(values, examples), reference=None, vector=path)


def test_a_projection_needs_labels_unless_it_has_a_vector(tmp_path):
    assert projection().needs_labels
    assert not projection(vector=saved(tmp_path / "v.safetensors", np.eye(16)[:2])).needs_labels
