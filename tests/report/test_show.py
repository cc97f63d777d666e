"""The order of a sweep's rows and the command that goes on with it."""

import json

import pytest

from olmo_stages import command
from olmo_stages.report.show import show_sweep
from olmo_stages.statuses import Status, log_of


def test_revisions_come_by_step_and_main_last(tmp_path, capsys):
    names = ["base", "base@stage1-step1000", "base@stage1-step200"]
    show_sweep([Status(name, "ok", about={"stage": name}) for name in names], tmp_path)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " ok" in line]
    assert rows == [names[2], names[1], names[0]]


def finished(stage, analysis, **headline):
    about = {"stage": stage, "analysis": analysis, "data": "truth"}
    return Status(f"{stage}.{analysis}", "ok", headline=headline, about=about)


def headings(text):
    """Lines with names of columns."""
    return [line.split() for line in text.splitlines() if "auroc" in line or "mean cka" in line]


def test_analyses_of_a_sweep_have_a_table_each(tmp_path, capsys):
    jobs = [
        finished(stage, analysis, **head)
        for stage in ("base", "think_sft")
        for analysis, head in (("probe", {"auroc": 0.9}), ("cka", {"mean cka": 0.5}))
    ]
    show_sweep(jobs, tmp_path)
    text = capsys.readouterr().out
    assert sorted(("auroc" in line, "cka" in line) for line in headings(text)) == [
        (False, True),
        (True, False),
    ]
    lines = [line.split() for line in text.splitlines() if line.rstrip().endswith(" ok")]
    assert [(line[0], line[-2]) for line in lines] == [
        ("base", "0.500"),
        ("think_sft", "0.500"),
        ("base", "0.900"),
        ("think_sft", "0.900"),
    ]
    assert not any("-" in line for line in lines)


def test_one_analysis_on_several_data_sets_has_one_table(tmp_path, capsys):
    jobs = [finished("base", "probe", auroc=0.9), finished("think_sft", "probe", auroc=0.8)]
    jobs[1].about["data"] = "manners"
    show_sweep(jobs, tmp_path)
    assert len(headings(capsys.readouterr().out)) == 1


@pytest.mark.parametrize(
    ("state", "shown"),
    [("failed", 1), ("ok", 0), ("running", 0), ("queued", 0), ("stopped", 1)],
)
def test_the_command_is_shown_once_where_something_is_missing(tmp_path, capsys, state, shown):
    command.record(tmp_path, "run.py", ["-m", "model=a,b", "outputs=here there"])
    show_sweep([Status("a", state), Status("b", state)], tmp_path)
    line = "redo only what is missing: python run.py -m model=a,b 'outputs=here there'"
    assert capsys.readouterr().out.count(line) == shown


def test_a_reason_is_one_line_however_narrow_the_table_and_names_the_log(tmp_path, capsys):
    error = "what is wrong with this job takes more words than the table of its sweep is wide" * 2
    jobs = [Status(it, "failed", error=error, overrides=[f"model={it}"]) for it in "ab"]
    log = log_of(tmp_path, "b")
    log.parent.mkdir()
    log.touch()
    show_sweep(jobs, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert f"model=a: {error}" in lines
    assert f"model=b: {error}; log: {log}" in lines


@pytest.mark.parametrize(("digest", "said"), [("w1", True), ("w2", False)])
def test_stages_with_the_same_weights_are_named_at_the_end(tmp_path, capsys, digest, said):
    statuses = []
    for name, weights in (("base@step_100", "w1"), ("base@step_200", digest)):
        folder = tmp_path / name
        folder.mkdir()
        job = {"stage": {"label": name, "size": "7b"}, "reference": None}
        record = {"job": job, "model_digests": {name: weights}}
        (folder / "provenance.json").write_text(json.dumps(record))
        statuses.append(Status(name, "ok", folder=str(folder), about={"stage": name}))
    show_sweep(statuses, tmp_path)
    note = "base@step_100 (7b) and base@step_200 (7b) have the same weights"
    assert (note in " ".join(capsys.readouterr().out.split())) is said
