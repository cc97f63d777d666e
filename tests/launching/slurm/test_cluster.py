import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.launching.slurm import cluster
from olmo_stages.launching.slurm.cluster import End, Entry


def test_all_commands_must_be_there(slurm):
    cluster.check()
    slurm.remove("sbatch")
    with pytest.raises(ConfigError, match="there is no sbatch here; give the command on a login"):
        cluster.check()


def test_what_slurm_has(slurm):
    slurm.answer(
        "squeue",
        "12_0|RUNNING|n1|sweep|None\n12_1|PENDING||sweep|Resources\n13|PENDING||x|(Dep, a|b)\n",
    )
    assert cluster.entries(["12_0", "12_1", "12_2"]) == {
        "12_0": Entry("RUNNING", "None", "n1", "sweep"),
        "12_1": Entry("PENDING", "Resources", "", "sweep"),
    }
    assert slurm.calls("squeue")[-1].endswith("--jobs=12")


def test_slurm_says_that_it_has_no_such_job(slurm):
    slurm.answer("squeue", err="slurm_load_jobs error: Invalid job id specified", rc=1)
    assert cluster.entries(["12"]) == {}


def test_slurm_does_not_answer(slurm):
    slurm.answer("squeue", err="slurm_load_jobs error: Unable to contact slurm controller", rc=1)
    assert cluster.entries(["12"]) is None


def test_nobody_is_asked_about_no_job(slurm):
    assert cluster.entries([]) == {}
    assert cluster.ends([]) == {}
    assert not slurm.calls("squeue")
    assert not slurm.calls("sacct")


def test_ends_as_accounting_has_them(slurm):
    slurm.answer(
        "sacct",
        "JobID|State|ExitCode|NodeList\n"
        "7_0|COMPLETED|0:0|n1\n"
        "7_1|FAILED|9:0|n1\n"
        "7_1.batch|FAILED|9:0|n1\n"
        "7_1.0|CANCELLED|0:9|n1\n"
        "7_2|CANCELLED by 0|0:15|n2\n"
        "7_[3-4,6%2]|CANCELLED by 0|0:0|None assigned\n"
        "8|TIMEOUT|0:1|n2\n",
    )
    assert cluster.ends(["7_0", "7_1", "7_2", "7_3", "7_4", "7_6", "8"]) == {
        "7_0": End("COMPLETED", node="n1"),
        "7_1": End("FAILED", code=9, signal=9, node="n1"),
        "7_2": End("CANCELLED", "root", signal=15, node="n2"),
        "7_3": End("CANCELLED", "root"),
        "7_4": End("CANCELLED", "root"),
        "7_6": End("CANCELLED", "root"),
        "8": End("TIMEOUT", signal=1, node="n2"),
    }


def test_without_accounting_slurm_remembers(slurm):
    slurm.answer("sacct", err="Slurm accounting storage is disabled", rc=1)
    slurm.answer(
        "scontrol",
        "JobId=14 ArrayJobId=7 ArrayTaskId=1 JobName=x JobState=NODE_FAIL Reason=NodeDown "
        "ExitCode=0:0 NodeList=n2 Comment=a=b\n"
        "JobId=7 ArrayJobId=7 ArrayTaskId=2-3%1 JobState=CANCELLED ExitCode=0:0 NodeList=(null)\n",
    )
    assert cluster.ends(["7_1", "7_2", "7_3"]) == {
        "7_1": End("NODE_FAIL", node="n2"),
        "7_2": End("CANCELLED"),
        "7_3": End("CANCELLED"),
    }


def test_an_array_that_was_cancelled_before_it_started(slurm):
    slurm.answer("sacct", err="Slurm accounting storage is disabled", rc=1)
    slurm.answer(
        "scontrol",
        "JobId=7 ArrayJobId=7 ArrayTaskId=4294967294 JobState=CANCELLED NodeList=(null)\n"
        "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobState=COMPLETED NodeList=n1\n",
    )
    assert cluster.ends(["7_0", "7_1", "7_2"]) == {
        "7_0": End("COMPLETED", node="n1"),
        "7_1": End("CANCELLED"),
        "7_2": End("CANCELLED"),
    }
    slurm.answer("sacct", "JobID|State|NodeList\n7_4294967294|CANCELLED|None assigned\n")
    assert cluster.ends(["7_2"]) == {"7_2": End("CANCELLED")}


def test_an_element_of_which_there_is_no_trace(slurm):
    slurm.answer("sacct", "JobID|State|NodeList\n7_0|COMPLETED|n1\n")
    slurm.answer("scontrol", "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobState=COMPLETED NodeList=n1\n")
    assert cluster.ends(["7_0", "7_1"])["7_1"] == End(cluster.NO_TRACE)
    # Of a single job that says nothing.
    assert cluster.ends(["9"]) == {}


def test_accounting_lags_behind_what_slurm_remembers(slurm):
    slurm.answer("sacct", "JobID|State|ExitCode|NodeList\n7|RUNNING|0:0|n1\n")
    slurm.answer("scontrol", "JobId=7 JobState=OUT_OF_MEMORY ExitCode=0:125 NodeList=n1\n")
    assert cluster.ends(["7"])["7"].state == "OUT_OF_MEMORY"
    slurm.answer("scontrol", err="slurm_load_jobs error: Invalid job id specified", rc=1)
    assert not cluster.ends(["7"])["7"].is_over


def test_nobody_knows_how_a_job_ended(slurm):
    slurm.answer("sacct", "JobID|State|NodeList\n")
    slurm.answer("scontrol", err="Invalid job id specified", rc=1)
    assert cluster.ends(["7"]) == {}


def test_a_shell_spells_a_signal_as_an_exit_code(slurm):
    slurm.answer("sacct", "JobID|State|ExitCode|NodeList\n7|FAILED|137:0|n1\n8|FAILED|1:0|n1\n")
    ends = cluster.ends(["7", "8"])
    assert (ends["7"].signal, ends["8"].signal) == (9, 0)


def test_jobs_by_their_comment(slurm):
    slurm.answer("squeue", "14|12|olmo-stages:ab\n12|12|olmo-stages:ab\n13|13|olmo-stages:cd\n")
    assert cluster.with_comment("olmo-stages:ab") == ("12",)
    assert cluster.with_comment("olmo-stages:ef") == ()


def test_partitions(slurm):
    slurm.answer("sinfo", "main\nlow\nmain\n")
    assert cluster.partitions() == ("main", "low")


def test_nothing_to_cancel_is_not_cancelled(slurm):
    cluster.cancel([])
    assert not slurm.calls("scancel")
    cluster.cancel(["12", "13"])
    assert slurm.calls("scancel") == ["12 13"]
