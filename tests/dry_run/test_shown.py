"""A dry run as tables and as JSON."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from olmo_stages.dry_run import hours, shown
from olmo_stages.dry_run.rehearsal import Asked, Place, Submission, rehearse
from olmo_stages.models.compute import Compute
from olmo_stages.stages import lookup
from tests.dry_run.conftest import Asking, Silent, Texts

GPU = Place("cuda", 2, 8, 60)
ARRAY = Submission("7b", ["a", "b"], "time=01:00:00, gpus=2", "#!/bin/bash\n#SBATCH --time=60\n")


def told(found, *submissions, scripts=False, width=110):
    console = Console(file=io.StringIO(), width=width)
    shown.show(found, "here", submissions, scripts=scripts, console=console)
    return console.file.getvalue()


@pytest.fixture
def found(job):
    """Two jobs that share a reference, one of which failed before, and one that cannot run."""
    jobs = [
        Asked("a", ["model=second"], job("second"), before="failed before"),
        Asked("b", ["model=third"], job("third")),
        Asked("c", ["model=fourth"], error="there is no fourth", about={"stage": "fourth"}),
    ]
    return rehearse(jobs, lambda _: Place("cpu", 0, 4))


def test_a_row_a_job_with_what_it_computes_and_shares(found):
    lines = told(found).splitlines()
    rows = [line.split() for line in lines if line.startswith((" 1 ", " 2 ", " 3 "))]
    assert rows[0][:9] == ["1", "second", "first", "missing", "(failed", "before)", "2", "-", "0"]
    assert rows[1][:7] == ["2", "third", "first", "missing", "1", "1", "0"]
    assert rows[2] == ["3", "fourth", "-", "error", "-", "-", "-", "-"]
    assert lines[0].strip() == "dry run: size custom, analysis asking, data texts"
    assert "job 3: there is no fourth" in lines
    assert "3 jobs: 0 done, 2 to run here, 1 that cannot run" in lines
    assert "to compute: 3 forward passes (second, first, third)" in lines
    assert all((f"  {it}" in lines) == (it != hours.OF_RESPONSES) for it in hours.ASSUMPTIONS)


def test_what_is_done_computes_nothing(job):
    job().run({})
    text = told(rehearse([Asked("a", (), job())], lambda _: Place()))
    assert "1 job: 0 done, 1 to run" not in text
    assert "1 job: 1 done, 0 to run here" in text
    assert "to compute: nothing" in text
    assert "estimate" not in text
    assert not any(it in text for it in hours.ASSUMPTIONS)


def test_what_tells_jobs_apart_is_shown(job):
    jobs = [Asked(f"{it}", ["model=second", f"seed={it}"], job(seed=it)) for it in (0, 1)]
    lines = told(rehearse(jobs, lambda _: Place())).splitlines()
    rows = [line.split() for line in lines if line.startswith((" 1 ", " 2 "))]
    assert [row[3] for row in rows] == ["seed=0", "seed=1"]


def test_hours_are_of_all_gpus_of_a_job(job):
    big = job(lookup("base", "7b"), Asking(("stage",)), compute=Compute("auto", "auto", 8192, None))
    one, two = (
        rehearse([Asked("a", (), big)], lambda _, n=n: replace(GPU, gpus=n)) for n in (1, 2)
    )
    assert two.hours("cuda")[0] == 2 * one.hours("cuda")[0] > 0
    assert one.hours("cpu") == (0.0, 0.0)
    text = told(two)
    assert "GPU hours" in text
    assert "a model of size=7b fits 1 x 24 GB or 2 x 16 GB" in text
    assert "to download: 14.6 GB (base 7b)" in text
    assert "CPU hours" not in text


def test_cpu_hours_are_of_all_cpus_of_a_job(found):
    assert found.hours("cuda") == (0.0, 0.0)
    single = sum(row.steps_s for row in found.rows) / 3600
    assert found.hours("cpu")[0] == pytest.approx(4 * single)
    assert "CPU hours" in told(found)


def test_a_job_that_takes_longer_than_its_limit_is_told_of(job):
    long = job(lookup("base", "32b"), data=Texts(respond="own"))
    text = told(rehearse([Asked("a", (), long)], lambda _: replace(GPU, minutes=0)))
    assert "longer than its limit" in text
    assert f"  {hours.OF_RESPONSES}" in text.splitlines()
    assert "longer than its limit" not in told(rehearse([Asked("a", (), long)], lambda _: GPU))


def test_the_number_of_passes_is_about_right_where_something_is_not_known(job):
    exact = rehearse([Asked("a", (), job())], lambda _: Place())
    silent = rehearse([Asked("a", (), job(analysis=Silent()))], lambda _: Place())
    away = rehearse([Asked("a", (), job(lookup("base", "tiny")))], lambda _: Place())
    assert (exact.is_exact, silent.is_exact, away.is_exact) == (True, False, False)
    assert "to compute: 2 forward passes" in told(exact)
    assert "to compute: about 1 forward pass" in told(silent)
    assert "to train first, of the miniature family: base" in told(away)


def test_scripts_are_shown_on_request(found):
    text = told(found, ARRAY)
    assert "size=7b: 2 jobs, each time=01:00:00, gpus=2" in text
    assert "#SBATCH" not in text
    assert "#!/bin/bash\n#SBATCH --time=60\n" in told(found, ARRAY, scripts=True)


def test_json_holds_the_same(found):
    content = json.loads(shown.to_json(found, "here", [ARRAY]))
    assert [it["state"] for it in content["jobs"]] == ["missing", "missing", "error"]
    assert content["jobs"][1]["shared"] == [1]
    assert content["jobs"][2]["error"] == "there is no fourth"
    assert [it["stage"] for it in content["steps"]] == ["second", "first", "third"]
    assert content["steps"][0]["captures"] == [["resid_post", "last"]]
    assert content["n"] == {
        "done": 0,
        "missing": 2,
        "unknown": 0,
        "error": 1,
        "forward_passes": 3,
        "responses": 0,
    }
    assert content["submitted"][0]["script"].startswith("#!")
    assert content["is_exact"]
    assert content["gpu_hours"] == 0
