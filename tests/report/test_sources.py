"""Where numbers come from: models, versions, commands, and what a study asked."""

import pytest

from olmo_stages.expected import Expected, write_expected
from olmo_stages.records import Status, read_statuses
from olmo_stages.report import sources
from olmo_stages.report.across import together
from olmo_stages.report.parts import parts
from olmo_stages.report.pool import Undone, pool
from olmo_stages.stages import custom
from tests.report.jobs import DPO, SFT, finish, launched, track


@pytest.fixture
def sweep(tmp_path):
    return tmp_path / "outputs" / "sweeps" / "s"


def jobs(sweep):
    return pool({sweep: read_statuses(sweep)}).done


def part(sweep):
    found = pool({sweep: read_statuses(sweep)})
    (one,) = parts(together(found.groups, sweep / "across"))
    return one


def test_a_source_names_result_models_code_and_data(sweep):
    commit, digest = "a" * 40, "b" * 64
    folder = finish(sweep, weights={"think_sft": commit, "base": digest})
    track(folder, url="https://wandb.ai/me/p/runs/x")
    (job,) = jobs(sweep)
    found = sources.source(job, "mine-truth")
    assert (found.stage, found.reference, found.analysis) == ("think_sft", "base", "mine")
    assert found.models == {
        "think_sft": f"miniature@main {commit}",
        "base": f"miniature@main {digest[:12]}",
    }
    assert found.digest == job.digest
    assert found.result == job.result
    assert found.code.endswith(f"({'c' * 12})")
    assert found.tracked == "https://wandb.ai/me/p/runs/x"
    assert found.section == "mine-truth"


def test_an_offline_run_is_the_line_that_uploads_it(sweep):
    track(finish(sweep), place="my runs/offline-run-x")
    (job,) = jobs(sweep)
    assert sources.source(job, "").tracked == "wandb sync 'my runs/offline-run-x'"


def test_without_tracking_there_is_no_line(sweep):
    finish(sweep)
    (job,) = jobs(sweep)
    assert sources.source(job, "").tracked == ""


def test_a_home_folder_is_not_told(sweep):
    own = custom(path="/home/me/ckpts/mine", name="mine", parent=None, revision="main", size="7b")
    finish(sweep, own, None)
    (job,) = jobs(sweep)
    assert sources.source(job, "").models["mine"].startswith("~/ckpts/mine@main ")


def test_versions_that_differ_are_all_named_and_warned_of(sweep):
    finish(sweep, SFT, packages={"torch": "2.13.0", "numpy": "2.4.6", "plotly": None})
    finish(sweep, DPO, packages={"torch": "2.14.0", "numpy": "2.4.6"})
    found = sources.versions(jobs(sweep))
    assert found["torch"] == "2.13.0, 2.14.0"
    assert found["numpy"] == "2.4.6"
    assert "plotly" not in found
    assert "did not all run with the same torch 2.13.0, 2.14.0" in sources.mixed(part(sweep))


def test_another_commit_is_warned_of_and_the_same_is_not(sweep):
    finish(sweep, SFT)
    finish(sweep, DPO)
    assert sources.mixed(part(sweep)) == ""
    finish(sweep, DPO, git={"commit": "e" * 40, "dirty": True})
    assert f"({'e' * 12}, with changes)" in sources.mixed(part(sweep))


def test_a_problem_says_what_redoes_it(sweep):
    launched(sweep, "model=a b")
    status = Status("j", "failed", error="no\nmemory")
    found = sources.problem(Undone(sweep, status))
    assert (found.state, found.reason) == ("failed", "no memory")
    assert found.command == "python run.py -m 'model=a b'"
    assert sources.problem(Undone(sweep, status, damaged="x is damaged")).state == "damaged"


def test_each_problem_of_an_extended_sweep_has_its_own_command(sweep):
    for model in ("a", "b"):
        launched(sweep, f"model={model}")
        write_expected(sweep, [Expected(model)], ["run", f"model={model}"])
    found = [sources.problem(Undone(sweep, Status(it, "failed"))).command for it in "ab"]
    assert found == ["run model=a", "run model=b"]
    assert sources.commands([sweep]) == ("run model=a", "run model=b")


def test_of_a_sweep_that_goes_on_it_is_not_said_how_to_redo_what_it_will_do(sweep):
    launched(sweep, "model=a")
    states = ("running", "missing", "failed")
    found = sources.problems([Undone(sweep, Status("j", it)) for it in states])
    assert found[0].reason == "not finished yet"
    assert [bool(it.command) for it in found] == [False, False, True]
    (ended,) = sources.problems([Undone(sweep, Status("j", "missing"))])
    assert ended.command == "python run.py -m model=a"


def test_what_slurm_has_is_not_to_be_redone_and_what_was_stopped_for_good_is(sweep):
    launched(sweep, "model=a")

    def told(**given):
        (found,) = sources.problems([Undone(sweep, Status("j", **given))])
        return found.state, found.reason, bool(found.command)

    assert told(state="queued", slurm="12_3") == (
        "queued",
        "waits in Slurm's queue (job 12_3)",
        False,
    )
    assert told(state="stopped", error="told to", slurm="12") == ("stopped", "told to", False)
    assert told(state="stopped", error="told to") == ("stopped", "told to", True)


def test_a_sweep_without_a_command_has_none(sweep):
    assert sources.problem(Undone(sweep, Status("j", "killed"))).command == ""
    assert sources.commands([sweep]) == ()


def test_question_and_prediction_come_from_the_head_of_the_study(sweep):
    launched(sweep, "+experiment=think_path", "size=7b")
    question, prediction = sources.asked([sweep])
    assert question.startswith("Does each stage of the Think path change what a linear probe")
    assert question.endswith("says?")
    assert prediction.startswith("SFT moves it most")
    assert "Source" not in question + prediction
    assert "2504" not in prediction


def test_a_sweep_of_no_study_asks_nothing(sweep):
    launched(sweep, "model=think_sft")
    assert sources.asked([sweep]) == ("", "")
    launched(sweep, "+experiment=gone")
    assert sources.asked([sweep]) == ("", "")


def test_a_users_own_study_is_found_beside_its_config(sweep, tmp_path):
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package _global_\n# Question: why?\nseed: 1\n# Prediction: x\n"
    )
    launched(sweep, "--config-dir", str(tmp_path / "conf"), "+experiment=mine")
    assert sources.asked([sweep]) == ("Why?", "")


def test_several_studies_are_named(tmp_path):
    sweeps = [tmp_path / name for name in "ab"]
    for sweep, name in zip(sweeps, ("think_path", "similarity"), strict=True):
        launched(sweep, f"+experiment={name}")
    question, _ = sources.asked(sweeps)
    assert "think_path: Does each stage" in question
    assert "similarity: Which post-training" in question


def test_a_header_that_cannot_be_read_says_nothing(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"# Question: \xff")
    assert sources.header(tmp_path / "x.yaml") == {}
    assert sources.header(tmp_path / "gone.yaml") == {}
