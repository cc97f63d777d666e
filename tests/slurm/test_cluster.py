"""What the tests' own Slurm is, and that nothing of it stays."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.bench import REPOSITORY

STARTS = (
    "import time\nfrom tests.slurm.cluster import Cluster\n"
    "cluster = Cluster()\ncluster.start()\n"
    "cluster.ask('sbatch', '--output=/dev/null', '--wrap', 'sleep 300')\n"
    "time.sleep(1)\nprint(cluster.root, flush=True)\ntime.sleep(300)\n"
)


def processes_of(root):
    """Command lines of what runs with a cluster's settings."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"SLURM_CONF={root}/slurm.conf".encode() in words and command:
            found.append(command)
    return found


def test_jobs_share_out_the_fake_gpus_of_two_nodes(cluster, tmp_path):
    job = cluster.ask(
        *("sbatch", "--parsable", "--array=0-3", "--gpus-per-node=1", "--mem=100"),
        f"--output={tmp_path}/%a",
        *("--wrap", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; sleep 2"),
    ).strip()
    cluster.wait_for(job)
    seen = {(tmp_path / str(i)).read_text().strip() for i in range(4)}
    assert seen == {"n1 0", "n1 1", "n2 0", "n2 1"}


def test_accounting_tells_how_jobs_ended(cluster):
    submit = ("sbatch", "--parsable", "--output=/dev/null", "--wrap")
    good, bad = (cluster.ask(*submit, it).strip() for it in ("true", "exit 3"))
    cluster.wait_for(good, bad)
    assert cluster.accounted(good)[good] == "COMPLETED"
    assert cluster.accounted(bad)[bad] == "FAILED"


@pytest.mark.usefixtures("cluster")  # skipped with its reason where there can be none
def test_nothing_is_left_when_whoever_started_it_is_killed():
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    root = Path(starter.stdout.readline().strip())
    assert (root / "slurm.conf").exists()
    running = " ".join(processes_of(root))
    assert "slurmctld" in running
    assert "sleep 300" in running
    starter.kill()
    starter.communicate()
    end = time.monotonic() + 30
    while (root.exists() or processes_of(root)) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes_of(root) == []
    assert not root.exists()


def test_what_is_no_slurm_is_a_reason_in_one_line(monkeypatch):
    from tests.slurm import settings

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(settings, "SYSTEM", "")
    reason = settings.unavailable()
    assert reason.startswith("no Slurm here (munged, ")
    assert reason.endswith("bash tests/slurm/install.sh, as root")
