"""Which stage a job is compared with, and whether the two are given the same prompts."""

import signal
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import hydra
import pytest

from olmo_stages import records
from olmo_stages.data.dataset import Dataset
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.models.compute import Compute
from olmo_stages.stages import conf_folder, custom, lookup
from olmo_stages.stopping import Stopped
from olmo_stages.types import Example, Measurement, Result, Stage
from tests.chat_tokenizers import INSTRUCT, THINK, byte_level, small_model


@pytest.fixture(scope="module")
def experiment():
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["tracking=none"])
        return hydra.utils.instantiate(composed, _convert_="all")


@pytest.fixture
def reference_of(experiment):
    return lambda model, name: replace(experiment, model=model, reference=name).reference_stage()


def test_a_revision_of_base_is_compared_with_the_released_base(reference_of):
    assert reference_of(lookup("base@stage1-step100", "tiny"), "base") == lookup("base", "tiny")
    assert reference_of(lookup("base@stage1-step100", "tiny"), "parent") is None


def test_base_itself_has_no_base(reference_of):
    assert reference_of(lookup("base", "tiny"), "base") is None


def test_the_base_of_an_own_checkpoint_comes_from_its_parent(reference_of):
    own = custom(path="/x", name=None, parent="think_sft", revision="main", size="tiny")
    assert reference_of(own, "base") == lookup("base", "tiny")


@pytest.mark.parametrize("name", ["mine", "base"])
def test_an_own_checkpoint_without_parent_has_no_base(reference_of, name):
    own = custom(path="/x", name=name, parent=None, revision="main", size="tiny")
    with pytest.raises(ConfigError, match=r"model.parent=STAGE.*reference=base@main"):
        reference_of(own, "base")
    assert reference_of(own, "base@main") == lookup("base", "tiny")


def test_an_unknown_reference_is_named_with_what_there_is(reference_of):
    with pytest.raises(ConfigError, match=r"reference=bas does.*parent, base, none, .*mean base"):
        reference_of(lookup("think_sft", "tiny"), "bas")


# Prompts of the two sides


@dataclass(frozen=True)
class Same:
    """An analysis that says whether both sides read the same tokens."""

    name: ClassVar[str] = "same"
    version: ClassVar[int] = 1

    def __call__(self, stage, reference, activations, seed):  # noqa: ARG002
        sides = [activations(it, layers=(0,)).token_ids for it in (stage, reference)]
        same = float(sides[0] == sides[1])
        return Result((Measurement("same", same, stage.label),), warnings=("its own",))


@dataclass(frozen=True)
class Alone:
    """An analysis of one stage."""

    name: ClassVar[str] = "alone"
    version: ClassVar[int] = 1

    def __call__(self, stage, reference, activations, seed):  # noqa: ARG002
        shape = activations(stage, layers=(0,)).values.shape
        return Result((Measurement("width", float(shape[2]), stage.label),))


@dataclass(frozen=True)
class Texts:
    """Data in a format."""

    format: str
    mix_formats: bool = False
    notes: tuple[str, ...] = ()

    def load(self, *, miniature):  # noqa: ARG002
        examples = tuple(Example(f"e{i}", f"g{i}", i % 2, text=f"Why {i}?") for i in range(4))
        return Dataset("texts", examples, self.format, self.mix_formats, self.notes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A Think and an Instruct stage, and a base without a chat template."""
    root = tmp_path_factory.mktemp("pair")
    templates = {"base": None, "instruct": INSTRUCT, "think": THINK}
    return {
        name: Stage(name, "custom", str(small_model(root / name, byte_level(template))))
        for name, template in templates.items()
    }


@pytest.fixture
def run(experiment, pair, tmp_path):
    def run(format, *, reference="instruct", mix_formats=False, notes=()):
        job = replace(
            experiment,
            model=replace(pair["think"], parent=pair[reference]),
            data=Texts(format, mix_formats, notes),
            analysis=Same(),
            outputs=str(tmp_path / "outputs"),
            cache=str(tmp_path / "cache"),
        )
        return job.run({})

    return run


def test_a_comparison_that_would_mix_formats_is_refused_before_any_model_is_loaded(
    run, monkeypatch
):
    monkeypatch.setattr("olmo_stages.models.loading.load", None)
    with pytest.raises(ConfigError, match=r"4 of 4 examples .*data.mix_formats=true"):
        run("chat_native")


def test_mixed_formats_by_choice_are_told_in_the_result_and_on_the_terminal(run, capsys):
    outcome = run("chat_native", mix_formats=True)
    assert outcome.result.measurements[0].value == 0.0
    first, second = outcome.result.warnings
    assert first.startswith("prompts are mixed by choice: think and instruct see other tokens in 4")
    assert second == "its own"
    assert records.read(outcome.folder).result.warnings == outcome.result.warnings
    said = capsys.readouterr().err
    assert first in said
    assert "- think     '" in said
    assert "+ instruct  '" in said


def test_what_is_to_be_known_about_the_data_is_said_in_the_result(run):
    outcome = run("raw", notes=("seas.csv was read as pairs.",))
    assert outcome.result.warnings == ("seas.csv was read as pairs.", "its own")
    assert records.read(outcome.folder).result.warnings == outcome.result.warnings


def test_a_result_of_quantised_weights_says_so(run, monkeypatch):
    assert run("raw").result.warnings == ("its own",)
    # The scheme alone, so that the test needs no library: the numbers are those of full precision.
    monkeypatch.setattr(Compute, "resolve_quantisation", lambda _self: "bitsandbytes-x")
    outcome = run("raw")
    assert not outcome.cached
    assert outcome.result.warnings[0].startswith("weights are quantised (bitsandbytes-x)")
    assert records.read(outcome.folder).result.warnings == outcome.result.warnings


@dataclass
class Told:
    """A tracker that notes what it is told, and whether there was a result then."""

    outputs: Path
    events: list[str] = field(default_factory=list)

    def note(self, event):
        done = any(self.outputs.rglob("result.json"))
        self.events.append(f"{event}, {'with' if done else 'no'} result")

    @contextmanager
    def running(self, job, *, group, config):  # noqa: ARG002
        self.note("starts")
        try:
            yield
        except BaseException as error:
            self.note(type(error).__name__)
            raise

    def record(self, job, result, folder, *, group, config):  # noqa: ARG002
        self.note("recorded")


@dataclass(frozen=True)
class Interrupted(Alone):
    """An analysis during which the job is told to stop."""

    def __call__(self, stage, reference, activations, seed):  # noqa: ARG002
        raise Stopped(signal.SIGTERM)


def test_a_tracker_sees_a_job_at_work_and_hears_of_its_result_when_it_is_on_disk(
    experiment, pair, tmp_path
):
    told = Told(tmp_path / "outputs")
    job = replace(
        experiment,
        model=pair["think"],
        reference=None,
        data=Texts("raw"),
        analysis=Interrupted(),
        tracking=told,
        outputs=str(told.outputs),
        cache=str(tmp_path / "cache"),
    )
    with pytest.raises(Stopped):
        job.run({})
    assert told.events == ["starts, no result", "Stopped, no result"]
    told.events.clear()
    replace(job, analysis=Alone()).run({})
    assert told.events == ["starts, no result", "recorded, with result"]
    told.events.clear()
    assert replace(job, analysis=Alone()).run({}).cached  # nothing is at work
    assert told.events == ["recorded, with result"]


def test_a_finished_mixed_job_is_not_handed_out_without_the_choice(run):
    assert not run("chat_native", mix_formats=True).cached
    with pytest.raises(ConfigError, match=r"data.mix_formats=true"):
        run("chat_native")
    assert run("chat_native", mix_formats=True).cached


@pytest.mark.parametrize("format", ["raw", "scaffold", "chat_fixed"])
def test_owned_formats_are_compared_as_they_are(run, capsys, format):
    outcome = run(format)
    assert outcome.result.measurements[0].value == 1.0
    assert outcome.result.warnings == ("its own",)
    assert "see other tokens" not in capsys.readouterr().err


def test_base_has_no_native_format_even_if_formats_may_be_mixed(run):
    for mix_formats in (False, True):
        with pytest.raises(ModelError, match=r"stage base .*has no chat template"):
            run("chat_native", reference="base", mix_formats=mix_formats)


def test_base_in_a_chat_template_is_told_in_the_result(run):
    found = run("chat_fixed", reference="base").result.warnings
    assert found[0].startswith("base has no chat template and was trained on none")
    assert run("raw", reference="base").result.warnings == ("its own",)


def test_what_was_typed_is_refused_before_what_it_is_compared_with(experiment):
    """Neither is in reach; the parent is asked for by nobody."""
    model = replace(lookup("think_sft@step_1000", "7b"), parent=lookup("base@nonsense", "7b"))
    job = replace(experiment, model=model, data=Texts("raw"), analysis=Same())
    with pytest.raises(ModelError, match=r"^stage think_sft: .* nearest: step1000;"):
        job.run({})


def test_where_the_passes_ran_is_recorded_and_no_part_of_the_identity(run):
    outcome = run("raw")
    recorded = records.read(outcome.folder).provenance
    assert recorded["ran_on"].keys() == {"think", "instruct"}
    assert list(recorded["ran_on"]["think"]) == ["cpu"]
    assert "ran_on" not in outcome.job.identity["activations"]


def test_a_checkpoint_that_is_not_of_its_parents_shape_says_so(experiment, pair, tmp_path):
    model = replace(pair["think"], parent=lookup("think_sft", "7b"))
    job = replace(
        experiment,
        model=model,
        reference="none",
        data=Texts("raw"),
        analysis=Alone(),
        outputs=str(tmp_path / "outputs"),
        cache=str(tmp_path / "cache"),
    )
    first, *others = job.run({}).result.warnings
    assert first.startswith("config.json of think is not that of think_sft (7b), from which it")
    assert not others
    alone = replace(job, model=pair["think"], force=True)
    assert alone.run({}).result.warnings == ()


# Data without labels


@dataclass(frozen=True)
class Unlabelled:
    """Texts without labels, or the same with labels."""

    labelled: bool = False

    def load(self, *, miniature):  # noqa: ARG002
        found = Texts("raw").load(miniature=False)
        if self.labelled:
            return found
        texts = tuple(replace(it, label=None) for it in found.examples)
        return replace(found, examples=texts, labelled=False)


@dataclass(frozen=True)
class Carefree(Alone):
    """An analysis that says that it needs no labels."""

    needs_labels: ClassVar[bool] = False


WITHOUT = {"cka"}
"""Analyses that need no labels with the options of their YAML."""


def configured(name):
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.utils.instantiate(
            hydra.compose("config", [f"analysis={name}"]).analysis, _convert_="all"
        )


@pytest.fixture
def ask(experiment, pair, tmp_path, monkeypatch):
    """Run an analysis where no model can be loaded."""

    def ask(analysis, data):
        monkeypatch.setattr("olmo_stages.models.loading.load", Unread())
        folders = {name: str(tmp_path / name) for name in ("outputs", "cache")}
        job = replace(experiment, model=pair["think"], reference="none", data=data, **folders)
        return replace(job, analysis=analysis).run({})

    return ask


class Read(Exception):
    """A model would have been loaded."""


class Unread:
    def __call__(self, *args, **kwargs):  # noqa: ARG002
        raise Read


@pytest.mark.parametrize("name", sorted(it.stem for it in (conf_folder() / "analysis").iterdir()))
def test_every_analysis_is_refused_without_labels_or_says_that_it_needs_none(ask, name):
    analysis = configured(name)
    assert getattr(analysis, "needs_labels", True) == (name not in WITHOUT)
    if name in WITHOUT:
        with pytest.raises(Read):
            ask(analysis, Unlabelled())
        return
    with pytest.raises(ConfigError, match=f"^analysis={name} needs labels.*analysis.vector=FILE$"):
        ask(analysis, Unlabelled())


def test_an_analysis_that_says_nothing_is_refused_without_labels(ask):
    with pytest.raises(ConfigError, match="analysis=alone needs labels, and data 'texts' is read"):
        ask(Alone(), Unlabelled())
    for analysis, labelled in ((Alone(), True), (Carefree(), False), (Carefree(), True)):
        with pytest.raises(Read):
            ask(analysis, Unlabelled(labelled))
