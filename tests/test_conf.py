"""Every config that a user can name composes and builds, without loading a model."""

import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate

from olmo_stages.experiment import Experiment
from olmo_stages.stages import catalogue, conf_folder, release

SIZES = [(name, size) for name, spec in catalogue().items() for size in spec["sources"]]

TARGET = re.compile(r"_target_: (olmo_stages\.[\w.]+)")


def options(group):
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def build(*overrides):
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return instantiate(compose("config", [*overrides]), _convert_="all")


@pytest.mark.parametrize(("stage", "size"), SIZES)
def test_every_stage_builds_in_every_size(stage, size):
    experiment = build(f"model={stage}", f"size={size}")
    assert isinstance(experiment, Experiment)
    assert experiment.model.name == stage
    parent = experiment.reference_stage()
    assert (parent.name if parent else None) == release(stage, size).parent


@pytest.mark.parametrize(
    ("group", "option"),
    [
        (group, option)
        for group in ("data", "analysis", "compute", "tracking")
        for option in options(group)
    ],
)
def test_every_option_builds(group, option):
    assert isinstance(build(f"{group}={option}"), Experiment)


@pytest.mark.parametrize("study", options("experiment"))
def test_every_study_builds_and_says_what_it_asks(study):
    assert isinstance(build(f"+experiment={study}"), Experiment)
    header = (conf_folder() / "experiment" / f"{study}.yaml").read_text()
    for word in ("Question:", "Prediction:", "Source:", "Run:"):
        assert word in header, word


def jobs_of(study, *overrides):
    """The jobs of a study's own sweep, as -m makes them; each value of what it sweeps once."""
    words = [f"+experiment={study}", *overrides]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        settings = compose("config", words, return_hydra_config=True).hydra
        params = [f"{key}={value}" for key, value in settings.sweeper.params.items()]
        swept = OverridesParser.create().parse_overrides([*words, *params])
        (jobs,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        assert len(jobs) == len(set(map(tuple, jobs)))
        seen = set()
        fresh = [job for job in jobs if not seen.issuperset(job) and not seen.update(job)]
        return [instantiate(compose("config", job), _convert_="all") for job in fresh]


@pytest.mark.parametrize("size", ["tiny", "7b"])
@pytest.mark.parametrize("study", options("experiment"))
def test_every_job_of_a_study_builds(study, size):
    jobs = jobs_of(study, f"size={size}")
    labels = [(job.model.label, job.analysis.name) for job in jobs]
    assert len(set(labels)) == len(labels) > 2
    for job in jobs:
        assert job.model.size == size
        # A stage that is its own reference has none; every other is compared.
        assert (job.reference_stage() is None) == (job.model.label == job.reference)


def test_a_study_of_revisions_takes_those_of_the_size_and_the_stage():
    labels = [job.model.label for job in jobs_of("training_dynamics", "size=7b")]
    assert (len(labels), labels[0], labels[-1]) == (16, "base@stage1-step3000", "base")
    labels = [job.model.label for job in jobs_of("training_dynamics", "model=think_sft")]
    assert labels == ["think_sft@step20", "think_sft@step40", "think_sft@step60", "think_sft"]


def test_a_family_is_compared_with_its_own_base():
    jobs = jobs_of("olmo2_vs_olmo3", "size=tiny")
    roots = {job.model.lineage()[0].name: job.reference_stage().name for job in jobs}
    assert roots == {"base": "base", "olmo2_base": "olmo2_base"}


def test_no_setting_is_mandatory():
    for path in conf_folder().rglob("*.yaml"):
        assert "???" not in path.read_text(), path


@pytest.mark.parametrize(
    ("reference", "name"),
    [("parent", "think_sft"), ("base", "base"), ("rl_zero_math", "rl_zero_math"), ("none", None)],
)
def test_reference(reference, name):
    stage = build("model=think_dpo", f"reference={reference}").reference_stage()
    assert (stage.name if stage else None) == name


def test_reference_at_a_revision():
    stage = build("model=think_rlvr", "reference=think_rlvr@step_5").reference_stage()
    assert stage.label == "think_rlvr@step_5"


def test_the_root_has_no_parent_and_no_base():
    for reference in ("parent", "base"):
        assert build("model=base", f"reference={reference}").reference_stage() is None


def test_stem_of_an_analysis_is_the_same_everywhere():
    for name in options("analysis"):
        analysis = build(f"analysis={name}").analysis
        assert analysis.name == name
        assert type(analysis).__module__ == f"olmo_stages.analyses.{name}"


def test_size_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("OLMO_STAGES_SIZE", "7b")
    assert build("model=think_sft").model.size == "7b"
    assert build("model=think_sft", "size=32b").model.size == "32b"


GIVEN_ANYTHING = """
import inspect, sys
from hydra.utils import get_object
for name in sys.argv[1:]:
    target = get_object(name)
    try:
        target(**dict.fromkeys(inspect.signature(target).parameters, object()))
    except Exception as error:
        print(name, type(error).__name__)
"""


def test_what_a_command_line_gives_values_to_is_checked_outside_of_tests_too():
    texts = [it.read_text() for it in conf_folder().rglob("*.yaml")]
    named = sorted({it for text in texts for it in TARGET.findall(text)})
    # These are given no value.
    unchecked = {"launch.RememberSweep", "launching.dry_run.DryRun", "tracking.NoTracking"}
    named = [it for it in named if it.removeprefix("olmo_stages.") not in unchecked]
    assert len(named) > 10
    command = [sys.executable, "-c", GIVEN_ANYTHING, *named]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{it} TypeCheckError" for it in named]
