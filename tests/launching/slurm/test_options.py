import pytest
import yaml

from olmo_stages.errors import ConfigError
from olmo_stages.launching.slurm.options import duration, minutes, read_options
from olmo_stages.stages import conf_folder

DEFAULTS = yaml.safe_load((conf_folder() / "hydra" / "launcher" / "slurm.yaml").read_text())
DEFAULTS.pop("_target_")


def asked(size="7b", **given):
    return read_options({**DEFAULTS, **given}).resources(size)


def test_a_7b_gets_one_gpu_by_default():
    assert asked().flags == {"gpus-per-node": "1", "cpus-per-task": "8", "mem": "64G"}
    assert asked().minutes == 8 * 60
    assert asked().device == "cuda"


def test_the_miniature_family_gets_no_gpu():
    assert "gpus-per-node" not in asked("tiny").flags
    assert asked("tiny").device == "cpu"


def test_each_size_that_a_stage_can_have_has_defaults():
    for size in ("tiny", "1b", "7b", "13b", "32b"):
        asked(size)


def test_what_is_set_holds_for_all_sizes():
    for size in ("tiny", "7b", "32b"):
        resources = asked(size, gpus=2, cpus=3, memory="5G", time="30m")
        assert resources.flags == {"gpus-per-node": "2", "cpus-per-task": "3", "mem": "5G"}
        assert resources.minutes == 30


def test_what_is_set_for_a_size_holds_for_that_one():
    sizes = {**DEFAULTS["sizes"], "32b": {**DEFAULTS["sizes"]["32b"], "gpus": 2}}
    assert asked("32b", sizes=sizes).flags["gpus-per-node"] == "2"
    assert asked("7b", sizes=sizes).flags["gpus-per-node"] == "1"


def test_partition_and_account():
    flags = asked(partition="gpu", account="me", qos="low", constraint="a100|h100").flags
    assert flags["partition"] == "gpu"
    assert (flags["account"], flags["qos"], flags["constraint"]) == ("me", "low", "a100|h100")


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"gpus": "a100:1"}, {"gpus-per-node": "a100:1"}),
        ({"gres": "gpu:a100:1"}, {"gres": "gpu:a100:1"}),
        ({"options": {"gpus": 1}}, {"gpus": "1"}),
        ({"options": {"gpus-per-task": 1}}, {"gpus-per-task": "1"}),
        ({"gpus": 0}, {}),
        ({"gpus": "none"}, {}),
    ],
)
def test_gpus_as_a_cluster_wants_them(given, flag):
    flags = asked(**given).flags
    assert {key: it for key, it in flags.items() if key.startswith("g")} == flag
    assert asked(**given).device == ("cuda" if flag else "cpu")


def test_memory_for_each_cpu_takes_the_place_of_memory():
    flags = asked(options={"mem_per_cpu": "4G"}).flags
    assert flags["mem-per-cpu"] == "4G"
    assert "mem" not in flags


@pytest.mark.parametrize(
    ("value", "flag"), [(64, "64G"), ("64GB", "64G"), ("512M", "512M"), (0, "0"), ("none", None)]
)
def test_memory(value, flag):
    assert asked(memory=value).flags.get("mem") == flag


def test_options_without_a_value_and_those_taken_back():
    options = {"exclusive": True, "no_kill": False, "comment": None, "mail-user": "me@there"}
    flags = asked(options=options).flags
    assert flags["exclusive"] is True
    assert flags["mail-user"] == "me@there"
    assert not {"no-kill", "comment"} & flags.keys()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (90, 90),
        ("90", 90),
        ("90m", 90),
        ("8h", 480),
        ("2d", 2880),
        ("8:00:00", 480),
        ("00:00:30", 1),
        ("90:30", 91),
        ("1-0", 1440),
        ("1-12:30", 2190),
        ("2-00:00:00", 2880),
    ],
)
def test_time(text, found):
    assert minutes(text) == found


@pytest.mark.parametrize("text", ["0", "soon", "-5", "1:2:3:4", "h", "", "none", None])
def test_what_is_no_time(text):
    with pytest.raises(ConfigError, match="is no time; write 90m"):
        minutes(text)


@pytest.mark.parametrize(("limit", "shown"), [(90, "01:30:00"), (2880, "2-00:00:00")])
def test_a_time_as_slurm_shows_it(limit, shown):
    assert duration(limit) == shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeout_min": 5}, "timeout_min: no such option; write hydra.launcher.time"),
        ({"mem_gb": 5}, "write hydra.launcher.memory"),
        ({"partitoin": "x"}, r"did you mean partition\?"),
        ({"sizes": {"7b": {"gpu": 1}}}, r"sizes.7b.gpu: no such option.*did you mean gpus\?"),
        ({"gpus": "many"}, "gpus=many is neither"),
        ({"gpus": -1}, "gpus=-1 is neither"),
        ({"cpus": 0}, "cpus=0 is not a whole number of at least 1"),
        ({"cpus": 1.5}, "cpus=1.5 is not a whole number"),
        ({"memory": "lots"}, "memory=lots is no memory"),
        ({"time": "soon"}, "time=soon is no time"),
        ({"array_parallelism": 0}, "array_parallelism=0"),
        ({"poll_s": 0}, "poll_s=0 is not a number of seconds"),
        ({"options": {"array": "0-3"}}, "options.array: is set here already"),
        ({"options": {"nodes": 2}}, "options.nodes: a job is one process on one node"),
        ({"options": {"partition": "x"}}, "write hydra.launcher.partition"),
        ({"partition": "a\nb"}, "cannot be given to sbatch"),
        ({"sizes": {"7b": {"gpus": 1}}}, "has no cpus for size=7b"),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(given, said):
    with pytest.raises(ConfigError, match=said) as error:
        read_options({**DEFAULTS, **given})
    assert "\n" not in str(error.value)


def test_a_size_without_defaults_says_what_to_give():
    with pytest.raises(ConfigError, match=r"no gpus for size=70b.*hydra.launcher.gpus=\.\.\."):
        asked("70b")
    assert asked("70b", gpus=8, cpus=1, memory=1, time=1).flags["gpus-per-node"] == "8"


def test_a_job_is_told_that_its_time_is_up_early_enough_and_not_at_once():
    options = read_options(DEFAULTS)
    assert options.signal_s(480) == 120
    assert options.signal_s(1) == 15


def test_what_is_asked_for_is_spelt_as_on_the_command_line():
    spelt = asked(partition="gpu", options={"exclusive": True}).spelt
    assert spelt == (
        "hydra.launcher.time=08:00:00 hydra.launcher.partition=gpu hydra.launcher.gpus=1 "
        "hydra.launcher.cpus=8 hydra.launcher.memory=64G hydra.launcher.options.exclusive=true"
    )
