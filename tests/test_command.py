"""The command line as text."""

import shlex

import pytest

from olmo_stages.command import again, completed, launches, record, recorded, spelt
from olmo_stages.errors import ConfigError
from olmo_stages.expected import Expected, write_expected


def name_of(arguments):
    (name,) = (it for it in completed(arguments) if it.startswith("sweep="))
    return name


def test_the_sweep_is_named_after_what_it_runs():
    same = [["model=a,b", "analysis=probe"], ["analysis=probe", "model=a,b", "force=true"]]
    assert len({name_of(arguments) for arguments in same}) == 1
    assert name_of(same[0]).startswith("sweep=probe-a+b-")
    assert name_of(["model=a"]) != name_of(["model=b"])
    assert completed(["model=a", "sweep=mine"]) == ["model=a", "sweep=mine"]


@pytest.mark.parametrize("flags", [["-m"], ["--cfg", "job"], ["--config-dir=/x", "--help"]])
def test_overrides_stay_together_wherever_the_flags_are(flags):
    for arguments in (["model=a", *flags, "seed=1"], [*flags, "model=a", "seed=1"]):
        whole = completed(arguments)
        start = whole.index("model=a")
        assert whole[start + 1] == "seed=1"
        assert whole[start + 2].startswith("sweep=a-")
        assert [it for it in whole if it in flags] == flags


@pytest.mark.parametrize("arguments", [["--hydra-help"], ["-sc", "query=bash"]])
def test_what_runs_nothing_names_no_sweep(arguments):
    assert completed(arguments) == arguments


@pytest.mark.parametrize(
    "wrong", ["sweep=..", "sweep=NULL", "sweep=''", "+sweep=a b", "outputs=null"]
)
def test_an_unusable_folder_is_refused(wrong):
    with pytest.raises(ConfigError, match="name"):
        completed(["model=a", wrong])


def test_the_command_is_noted_quoted_and_without_force_or_secrets(tmp_path):
    record(tmp_path, "run.py", ["-m", "model=a,b", "data.path=my file", "force=true", "hf_token=x"])
    assert recorded(tmp_path) == "python run.py -m model=a,b 'data.path=my file' 'hf_token=***'"
    record(tmp_path, "olmo-stages run", ["model=a"])
    assert recorded(tmp_path) == "olmo-stages run model=a"


def test_a_folder_without_a_command_has_none(tmp_path):
    assert recorded(tmp_path) is None


def launch(folder, *jobs, noted=True):
    words = ["-m", f"model={','.join(jobs)}"]
    record(folder, "run.py", words)
    asked = [Expected(it, [f"model={it}"]) for it in jobs]
    write_expected(folder, asked, spelt("run.py", words) if noted else ())


def test_each_job_is_asked_for_again_by_the_launch_that_asked_for_it(tmp_path):
    launch(tmp_path, "a", "b")
    launch(tmp_path, "b", "c")
    first, second = "python run.py -m model=a,b", "python run.py -m model=b,c"
    assert launches(tmp_path) == (first, second)
    alone = f"python run.py -m model=a sweep={tmp_path.name}"  # b is the second one's now
    assert again(tmp_path, ["a"]) == (alone,)
    assert again(tmp_path, ["c", "b"]) == (second,)
    assert again(tmp_path, ["a", "c", "b"]) == (alone, second)
    assert again(tmp_path, []) == ()


def test_a_command_that_redoes_some_jobs_asks_for_as_few_others_as_a_product_allows(tmp_path):
    words = ["-m", "model=a,b,c", "data=x,y", "+note='p q'", "tracking=none", "--config-dir", "d"]
    jobs = [[f"model={m}", f"data={d}", "+note='p q'"] for m in "abc" for d in "xy"]
    asked = [Expected(",".join(it), it) for it in jobs]
    write_expected(tmp_path, asked, spelt("run.py", words))
    names = [it.job for it in asked]
    kept = "python run.py -m tracking=none --config-dir d"
    named = f"""'+note='"'"'p q'"'"'' sweep={tmp_path.name}"""
    assert again(tmp_path, names[3:4]) == (f"{kept} model=b data=y {named}",)
    assert again(tmp_path, names[1:4]) == (f"{kept} model=a,b data=y,x {named}",)
    assert again(tmp_path, names) == (shlex.join(["python", "run.py", *words]),)


def test_a_narrowed_command_keeps_the_name_that_its_sweep_was_given(tmp_path):
    asked = [Expected(it, [f"model={it}"]) for it in "ab"]
    write_expected(tmp_path, asked, spelt("run.py", ["-m", "model=a,b", "sweep=mine"]))
    assert again(tmp_path, ["b"]) == ("python run.py -m sweep=mine model=b",)


def test_of_a_sweep_whose_lists_hold_no_command_it_is_the_one_noted_last(tmp_path):
    launch(tmp_path, "a", noted=False)
    launch(tmp_path, "b", noted=False)
    assert launches(tmp_path) == again(tmp_path, ["a", "b"]) == ("python run.py -m model=b",)
    # Where only a later launch is known, it is not said of a job that it did not ask for.
    launch(tmp_path, "c")
    assert again(tmp_path, ["a"]) == ()
    assert again(tmp_path, ["c"]) == again(tmp_path, ["alone"]) == ("python run.py -m model=c",)
