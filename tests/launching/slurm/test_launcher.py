"""The whole launch, from a command line to an exit code, on commands of Slurm that only answer."""

import json
import os
import pickle
import signal
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from olmo_stages import launch
from olmo_stages.launching.slurm import finished, submitted, watching
from olmo_stages.statuses import Status, read_statuses, said, write_status

pytest.importorskip("submitit")

WORDS = ["-m", "hydra/launcher=slurm", "analysis=norms", "tracking=none", "report=false"]
JOBS = [f"analysis=norms,model={it}" for it in ("base", "think_sft")]
NORMS = """
import os
from dataclasses import dataclass
from typing import ClassVar
from olmo_stages.types import Measurement, Result

@dataclass(frozen=True)
class Norms:
    order: int
    name: ClassVar[str] = "norms"
    version: ClassVar[int] = 1

    def __call__(self, stage, reference, activations, seed):
        return Result((Measurement("norm", 1.0, stage.label),))
"""


class Cluster:
    """What happens on the cluster, a step each time the launcher sleeps."""

    def __init__(self, slurm, sweep):
        self.slurm = slurm
        self.sweep = sweep
        self.steps = []
        self.statuses = []
        self.now = 0.0
        slurm.answer("sbatch", "Submitted batch job 12")
        slurm.queue(*(f"12_{i}|PENDING||swept|Priority|" for i, _ in enumerate(JOBS)))

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.now % 10:  # Slurm is asked every ten seconds at most
            return
        self.statuses.append({it: said(self.sweep, it) for it in JOBS})
        assert self.steps, "it waits for what never comes"
        self.steps.pop(0)()

    def runs(self, *jobs, number=12):
        """Jobs run."""
        self.slurm.queue(*(f"{number}_{i}|RUNNING|n1|swept|None|" for i, _ in enumerate(jobs)))
        for i, job in enumerate(jobs):
            write_status(self.sweep, Status(job, "running", slurm=f"{number}_{i}"))

    def ends(self, *states):
        """Jobs have ended; what then remains passes by itself."""
        self.steps += [lambda: None] * 2
        for job, state in zip(JOBS, states, strict=False):
            write_status(self.sweep, Status(job, state, error="" if state == "ok" else "its words"))
        self.slurm.queue()


@pytest.fixture
def cluster(slurm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    monkeypatch.setenv("OLMO_STAGES_CACHE", str(tmp_path / "cache"))
    own = tmp_path / "mine" / "analysis"
    own.mkdir(parents=True)
    (own / "norms.yaml").write_text("_target_: my_norms.Norms\norder: 2\n")
    (tmp_path / "my_norms.py").write_text(NORMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    cluster = Cluster(slurm, tmp_path / "outputs" / "sweeps" / "swept")
    monkeypatch.setattr(watching, "time", cluster)
    return cluster


@pytest.fixture
def run(cluster, capfd):
    """Gives a command; exit code, standard output, standard error."""

    def go(*words, models="base,think_sft"):
        assert cluster.sweep.name == "swept"
        given = [*WORDS, "--config-dir", "mine", "sweep=swept", f"model={models}", *words]
        try:
            launch.main(given)
            code = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            GlobalHydra.instance().clear()
        return code, *capfd.readouterr()

    return go


def test_a_sweep_is_submitted_watched_and_ends_with_its_table(cluster, run, slurm):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: cluster.ends("ok", "ok")]
    code, out, err = run()
    assert code == 0
    assert "submitted 2 jobs of size=tiny as Slurm job 12 (time=01:00:00" in err
    assert "think_sft" in out[out.index("stage ") :]
    assert "#SBATCH --array=0-1%2" in slurm.script
    queued = cluster.statuses[0]
    assert [(it.state, it.slurm) for it in queued.values()] == [
        ("queued", "12_0"),
        ("queued", "12_1"),
    ]
    links = {str(it.readlink()) for it in (cluster.sweep / "logs").iterdir()}
    assert links == {f"../slurm/12_{i}/12_{i}_0_log.out" for i in (0, 1)}


def test_what_failed_is_the_exit_code(cluster, run):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: cluster.ends("ok", "failed")]
    code, out, _ = run()
    assert code == 1
    assert "its words" in out


def test_a_job_that_was_killed_is_one_line_and_the_others_are_done(cluster, run, slurm):
    slurm.answer("sacct", "JobID|State|ExitCode|NodeList\n12_1|CANCELLED by 0|0:0|n1\n")

    def cancelled():
        cluster.ends("ok")

    cluster.steps = [lambda: cluster.runs(*JOBS), cancelled]
    code, out, err = run()
    assert code == 1
    assert "[2/2] model=think_sft: killed: cancelled in Slurm by root" in err
    assert "cancelled in Slurm by root" in " ".join(out.split())
    assert [it.state for it in read_statuses(cluster.sweep)] == ["ok", "killed"]


def test_an_earlier_failure_is_not_taken_for_the_end(cluster, run):
    write_status(cluster.sweep, Status(JOBS[0], "failed", error="earlier"))
    write_status(cluster.sweep, Status(JOBS[1], "ok"))
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: cluster.ends("ok", "ok")]
    assert run()[0] == 0
    assert {it.state for it in cluster.statuses[0].values()} == {"queued"}


def test_what_is_still_in_slurm_is_not_submitted_again(cluster, run, slurm):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: os.kill(os.getpid(), signal.SIGINT)]
    code, out, err = run()
    assert code == 130
    assert "squeue -j 12" in err
    assert "scancel 12" in err
    assert "the same command goes on from here" in err
    assert out.count("running") == 2
    assert not slurm.calls("scancel")

    cluster.steps = [lambda: cluster.ends("ok", "ok")]
    code, _, err = run()
    assert code == 0
    assert "in Slurm from an earlier launch, not submitted again: 2 (12_0 12_1)" in err
    assert len(slurm.calls("sbatch")) == 1


def test_what_has_left_slurm_without_a_result_is_submitted_again(cluster, run, slurm):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: os.kill(os.getpid(), signal.SIGTERM)]
    assert run()[0] == 143
    slurm.queue("12_1|RUNNING|n1|swept|None|")
    slurm.answer("sbatch", "Submitted batch job 13")
    cluster.steps = [lambda: cluster.ends("ok", "ok")]
    code, _, err = run()
    assert code == 0
    assert "not submitted again: 1 (12_1)" in err
    assert "submitted 1 job of size=tiny as Slurm job 13" in err
    assert "--array" not in slurm.script


def test_a_job_of_another_configuration_is_not_taken_for_this_one(cluster, run, slurm, tmp_path):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: os.kill(os.getpid(), signal.SIGINT)]
    run()
    (tmp_path / "mine" / "analysis" / "norms.yaml").write_text(
        "_target_: my_norms.Norms\norder: 1\n"
    )
    code, _, err = run()
    assert code == 2
    assert (
        "Slurm still has job analysis=norms,model=base (12_0), submitted when its analysis" in err
    )
    assert "scancel 12_0" in err
    assert len(slurm.calls("sbatch")) == 1


def test_a_launch_that_was_killed_before_it_noted_what_it_submitted(cluster, run, slurm):
    lost = submitted.note(cluster.sweep, submitted.new(JOBS, {}, "", "swept"))
    slurm.queue(f"11_0|PENDING||swept|None|{lost.comment}")
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: cluster.ends("ok", "ok")]
    assert run()[0] == 0
    assert slurm.calls("scancel") == ["11"]
    assert submitted.read(cluster.sweep).unsure() == []


def test_what_is_refused_leaves_no_trace(cluster, run, slurm):
    write_status(cluster.sweep, Status(JOBS[0], "failed", error="earlier"))
    slurm.answer("sbatch", err="sbatch: error: Invalid partition name specified", rc=1)
    slurm.answer("sinfo", "main")
    code, out, err = run("hydra.launcher.partition=mian")
    assert code == 2
    assert out == ""
    (line,) = err.splitlines()
    assert "hydra.launcher.partition=mian" in line
    assert "give hydra.launcher.partition=main" in line
    assert submitted.read(cluster.sweep).all == []
    assert said(cluster.sweep, JOBS[0]).error == "earlier"
    assert said(cluster.sweep, JOBS[1]) is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hydra.launcher.gpu=1", "hydra.launcher.gpu: no such option"),
        ("+hydra.launcher.timeout_min=1", "write hydra.launcher.time"),
        ("hydra.launcher.time=soon", "hydra.launcher.time=soon is no time"),
    ],
)
def test_a_mistake_is_found_before_anything_is_submitted(run, slurm, word, message):
    code, _, err = run(word)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not slurm.calls("sbatch")


def test_without_slurm_there_is_one_line(run, slurm):
    slurm.remove("sbatch")
    code, _, err = run()
    assert code == 2
    assert "there is no sbatch here" in err
    assert len(err.splitlines()) == 1


def test_without_the_extra_there_is_one_line(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    code, _, err = run()
    assert code == 2
    assert "pip install 'olmo-stages[slurm]'" in err
    assert len(err.splitlines()) == 1


def test_a_job_that_is_asked_for_twice_is_submitted_once(cluster, run, slurm):
    cluster.steps = [lambda: cluster.runs(JOBS[0]), lambda: cluster.ends("ok")]
    code, _, err = run(models="base,base")
    assert code == 0
    assert "1 of 2 jobs were asked for before" in err
    assert "--array" not in slurm.script


def test_jobs_that_differ_only_in_how_they_run_are_refused(run, slurm):
    code, _, err = run("compute.threads=1,2")
    assert code == 2
    assert "compute.threads=1 compute.threads=2" in err
    assert not slurm.calls("sbatch")


def test_what_is_done_is_not_submitted_but_read_here(cluster, run, slurm, monkeypatch):
    monkeypatch.setattr(finished, "done", lambda _, jobs: [it for it in jobs if "base" in it.job])
    read = []

    def note(given, jobs, sweep):
        del given
        for it in jobs:
            read.append((it.job, it.device))
            write_status(sweep, Status(it.job, "cached"))

    monkeypatch.setattr(finished, "read", note)

    def ends():
        write_status(cluster.sweep, Status(JOBS[1], "ok"))
        slurm.queue()

    slurm.queue("12|RUNNING|n1|swept|None|")
    cluster.steps = [ends]
    code, _, err = run()
    assert code == 0
    assert "submitted 1 job" in err
    assert read == [(JOBS[0], "cpu")]


def test_what_is_pickled_for_the_nodes_is_a_text_of_json(cluster, run):
    cluster.steps = [lambda: cluster.runs(*JOBS), lambda: cluster.ends("ok", "ok")]
    run()
    paths = sorted(cluster.sweep.rglob("*_submitted.pkl"))
    assert len(paths) == 2
    assert max(it.stat().st_size for it in paths) < 10_000
    texts = [pickle.loads(it.read_bytes()).function.text for it in paths]
    assert [json.loads(it)["job"] for it in texts] == JOBS
