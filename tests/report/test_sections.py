"""Sections: titles that tell them apart, numbers with their intervals, figures with captions."""

import json
from dataclasses import replace

import pytest

from olmo_stages.document import Grid
from olmo_stages.records import read_statuses
from olmo_stages.report.across import together
from olmo_stages.report.drawn import figures
from olmo_stages.report.headlines import lead, lead_of_all, noted
from olmo_stages.report.parts import parts
from olmo_stages.report.pool import pool
from olmo_stages.report.sections import section
from olmo_stages.report.tree import tree
from olmo_stages.types import Measurement, Result, Stage
from tests.report.jobs import BASE, DPO, MOVED, SFT, analysis, damage, finish, layers


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def found(sweep):
    return parts(together(pool({sweep: read_statuses(sweep)}).groups, sweep / "across"))


def only(sweep):
    (part,) = found(sweep)
    return part


def drawn(text, **meta):
    """A plotly figure; every figure of this package says what it is made of."""
    return json.dumps({"data": [], "layout": {"title": {"text": text}, "meta": meta}})


def finish_with(sweep, stage=SFT, reference=BASE, **result):
    return finish(sweep, stage, reference, result=Result(**{"measurements": (), **result}))


@pytest.mark.parametrize(
    ("difference", "told"),
    [
        ({"options": {"k": 2}}, "k=2"),
        ({"seed": 7}, "seed=7"),
        ({"passes": {"format": "chat_fixed"}}, "format=chat_fixed"),
        ({"passes": {"quantisation": "int4"}}, "quantisation=int4"),
    ],
)
def test_a_title_names_what_tells_a_section_from_the_others(sweep, difference, told):
    finish(sweep)
    assert only(sweep).title == "mine on truth"
    finish(sweep, DPO, SFT, **difference)
    titles = [it.title for it in found(sweep)]
    assert f"mine on truth · {told}" in titles
    assert len({it.key for it in found(sweep)}) == 2


def test_other_data_needs_no_more_than_its_name(sweep):
    finish(sweep)
    finish(sweep, data="manners")
    assert [it.title for it in found(sweep)] == ["mine on manners", "mine on truth"]


def test_keys_are_safe_whatever_the_data_is_called(sweep):
    finish(sweep, data="a <b>/ä")
    finish(sweep, data="a (b)")
    keys = [it.key for it in found(sweep)]
    assert len(set(keys)) == 2
    assert all(it.replace("-", "").replace("_", "").isalnum() and it.isascii() for it in keys)


def test_about_says_what_on_how_much_and_how(sweep, monkeypatch):
    doc = "analysis=mine: how far does it go,\nreally?\n\nMore."
    module = analysis(monkeypatch, across=lambda _: None)
    module.__doc__ = doc
    options = {"site": "resid_post", "n_permutations": 5, "layers": None}
    finish(sweep, rows=layers("think_sft"), options=options)
    assert section(only(sweep), []).about == (
        "How far does it go, really? 40 examples in 8 groups. Options: n_permutations=5, "
        "site=resid_post, format=raw, dtype=float32, quantisation=none, seed=0."
    )


def test_an_analysis_that_this_process_does_not_know_has_its_options(sweep):
    finish(sweep, options={"site": "resid_post"})
    assert section(only(sweep), []).about.startswith("Options: site=resid_post")


def test_a_headline_has_the_interval_of_the_measurement_that_it_is_and_of_no_other(sweep):
    of_layer = Measurement("score", 0.25, "think_sft", layer=6, ci_low=0.2, ci_high=0.3, p=0.01)
    whole = Measurement("score", 0.25, "think_sft", variant="best", ci_low=0.1, ci_high=0.4)
    headline = {"best layer": 3, "score": whole, "more": 0.25, "none": None}
    finish_with(sweep, measurements=(of_layer, whole), headline=headline)
    assert lead(only(sweep)).rows == (("think_sft", "base", 3, whole, 0.25, None),)


@pytest.mark.parametrize("text", ["a; b", "b"])
def test_a_text_that_says_what_is_in_the_cell_before_it_is_left_out(sweep, text):
    row = Measurement("score", 0.5, "think_sft", note="a; b")
    finish_with(sweep, measurements=(row,), headline={"score": row, "note": text, "empty": ""})
    assert lead(only(sweep)).columns == ("stage", "reference", "score")


@pytest.mark.parametrize("text", ["0.120-0.988", "a; c", "-"])
def test_a_text_that_says_more_than_the_cell_before_it_stays(sweep, text):
    row = Measurement("score", 0.5, "think_sft", ci_low=0.12, ci_high=0.9877, note="a; b")
    finish_with(sweep, measurements=(row,), headline={"score": row, "more": text})
    assert lead(only(sweep)).rows == (("think_sft", "base", row, text),)


def test_a_column_that_says_more_of_one_job_stays_whole(sweep):
    row = Measurement("score", 0.5, "think_sft", ci_low=0.12, ci_high=0.9877, note="a")
    finish_with(sweep, measurements=(row,), headline={"score": row, "note": "a"})
    finish_with(sweep, DPO, headline={"score": 0.7, "note": "b"})
    assert [row[-1] for row in lead(only(sweep)).rows] == ["a", "b"]


def test_jobs_without_a_reference_have_no_column_for_it(sweep):
    finish(sweep, SFT, None)
    assert lead(only(sweep)).columns == ("stage", "score")


def test_without_edges_a_section_has_its_extremes(sweep):
    for stage, value in ((SFT, 0.2), (DPO, 0.9)):
        finish_with(sweep, stage, headline={"best layer": 9, "score": value})
    assert section(only(sweep), []).findings == (
        "score is highest for think_dpo: 0.900, and lowest for think_sft: 0.200.",
    )


def test_what_headlines_note_is_counted(sweep):
    finish_with(sweep, SFT, headline={"note": "below the baseline"})
    finish_with(sweep, DPO, headline={"note": ""})
    assert noted(only(sweep)) == ['1 of 2 jobs is noted as "below the baseline": think_sft.']
    finish_with(sweep, DPO, headline={"note": "below the baseline"})
    assert noted(only(sweep)) == ['Both jobs are noted as "below the baseline".']


@pytest.mark.parametrize(
    ("traits", "told"),
    [(("calm", "kind"), 'Its job is noted as "far" for kind.'), (("kind",), 'as "far".')],
)
def test_a_note_about_one_of_several_traits_names_it(sweep, traits, told):
    rows = tuple(Measurement("score", 0.5, "think_sft", trait=it) for it in traits)
    finish_with(sweep, measurements=rows, headline={"score": rows[-1], "note": "far"})
    (found,) = noted(only(sweep))
    assert found.endswith(told)


def test_a_note_means_what_the_analysis_says_with_what_chance_gives(sweep, monkeypatch):
    notes = {"turned": "p at most 0.05", "lost": "the null is that of shuffled labels"}
    analysis(monkeypatch, NOTES=notes)
    for stage in (SFT, DPO):
        finish_with(sweep, stage, headline={"note": "turned; lost; odd"})
    assert noted(only(sweep)) == [
        'Both jobs are noted as "turned" (p at most 0.05; up to about 0.1 of 2 would be by chance '
        "if nothing had changed).",
        'Both jobs are noted as "lost" (the null is that of shuffled labels).',
        'Both jobs are noted as "odd".',
    ]


@pytest.mark.parametrize("notes", [3, {"turned": 3}])
def test_notes_that_are_no_texts_are_said_to_be_wrong(sweep, monkeypatch, notes):
    analysis(monkeypatch, NOTES=notes)
    finish(sweep)
    assert only(sweep).notes == ("mine says NOTES that are no texts by note",)


@pytest.mark.parametrize(("value", "shown"), [(0.99995, "0.99995"), (1.0, "1.000"), (0.5, "0.500")])
def test_what_is_not_quite_one_is_not_shown_as_one(sweep, monkeypatch, value, shown):
    analysis(monkeypatch, across=lambda _: Result((), headline={"nearest": "a", "score": value}))
    for stage in (SFT, DPO):
        finish(sweep, stage)
    (said,) = (
        it for it in section(only(sweep), []).findings if it.startswith("Both jobs together")
    )
    assert said == f"Both jobs together: nearest a, score {shown}."


def test_a_warning_of_several_jobs_is_said_once(sweep):
    for stage, n in ((SFT, 3), (DPO, 5)):
        warnings = ("sinks left out", f"noise in {n} of 8 layers of {stage.label}", "odd " * n)
        finish_with(sweep, stage, warnings=warnings)
    assert section(only(sweep), []).notes == (
        "sinks left out (both jobs)",
        "noise in 3 of 8 layers of think_sft (think_sft; alike, with other numbers, for both jobs)",
        f"{'odd ' * 3} (think_sft)",
        f"{'odd ' * 5} (think_dpo)",
    )


def test_all_stages_are_drawn_over_layers_by_trait(sweep):
    for stage in (SFT, DPO):
        rows = [it for trait in ("calm", "kind") for it in layers(stage.label, "base", trait)]
        finish(sweep, stage, BASE, rows)
    (figure,), notes = figures(only(sweep))
    assert notes == ()
    assert [it.name for it in figure.choices] == ["calm", "kind"]
    assert set(figure.choices[1].rows["trait"]) == {"kind"}
    assert len(figure.choices[1].rows) == 4
    assert "40 examples in 8 groups" in figure.caption
    titles = list(section(only(sweep), []).tables)
    assert titles == ["score by layer, calm", "score by layer, kind"]


def test_one_job_needs_no_figure_of_all(sweep):
    finish(sweep, rows=layers("think_sft"))
    assert figures(only(sweep)) == ((), ())


def test_a_table_by_layer_has_a_column_a_stage(sweep):
    for stage in (SFT, DPO):
        finish(sweep, stage, BASE, layers(stage.label, "base"))
    (table,) = section(only(sweep), []).tables.values()
    assert isinstance(table, Grid)
    assert table.columns == ("layer", "attention", "think_sft", "think_dpo")
    assert [row[:2] for row in table.rows] == [(0, "full"), (1, "full")]
    assert [row[3].value for row in table.rows] == [0.5, 0.6]


def by_layer(sweep):
    (table,) = section(only(sweep), []).tables.items()
    return table[0], table[1].columns[2:]


def test_a_stage_without_a_reference_does_not_choose_what_comparisons_lead_with(sweep):
    finish(sweep, BASE, None, layers("base", metric="reliability"))
    finish(sweep, SFT, BASE, [*layers("think_sft", "base"), *layers("think_sft", "", "", "norm")])
    assert by_layer(sweep) == ("score by layer", ("think_sft",))


def test_the_number_that_comes_first_in_most_comparisons_leads(sweep):
    more = Stage("instruct_sft", "tiny", "miniature", parent=SFT)
    for stage in (DPO, more):
        finish(sweep, stage, SFT, layers(stage.label, "think_sft"))
    finish(sweep, SFT, BASE, layers("think_sft", "base", metric="other"))
    title, names = by_layer(sweep)
    assert title == "score by layer"
    assert "think_sft vs base" in names  # it was to be compared, so that its column is empty


def test_without_comparisons_every_stage_counts(sweep):
    for stage in (BASE, SFT):
        finish(sweep, stage, None, layers(stage.label, metric="reliability"))
    assert by_layer(sweep) == ("reliability by layer", ("base", "think_sft"))


def test_a_stage_compared_with_itself_has_no_column_among_comparisons(sweep):
    finish(sweep, BASE, None, layers("base", "base"))
    assert by_layer(sweep)[1] == ("base",)
    finish(sweep, SFT, BASE, layers("think_sft", "base"))
    assert by_layer(sweep)[1] == ("think_sft",)


def test_a_stage_that_was_measured_by_itself_stays_among_comparisons(sweep):
    finish(sweep, BASE, None, layers("base"))
    finish(sweep, SFT, BASE, layers("think_sft"))
    assert by_layer(sweep)[1] == ("base", "think_sft")


@pytest.mark.parametrize(("metric", "led"), [("moved", "moved"), ("other", "score")])
def test_the_number_of_the_change_leads_where_layers_have_it(sweep, monkeypatch, metric, led):
    analysis(monkeypatch, CHANGE=MOVED)
    for stage in (SFT, DPO):
        own = [replace(it, variant="raw") for it in layers(stage.label, "base", metric=metric)]
        finish(sweep, stage, BASE, [*layers(stage.label, "base"), *own])
    assert by_layer(sweep)[0] == f"{led} by layer"


def test_figures_of_one_name_are_choices_with_their_own_rows(sweep):
    for stage in (SFT, DPO):
        text = drawn(f"Scores &lt;by&gt; layer, {stage.label}", metric=["score"], variant=[""])
        rows = (*layers(stage.label), Measurement("other", 1.0, stage.label))
        finish_with(sweep, stage, measurements=rows, figures={"curve": text})
    _, figure = figures(only(sweep))[0]
    assert (figure.key, figure.title) == ("curve", "Scores <by> layer")
    assert [it.name for it in figure.choices] == ["think_sft", "think_dpo"]
    assert [set(it.rows["stage"]) for it in figure.choices] == [{"think_sft"}, {"think_dpo"}]
    assert set(figure.choices[0].rows["metric"]) == {"score"}


def test_stages_with_references_of_their_own_are_told_apart_by_both(sweep):
    finish_with(sweep, SFT, BASE, figures={"curve": drawn("x")})
    finish_with(sweep, DPO, SFT, figures={"curve": drawn("x")})
    ((figure,), _) = figures(only(sweep))
    assert [it.name for it in figure.choices] == ["think_sft vs base", "think_dpo vs think_sft"]


def test_a_caption_is_the_figures_own_or_made_from_rows(sweep):
    named = drawn("x", caption="Bands: <b>95 %</b>.", title="A & B")
    made = {"own": named, "score": drawn("x"), "strange": drawn("x")}
    finish_with(sweep, measurements=tuple(layers("think_sft")), figures=made)
    own, score, strange = figures(only(sweep))[0]
    assert (own.title, own.caption) == ("A & B", "Bands: <b>95 %</b>.")
    assert score.caption == (
        "40 examples in 8 groups. Intervals are over groups, the units that were resampled."
    )
    assert len(score.choices[0].rows) == 2
    assert "does not say from which of its numbers" in strange.caption
    assert strange.choices[0].rows.empty


def captions(sweep):
    ((figure,), _) = figures(only(sweep))
    return figure.caption, {it.name: it.caption for it in figure.choices}


def test_a_choice_has_its_own_caption_where_most_others_have_another(sweep):
    said = {BASE: "No null is drawn.", SFT: "Null: shuffled labels.", DPO: "Null: shuffled labels."}
    for stage, caption in said.items():
        finish_with(sweep, stage, None, figures={"curve": drawn("x", caption=caption)})
    told, own = captions(sweep)
    assert told == "Null: shuffled labels."
    assert own == {"base": "No null is drawn.", "think_sft": "", "think_dpo": ""}


def test_choices_that_say_the_same_have_one_caption(sweep):
    for stage in (BASE, SFT):
        finish_with(sweep, stage, None, figures={"curve": drawn("x", caption="Bands: groups.")})
    assert captions(sweep) == ("Bands: groups.", {"base": "", "think_sft": ""})


def test_captions_made_from_rows_are_of_their_own_rows(sweep):
    for stage, n in ((BASE, 40), (SFT, 30)):
        row = Measurement("curve", 0.5, stage.label, n=n)
        finish_with(sweep, stage, None, measurements=(row,), figures={"curve": drawn("x")})
    told, own = captions(sweep)
    assert told.startswith("40 examples")
    assert own["base"] == ""
    assert own["think_sft"].startswith("30 examples")


def test_a_damaged_figure_is_left_out_with_a_note(sweep):
    folder = finish_with(sweep, figures={"bad": drawn("x"), "good": drawn("x")})
    damage(folder / "figures" / "bad.json")
    found = section(only(sweep), [])
    assert [it.key for it in found.figures] == ["good"]
    assert "figure bad is left out" in found.notes[0]


def test_figures_keep_keys_of_their_own(sweep):
    names = ["a b", "a-b", "ä"]
    finish_with(sweep, figures={name: drawn("x") for name in names})
    assert [it.key for it in figures(only(sweep))[0]] == ["a-b", "a-b-again1", "figure"]


def test_what_is_said_of_all_jobs_together_is_in_the_section(sweep, monkeypatch):
    def across(jobs):
        rows = [Measurement("near_stages", 0.5, jobs[0].stage, jobs[1].stage, variant="raw")]
        headline = {"stages": 2, "nearest": "think_sft"}
        return Result(
            tuple(rows), figures={"map": drawn("Map")}, headline=headline, warnings=("w",)
        )

    analysis(monkeypatch, across=across)
    for stage in (SFT, DPO):
        finish(sweep, stage)
    found = section(only(sweep), [])
    assert "Both jobs together: stages 2, nearest think_sft." in found.findings
    assert [it.key for it in found.figures] == ["all-map"]
    assert found.notes == ("w",)
    (title,) = found.tables
    assert title == "near · raw, each stage against others"
    assert found.tables[title].columns == ("stage", "against think_dpo")


def test_without_changes_the_lead_has_the_headlines(sweep):
    for stage in (SFT, DPO):
        finish(sweep, stage, SFT if stage is DPO else BASE)
    finish(sweep, DPO, BASE)
    jobs = pool({sweep: read_statuses(sweep)})
    grid = lead_of_all(tree(jobs), found(sweep))
    assert grid.columns == ("stage", "parent", "score")
    # Two jobs are about think_dpo: the one against its parent speaks.
    assert grid.rows == (("think_sft", "base", 0.5), ("think_dpo", "think_sft", 0.5))


@pytest.mark.parametrize("text", ["[]", '{"layout": 1}', '{"layout": {"title": "plain"}}'])
def test_a_figure_of_any_shape_has_a_title(sweep, text):
    finish_with(sweep, figures={"odd_one": text})
    ((figure,), _) = figures(only(sweep))
    assert figure.title == ("plain" if "plain" in text else "odd one")


def test_what_is_no_json_is_left_out_with_a_note(sweep):
    finish_with(sweep, figures={"odd": "no"})
    found, notes = figures(only(sweep))
    assert found == ()
    assert "figure odd is left out" in notes[0]


def test_where_an_analysis_draws_all_stages_itself_no_second_figure_is_made(sweep, monkeypatch):
    told = {"metric": ["score"], "variant": [""], "trait": [""]}

    def across(_):
        return Result((), figures={"map": drawn("Map"), "over": drawn("Over", of="jobs", **told)})

    analysis(monkeypatch, across=across)
    for stage in (SFT, DPO):
        finish(sweep, stage, BASE, layers(stage.label, "base"))
    over, rest = figures(only(sweep))[0]
    assert (over.key, rest.key) == ("all-over", "all-map")
    assert list(over.choices[0].rows["stage"]) == ["think_sft"] * 2 + ["think_dpo"] * 2


def test_long_names_make_short_keys_that_differ(sweep):
    for end in "ab":
        finish(sweep, data="x" * 90 + end)
    keys = [it.key for it in found(sweep)]
    assert len(set(keys)) == 2
    assert max(map(len, keys)) < 64
