"""The order of a sweep's rows and the command that goes on with it."""

import json

import pytest

from olmo_stages import command
from olmo_stages.report.show import show_sweep
from olmo_stages.statuses import Status


def test_revisions_come_by_step_and_main_last(tmp_path, capsys):
    names = ["base", "base@stage1-step1000", "base@stage1-step200"]
    show_sweep([Status(name, "ok", about={"stage": name}) for name in names], tmp_path)
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " ok" in line]
    assert rows == [names[2], names[1], names[0]]


@pytest.mark.parametrize(("state", "shown"), [("failed", 1), ("ok", 0)])
def test_the_command_is_shown_once_where_something_is_missing(tmp_path, capsys, state, shown):
    command.record(tmp_path, "run.py", ["-m", "model=a,b", "outputs=here there"])
    show_sweep([Status("a", state), Status("b", state)], tmp_path)
    line = "redo only what is missing: python run.py -m model=a,b 'outputs=here there'"
    assert capsys.readouterr().out.count(line) == shown


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
