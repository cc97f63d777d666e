"""From sweep folders to a study, from files alone."""

import json
import shutil
from dataclasses import replace

import pytest

from olmo_stages.records import Status, is_finished, write_status
from olmo_stages.report import study
from olmo_stages.report.lead import placed
from olmo_stages.stages import custom, lookup
from olmo_stages.types import Change, Measurement, Result, Stage
from tests.report.jobs import (
    BASE,
    DPO,
    MOVED,
    SFT,
    analysis,
    damage,
    fail,
    finish,
    launched,
    layers,
    moved,
)


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


@pytest.fixture
def mine(monkeypatch):
    """An analysis that says what an edge carries."""
    return analysis(monkeypatch, CHANGE=MOVED)


def carried(found):
    """What the edges carry, by parent and stage."""
    return {
        (edge.parent, edge.stage): [(it.row and it.row.value, it.why) for it in edge.shifts]
        for edge in found.edges
    }


def family(sweep, **values):
    """Each stage against its parent."""
    for stage, reference in ((SFT, BASE), (DPO, SFT)):
        rows = [moved(values.get(stage.name, 0.5), stage.label, reference.label)]
        finish(sweep, stage, reference, rows, config={"reference": "parent"})


@pytest.mark.usefixtures("mine")
def test_edges_and_lead_table_carry_the_same_numbers(sweep):
    family(sweep, think_sft=0.9, think_dpo=0.3)
    found = study.build([sweep])
    assert carried(found) == {
        ("base", "think_sft"): [(0.9, "")],
        ("think_sft", "think_dpo"): [(0.3, "")],
    }
    assert found.lead.columns == ("stage", "parent", "moved")
    assert [row[:2] for row in found.lead.rows] == [
        ("think_sft", "base"),
        ("think_dpo", "think_sft"),
    ]
    assert [row[2] for row in found.lead.rows] == [edge.shifts[0].row for edge in found.edges]
    assert found.lead.notes == {"moved": "how far it moved. 95 % interval over groups"}
    assert found.findings == (
        "moved: farthest from unchanged (0) on base → think_sft, 0.900 [0.800, 1.000]; then on "
        "think_sft → think_dpo, 0.300 [0.200, 0.400]. 2 of 2 intervals leave out 0, uncorrected "
        "for there being 2; up to about 0.1 of 2 would by chance if nothing had changed.",
    )
    assert found.asked == (
        "2 jobs: mine of 2 stages (size tiny), each compared with its parent, on truth."
    )


@pytest.mark.usefixtures("mine")
def test_against_one_reference_a_further_column_says_how_far(sweep):
    for stage, value in ((SFT, 0.9), (DPO, 0.3)):
        finish(sweep, stage, BASE, [moved(value, stage.label, "base")])
    found = study.build([sweep])
    assert carried(found)["think_sft", "think_dpo"] == [
        (None, "compared with base, not with its parent; run it with reference=parent")
    ]
    assert found.lead.columns == ("stage", "parent", "moved", "moved against base")
    assert found.lead.rows[1][2] is None
    assert found.lead.rows[1][3].value == 0.3
    assert any(it.startswith("moved against base: farthest") for it in found.findings)
    assert "compared with base" in found.asked


@pytest.mark.usefixtures("mine")
def test_a_number_that_no_edge_has_is_shown_against_its_reference_only(sweep):
    finish(sweep, DPO, BASE, [moved(0.3, "think_dpo", "base")])
    found = study.build([sweep])
    assert found.lead.columns == ("stage", "parent", "moved against base", "state")
    assert [(row[0], row[-1]) for row in found.lead.rows] == [
        ("think_sft", "not run"),
        ("think_dpo", "done"),
    ]
    assert all(edge.shifts == () for edge in found.edges)
    assert found.lead.notes == {
        "moved against base": "how far it moved. 95 % interval over groups. Against base, not the "
        "parent"
    }
    assert found.findings[0].startswith("moved against base: 0.300 [0.200, 0.400] on think_dpo")
    assert placed(found)[1, 2].holds_unchanged is False
    assert found.asked == "1 job: mine of 1 stage (size tiny), compared with base, on truth."


@pytest.mark.usefixtures("mine")
def test_what_a_stage_without_a_parent_is_compared_with_has_nothing_above_it(sweep):
    own = custom(path="dir", name="mine", parent=None, revision="main", size="tiny")
    config = {"model": {"parent": None, "size": "tiny"}}
    finish(sweep, own, DPO, [moved(0.3, "mine", "think_dpo")], config=config)
    found = study.build([sweep])
    assert [(it.label, it.parent) for it in found.nodes] == [("think_dpo", ""), ("mine", "")]
    assert found.edges == ()
    assert found.lead.columns == ("stage", "parent", "moved against think_dpo")
    assert [row[0] for row in found.lead.rows] == ["mine"]


@pytest.mark.usefixtures("mine")
def test_a_stage_compared_with_its_parent_and_another_has_both_numbers(sweep):
    for stage, reference, value in ((SFT, BASE, 0.9), (DPO, BASE, 0.3), (DPO, SFT, 0.1)):
        finish(sweep, stage, reference, [moved(value, stage.label, reference.label)])
    found = study.build([sweep])
    assert found.lead.columns == ("stage", "parent", "moved", "moved against base")
    assert [tuple(it.value for it in row[2:]) for row in found.lead.rows] == [
        (0.9, 0.9),
        (0.1, 0.3),
    ]


@pytest.mark.usefixtures("mine")
def test_against_several_other_stages_there_is_no_further_column(sweep):
    rlvr = lookup("think_rlvr", "tiny")
    for stage, reference in ((DPO, BASE), (rlvr, SFT)):
        finish(sweep, stage, reference, [moved(0.5, stage.label, reference.label)])
    assert study.build([sweep]).lead.columns[:3] == ("stage", "parent", "moved")
    assert not any("against" in it for it in study.build([sweep]).lead.columns)


def test_an_edge_is_filled_from_what_all_jobs_say_together(sweep, mine):
    def across(jobs):
        row = Measurement("moved_stages", -0.4, jobs[0].stage, jobs[1].stage, variant="raw")
        return Result((row,))

    mine.across = across
    for stage in (SFT, DPO):
        finish(sweep, stage, BASE, [moved(0.5, stage.label, "base")])
    ((value, why),) = carried(study.build([sweep]))["think_sft", "think_dpo"]
    assert value == 0.4
    assert "turned round" in why


@pytest.mark.usefixtures("mine")
def test_of_several_traits_each_has_its_own_column(sweep):
    rows = [moved(it, "think_sft", "base", trait=t) for it, t in ((0.1, "calm"), (0.7, "kind"))]
    finish(sweep, SFT, BASE, rows)
    found = study.build([sweep])
    assert found.lead.columns == ("stage", "parent", "moved · calm", "moved · kind")
    assert carried(found)["base", "think_sft"] == [(0.1, ""), (0.7, "")]


@pytest.mark.usefixtures("mine")
def test_sizes_share_a_column_and_no_number(sweep):
    family(sweep, think_sft=0.9)
    large = lookup("think_sft", "7b")
    finish(sweep, large, large.parent, [moved(0.2, "think_sft", "base")])
    found = study.build([sweep])
    assert found.lead.columns == ("stage", "parent", "moved")
    assert [it.title for it in found.sections] == [
        "mine on truth · size=7b",
        "mine on truth · size=tiny",
    ]
    edges = carried(found)
    assert edges["base (tiny)", "think_sft (tiny)"] == [(0.9, "")]
    assert edges["base (7b)", "think_sft (7b)"] == [(0.2, "")]
    tiny = next(it for it in found.sections if "tiny" in it.title)
    assert "7b" not in " ".join(tiny.findings)


@pytest.mark.usefixtures("mine")
def test_other_options_have_a_column_of_their_own(sweep):
    family(sweep)
    finish(sweep, SFT, BASE, [moved(0.1, "think_sft", "base")], options={"k": 2})
    found = study.build([sweep])
    assert sorted(found.lead.columns[2:]) == ["moved · k=1", "moved · k=2"]
    assert [len(edge.shifts) for edge in found.edges] == [2, 2]


@pytest.mark.usefixtures("mine")
def test_a_failed_job_of_another_option_is_told_from_the_one_with_a_result(sweep):
    own = ["model=think_sft", "analysis=mine", "size=tiny"]
    rows = [moved(0.5, "think_sft", "base")]
    finish(sweep, SFT, BASE, rows, overrides=[*own, "site=post"])
    write_status(sweep, Status("pre", "failed", error="no hook", overrides=[*own, "site=pre"]))
    found = study.build([sweep])
    assert not any(it.failed for it in found.nodes)
    assert found.lead.columns == ("stage", "parent", "moved · site=post", "state")
    assert [row[-1] for row in found.lead.rows] == ["mine (site=pre) failed"]
    assert [(it.job, it.reason) for it in found.problems] == [("pre", "no hook")]
    assert found.sections[0].title == "mine on truth · site=post"


@pytest.mark.usefixtures("mine")
def test_failed_and_missing_jobs_lead_the_findings_and_say_why(sweep):
    launched(sweep, "model=think_sft,think_dpo,instruct_sft")
    finish(sweep, SFT, BASE, [moved(0.5, "think_sft", "base")])
    fail(sweep, "think_dpo")
    fail(sweep, "instruct_sft", "missing")
    found = study.build([sweep])
    assert found.findings[0] == "2 of 3 jobs have no result: 1 missing, 1 failed."
    edges = carried(found)
    assert edges["think_sft", "think_dpo"] == [(None, "its job failed")]
    assert edges["think_sft", "instruct_sft"] == [(None, "its job never ran")]
    assert {it.label: it.failed for it in found.nodes}["think_dpo"]
    assert {it.state for it in found.problems} == {"failed", "missing"}
    assert all(it.command.startswith("python run.py -m") for it in found.problems)
    assert found.lead.columns[-1] == "state"
    assert [row[-1] for row in found.lead.rows] == ["done", "mine failed", "mine missing"]
    assert found.asked.startswith("1 of 3 jobs finished: ")


def test_with_nothing_finished_nothing_is_claimed(sweep):
    fail(sweep, "think_sft")
    found = study.build([sweep])
    assert found.findings == (
        "1 of 1 job has no result: 1 failed.",
        "No job is finished, so nothing is found yet.",
    )
    assert (found.sections, found.sources, found.asked) == ((), (), "0 of 1 job finished.")
    assert found.lead.rows == (("think_sft", "base", "mine failed"),)


@pytest.mark.usefixtures("mine")
def test_a_damaged_result_is_a_problem(sweep):
    family(sweep)
    folder = finish(sweep, DPO, SFT, [moved(0.1, "think_dpo", "think_sft")])
    damage(folder / "measurements.parquet")
    found = study.build([sweep])
    assert [it.state for it in found.problems] == ["damaged"]
    assert carried(found)["think_sft", "think_dpo"] == [(None, "its result is damaged")]


@pytest.mark.usefixtures("mine")
def test_equal_weights_are_said_on_the_edge_and_among_the_warnings(sweep):
    rows = [moved(0.0, "think_sft", "base", half=0.0)]
    finish(sweep, SFT, BASE, rows, weights={"think_sft": "w", "base": "w"})
    found = study.build([sweep])
    assert carried(found)["base", "think_sft"] == [(0.0, "they have the same weights")]
    assert "think_sft (tiny) and base (tiny) have the same weights" in found.warnings[0]
    assert found.findings == ("moved, base → think_sft: they have the same weights.",)


@pytest.mark.usefixtures("mine")
def test_other_weights_are_not_said_to_be_the_same(sweep):
    family(sweep)
    assert study.build([sweep]).warnings == ()


@pytest.mark.usefixtures("mine")
def test_a_revision_is_measured_against_the_one_before_it_or_says_why_not(sweep):
    steps = [Stage("base", "tiny", "miniature", f"stage1-step{n}") for n in (50, 100)]
    for stage in steps:
        finish(sweep, stage, BASE, [moved(0.5, stage.label, "base")])
    found = study.build([sweep])
    edges = carried(found)
    assert edges["base@stage1-step50", "base@stage1-step100"] == [
        (None, "compared with base, not with the revision before it")
    ]
    # The change of the last revision to the released one is that of its job, turned round.
    assert edges["base@stage1-step100", "base"][0][0] == -0.5
    assert found.lead.columns[-2:] == ("moved against base", "state")


def test_an_undefined_number_is_no_number_of_a_sentence(sweep, mine):
    mine.CHANGE = Change("moved", "how far", "moved", "raw")
    family(sweep, think_sft=float("nan"), think_dpo=0.3)
    found = study.build([sweep])
    assert found.findings == (
        "moved: 0.300 [0.200, 0.400] on think_sft → think_dpo (unchanged: 0). The interval leaves "
        "out 0. Known of 1 of 2 edges.",
    )
    assert "moved, base → think_sft: undefined." in found.sections[0].findings


def test_what_an_analysis_says_wrongly_of_its_change_is_a_note(sweep, mine):
    mine.CHANGE = "probe"
    family(sweep)
    (section,) = study.build([sweep]).sections
    assert "give a Change or None" in section.notes[0]


def test_an_analysis_without_a_change_has_a_complete_section(sweep, monkeypatch):
    analysis(monkeypatch)
    for stage, value in ((SFT, 0.2), (DPO, 0.8)):
        rows = layers(stage.label, metric="norm")
        finish(sweep, stage, BASE, result=Result(tuple(rows), headline={"norm": value}))
    found = study.build([sweep])
    assert found.findings == (
        "norm is highest for think_dpo: 0.800, and lowest for think_sft: 0.200.",
        "The lineage carries no numbers: mine names no number of change (CHANGE).",
    )
    assert found.lead.columns == ("stage", "parent", "norm")
    assert [it.shifts for it in found.edges] == [(), ()]
    (section,) = found.sections
    assert [it.key for it in section.figures] == ["by-layer"]
    assert list(section.tables) == ["norm by layer"]


@pytest.mark.usefixtures("mine")
def test_several_sweeps_are_one_study(sweep, tmp_path):
    other = sweep.parent / "t"
    finish(sweep, SFT, BASE, [moved(0.9, "think_sft", "base")])
    fail(sweep, "think_dpo")
    own = ["model=think_dpo", "analysis=mine", "size=tiny"]
    finish(other, DPO, SFT, [moved(0.3, "think_dpo", "think_sft")], overrides=own)
    finish(other, SFT, BASE, [moved(0.9, "think_sft", "base")])
    found = study.build([sweep, other], tmp_path / "report")
    assert found.title == "s + t"
    assert found.problems == ()
    assert len(found.sources) == 2
    assert [value for ((value, _),) in carried(found).values()] == [0.9, 0.3]


def test_several_sweeps_are_put_together_in_the_folder_of_the_report(sweep, tmp_path, mine):
    mine.across = lambda jobs: Result((), warnings=(f"of {len(jobs)} jobs",))
    other = sweep.parent / "t"
    finish(sweep, SFT, BASE)
    finish(other, DPO, SFT)
    found = study.build([sweep, other], tmp_path / "report")
    assert "of 2 jobs" in found.sections[0].notes
    assert is_finished(tmp_path / "report" / "across" / "mine.truth")
    assert not (sweep / "across").exists()
    study.build([sweep, other])
    assert is_finished(sweep.parent.parent / "reports" / "s+t" / "across" / "mine.truth")


def test_of_one_sweep_it_stays_with_the_sweep(sweep, tmp_path, mine):
    mine.across = lambda jobs: Result((), headline={"jobs": len(jobs)})
    mine.__file__ = __file__  # code that is known, and so known to be the same
    finish(sweep, SFT, BASE)
    study.build([sweep])
    assert is_finished(sweep / "across" / "mine.truth")
    found = study.build([sweep], tmp_path / "report")  # it is current, and used where it is
    assert found.assembled == (str(sweep / "across" / "mine.truth"),)
    assert not (tmp_path / "report").exists()


def test_of_one_sweep_it_goes_elsewhere_on_request(sweep, tmp_path, mine):
    mine.across = lambda jobs: Result((), headline={"jobs": len(jobs)})
    finish(sweep, SFT, BASE)
    study.build([sweep], tmp_path / "report")
    assert is_finished(tmp_path / "report" / "across" / "mine.truth")
    assert not (sweep / "across").exists()


def test_a_sweep_that_was_moved_is_read_where_it_is(sweep, tmp_path, mine):
    del mine
    family(sweep)
    shutil.copytree(tmp_path / "outputs", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "outputs")
    found = study.build([tmp_path / "elsewhere" / "sweeps" / "s"])
    assert len(found.sources) == 2


@pytest.mark.usefixtures("mine")
def test_hostile_names_make_safe_keys_and_stay_text(sweep):
    hostile = "<script>x</script>"
    launched(sweep, f"model={hostile}")
    rows = [moved(0.4, "think_sft", "base", note=hostile), *layers("think_sft", "base")]
    figure = json.dumps({"layout": {"title": {"text": hostile}}})
    result = Result(tuple(rows), figures={hostile: figure}, headline={hostile: hostile})
    finish(sweep, SFT, BASE, data=hostile, result=result)
    found = study.build([sweep])
    assert found.sections[0].key == "mine--script-x-script"
    assert found.sections[0].figures[0].key == "script-x-script"
    assert found.edges[0].shifts[0].why == hostile


@pytest.mark.usefixtures("mine")
def test_what_jobs_note_follows_their_number_under_its_name(sweep):
    rows = [moved(0.9, "think_sft", "base")]
    finish(sweep, result=Result(tuple(rows), headline={"note": "Far off"}))
    found = study.build([sweep])
    said = [it for it in found.findings if "noted" in it]
    assert said == ['moved: its job is noted as "Far off".']
    assert 'Its job is noted as "Far off".' in found.sections[0].findings


@pytest.mark.usefixtures("mine")
def test_what_jobs_of_several_numbers_note_is_said_once(sweep):
    rows = [moved(0.9, "think_sft", "base", trait=it) for it in ("calm", "kind")]
    finish(sweep, result=Result(tuple(rows), headline={"note": "far off"}))
    said = [it for it in study.build([sweep]).findings if "noted" in it]
    assert said == ['mine on truth: its job is noted as "far off".']


def test_what_all_jobs_say_together_is_left_to_the_edges(sweep, mine):
    mine.across = lambda jobs: Result((), headline={"jobs": len(jobs), "more": 1})
    family(sweep)
    assert not any("together" in it for it in study.build([sweep]).sections[0].findings)
    del mine.CHANGE
    assert any("together" in it for it in study.build([sweep]).sections[0].findings)


def test_an_edge_says_over_what_the_interval_of_its_own_number_is(sweep, monkeypatch):
    change = replace(MOVED, resampled_across="95 % jackknife interval over groups")

    together = replace(moved(0.4, "think_dpo", "think_sft", p=0.01), metric="moved_stages")
    analysis(monkeypatch, CHANGE=change, across=lambda _: Result((together,)))
    finish(sweep, SFT, BASE, [moved(0.9, "think_sft", "base", p=0.01)])
    finish(sweep, DPO, BASE, [moved(0.3, "think_dpo", "base", p=0.01)])
    found = study.build([sweep])
    direct, together = (edge.shifts[0] for edge in found.edges)
    assert direct.change.resampled == "95 % interval over groups"
    assert together.change.resampled == "95 % jackknife interval over groups"
    assert (direct.row.p, together.row.p) == (None, None)
    assert found.lead.notes["moved"] == (
        "how far it moved. 95 % interval over groups; from all stages together: 95 % jackknife "
        "interval over groups"
    )
