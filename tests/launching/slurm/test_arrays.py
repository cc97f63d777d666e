import os
import pickle
import subprocess
import sys

import pytest

from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.launching.slurm import arrays
from olmo_stages.launching.slurm.arrays import Array, Refused, grouped, script, submit
from olmo_stages.launching.slurm.options import read_options
from olmo_stages.launching.slurm.task import SlurmTask

pytest.importorskip("submitit")

SIZES = {
    "tiny": {"gpus": 0, "cpus": 1, "memory": "2G", "time": "1h"},
    "7b": {"gpus": 1, "cpus": 8, "memory": "64G", "time": "8h"},
}
COMMENT = "olmo-stages:ab"


def options(**given):
    return read_options({"sizes": SIZES, **given})


def array(given=None, jobs=("a", "b"), size="7b"):
    return Array(jobs, size, (given or options()).resources(size))


def written(given=None, jobs=("a", "b"), size="7b", sweep=None):
    given = given or options()
    return script(array(given, jobs, size), given, sweep)


def test_one_array_for_each_size():
    given = options()
    found = grouped({"a": "7b", "b": "tiny", "c": "7b"}, given)
    assert [(it.jobs, it.size) for it in found] == [(["a", "c"], "7b"), (["b"], "tiny")]
    assert found[1].resources == given.resources("tiny")


def test_more_jobs_than_an_array_may_have_become_several(monkeypatch):
    monkeypatch.setattr(arrays, "LONGEST", 2)
    found = grouped(dict.fromkeys("abcde", "7b"), options())
    assert ["".join(it.jobs) for it in found] == ["ab", "cd", "e"]


def test_a_script_can_be_shown_without_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = written(sweep=tmp_path / "mine").splitlines()
    for line in (
        "#SBATCH --array=0-1%2",
        "#SBATCH --job-name=mine",
        "#SBATCH --time=480",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=64G",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=USR2@120",
        f"#SBATCH --output={tmp_path}/mine/slurm/%A_%a/%A_%a_0_log.out",
    ):
        assert line in lines
    assert not [it for it in lines if "--error" in it or "wckey" in it or "--partition" in it]
    assert list(tmp_path.iterdir()) == []


def test_a_single_job_is_no_array(tmp_path):
    assert "--array" not in written(jobs=("a",), sweep=tmp_path)


def test_no_more_than_wanted_run_at_a_time(tmp_path):
    text = written(options(array_parallelism=3), jobs=tuple("abcdef"), sweep=tmp_path)
    assert "#SBATCH --array=0-5%3" in text


def test_options_of_ones_own(tmp_path):
    given = {"reservation": "my own", "exclusive": True, "no-requeue": True, "comment": "mine"}
    lines = written(options(options=given), sweep=tmp_path).splitlines()
    assert "#SBATCH --reservation='my own'" in lines
    assert "#SBATCH --exclusive" in lines
    assert "#SBATCH --no-requeue" in lines
    assert "#SBATCH --requeue" not in lines
    assert "#SBATCH --comment=mine" in lines


def test_lines_of_setup_come_after_ours_and_before_the_job(tmp_path):
    lines = written(options(setup=["module load cuda"]), sweep=tmp_path).splitlines()
    exported = lines.index("export SLURM_EXPORT_ENV=ALL")
    (run,) = [i for i, it in enumerate(lines) if it.startswith("srun ")]
    assert exported < lines.index("module load cuda") < run


def test_a_job_finds_modules_where_the_launching_process_does(tmp_path, monkeypatch):
    own = tmp_path / "my modules"
    own.mkdir()
    monkeypatch.setattr(sys, "path", [str(own), *sys.path])
    lines = written(sweep=tmp_path).splitlines()
    exports = "\n".join(it for it in lines if it.startswith("export PYTHON"))
    shown = "import os, sys; print(sys.path[0], os.environ['PYTHONPATH'], sep='|')"
    done = subprocess.run(
        ["/bin/bash", "-c", f'{exports}\n"{sys.executable}" -c "{shown}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, path = done.stdout.strip().partition("|")
    assert first == str(own)
    assert not [it for it in path.split(":") if it.endswith(("site-packages", "lib-dynload"))]


@pytest.fixture
def tasks():
    return [SlurmTask("{}"), SlurmTask("{}")]


def test_what_is_submitted_is_small_and_can_be_read(slurm, tasks, tmp_path):
    slurm.answer("sbatch", "Submitted batch job 12")
    assert submit(array(), tasks, options(), tmp_path, COMMENT) == "12"
    pickles = sorted(tmp_path.rglob("*_submitted.pkl"))
    assert [it.parent.name for it in pickles] == ["12_0", "12_1"]
    assert pickles[0].stat().st_size < 2000
    assert pickle.loads(pickles[0].read_bytes()).function.text == "{}"
    assert f"#SBATCH --comment={COMMENT}" in slurm.script


def test_what_the_user_has_set_for_sbatch_does_not_overrule(slurm, tasks, tmp_path, monkeypatch):
    slurm.answer("sbatch", "Submitted batch job 12")
    for name in ("SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_NODE", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "theirs")
    given = options(partition="gpu")
    submit(array(given), tasks, given, tmp_path, COMMENT)
    names = slurm.environment
    assert not {"SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_NODE"} & names.keys()
    assert names["SBATCH_ACCOUNT"] == "theirs"


def test_a_launch_inside_of_a_job_passes_nothing_of_it_on(slurm, tasks, tmp_path, monkeypatch):
    slurm.answer("sbatch", "Submitted batch job 12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/there")
    submit(array(), tasks, options(), tmp_path, COMMENT)
    assert "SLURM_ARRAY_TASK_ID" not in slurm.environment
    assert slurm.environment["SLURM_CONF"] == "/there"
    assert os.environ["SLURM_ARRAY_TASK_ID"] == "7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Invalid partition name specified", "give hydra.launcher.partition=main|low"),
        ("Invalid account or account/partition combination specified", "hydra.launcher.account"),
        ("Requested node configuration is not available", "no node has that; give less"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "hydra.launcher.time"),
        ("Invalid generic resource (gres) specification", "hydra.launcher.gres"),
        ("Invalid qos specification", "hydra.launcher.qos"),
        ("Invalid feature specification", "hydra.launcher.constraint"),
        ("Something else", "docs/cluster.md"),
    ],
)
def test_what_slurm_refuses_is_one_line_with_the_remedy(slurm, tasks, tmp_path, capfd, text, said):
    slurm.answer("sinfo", "main\nlow\n")
    slurm.answer("sbatch", err=f"sbatch: error: Batch job submission failed: {text}\n", rc=1)
    with pytest.raises(Refused) as error:
        submit(array(), tasks, options(), tmp_path, COMMENT)
    message = str(error.value)
    assert f": {text}; " in message
    assert said in message
    assert "hydra.launcher.gpus=1" in message
    assert "\n" not in message
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.rglob("*.pkl"))
    assert len(slurm.calls("sbatch")) == 1


def test_slurm_that_is_busy_is_asked_again(slurm, tasks, tmp_path, monkeypatch):
    def pause(_):
        slurm.answer("sbatch", "Submitted batch job 13")

    monkeypatch.setattr(arrays.time, "sleep", pause)
    slurm.answer("sbatch", err="sbatch: error: Socket timed out on send/recv operation", rc=1)
    slurm.answer("squeue", f"12|12|{COMMENT}")
    assert submit(array(), tasks, options(), tmp_path, COMMENT) == "13"
    # It had been taken all the same, and would have waited for what it is to run.
    assert slurm.calls("scancel") == ["12"]


def test_a_launch_that_is_interrupted_while_it_submits_leaves_nothing(slurm, tasks, tmp_path):
    class Interrupted(SlurmTask):
        def __reduce__(self):
            raise KeyboardInterrupt

    slurm.answer("squeue", f"12|12|{COMMENT}")
    with pytest.raises(KeyboardInterrupt):
        submit(array(), [tasks[0], Interrupted("{}")], options(), tmp_path, COMMENT)
    assert slurm.calls("scancel") == ["12"]


@pytest.mark.usefixtures("slurm")
def test_a_folder_that_cannot_be_written(tasks, tmp_path):
    (tmp_path / "slurm").write_text("a file")
    with pytest.raises(StoreError, match="cannot submit from"):
        submit(array(), tasks, options(), tmp_path, COMMENT)


def test_the_extra_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ConfigError, match=r"pip install 'olmo-stages\[slurm\]'"):
        written(sweep=tmp_path)
