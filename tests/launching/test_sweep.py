"""A sweep as a user runs it: `python run.py -m`, in processes of its own."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from olmo_stages.stages import conf_folder
from olmo_stages.statuses import read_statuses

HERE = Path(__file__).parent
RUN = conf_folder().parent / "run.py"


@pytest.fixture
def place(tmp_path):
    """A folder in which the analysis is known, and a trap is set."""
    shutil.copy(HERE / "deadly.py", tmp_path)
    (tmp_path / "conf" / "analysis").mkdir(parents=True)
    (tmp_path / "conf" / "analysis" / "deadly.yaml").write_text(
        "_target_: deadly.Deadly\nend: fine\n"
    )
    (tmp_path / "trap").touch()
    return tmp_path


def python(place, *words):
    return subprocess.run(
        [sys.executable, *words],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(place), "OLMO_STAGES_CACHE": str(place / "cache")},
    )


def states(place, sweep="s"):
    return {
        it.overrides[-1].partition("=")[2]: it.state
        for it in read_statuses(place / "outputs/sweeps" / sweep)
    }


def made(place):
    """The results on disk, with what they say of when they were made."""
    found = (place / "outputs" / "deadly").rglob("provenance.json")
    return {it.parent.name: it.read_text() for it in found}


def test_a_killed_job_takes_no_other_with_it_and_is_redone_alone(place, checkpoints):
    words = ["-m", "--config-dir", "conf", "model=custom", f"model.path={checkpoints[0]}"]
    words += ["analysis=deadly", "data.vocabulary=miniature", "tracking=none", "report=false"]
    ends = "killed,exits,last"
    done = python(place, RUN, *words, f"analysis.end={ends}", "sweep=s")
    assert done.returncode == 1
    assert states(place) == {"killed": "killed", "exits": "failed", "last": "ok"}
    lines = done.stdout.splitlines()
    assert "analysis.end=killed: killed: signal 9 (out of memory?)" in lines
    (reason,) = (it for it in lines if it.startswith("analysis.end=exits: SystemExit: 3; log: "))
    assert "SystemExit: 3" in (place / reason.partition("log: ")[2]).read_text()
    (redo,) = (it.partition(": ")[2] for it in lines if it.startswith("redo only what is missing"))
    before = made(place)
    assert len(before) == 1

    (place / "trap").unlink()
    program, *again = shlex.split(redo)
    assert program == "python"
    assert "analysis.end=killed,exits" in again
    done = python(place, *again)
    assert done.returncode == 0, done.stderr
    assert "already done" not in done.stdout
    assert set(states(place).values()) == {"ok"}
    assert made(place).items() > before.items()

    # Another order and another subset, in another sweep: nothing is left to do, and jobs have the
    # same names.
    done = python(place, RUN, *words, "analysis.end=exits,killed", "sweep=t")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("already done") == 2
    assert len(made(place)) == 3
    names = [{it.job for it in read_statuses(place / "outputs/sweeps" / it)} for it in "st"]
    assert names[1] < names[0]
