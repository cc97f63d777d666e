"""The command line as text."""

import pytest

from olmo_stages.command import completed, record, recorded
from olmo_stages.errors import ConfigError


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
