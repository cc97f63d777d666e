"""What jobs will read and compute, against what they then really do."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from olmo_stages.dry_run.forecast import Forecast
from olmo_stages.errors import ConfigError
from olmo_stages.models import loading
from olmo_stages.stages import lookup
from olmo_stages.types import Stage
from tests.dry_run.conftest import Asking, Silent, Texts

BOTH = ("stage", "reference")
SWEEPS = {
    "a reference that two jobs share, and that is a stage too": [
        ("second", Asking()),
        ("third", Asking()),
        ("first", Asking()),
    ],
    "random initialisations": [
        ("second", Asking(("stage", "random"))),
        ("third", Asking(("random",))),  # of the same shape
        ("third", Asking(("random",)), {"seed": 1}),
    ],
    "several sites, of which one is there": [
        ("second", Asking(sites=("attn_out",))),
        ("second", Asking(BOTH, ("resid_post", "attn_out"), ("last", "mean"), at_once=True)),
        ("second", Asking(BOTH, ("resid_post",), ("mean",))),
    ],
    "a site a job": [
        ("second", Asking(BOTH, ("resid_post",))),
        ("first", Asking(sites=("resid_mid",))),
        ("second", Asking(BOTH, ("attn_out", "mlp_out"), ("mean",))),
    ],
    "sites one after another in one job": [("second", Asking(sites=("resid_post", "attn_out")))],
    "several positions one after another": [("second", Asking(positions=("last", "mean")))],
    "tokens beside means": [("second", Asking(positions=("mean", "tokens"), at_once=True))],
    "all layers, then some": [
        ("second", Asking(layers=(None, (-1,)))),
        ("second", Asking(layers=((0,), (-1,)))),
    ],
    "some layers, then all": [
        ("second", Asking(layers=((0,), (-1,)))),
        ("second", Asking()),
    ],
    "other data, and the same under another name": [
        ("second", Asking(), {"data": it}) for it in (Texts(), Texts(n=8), Texts("others"))
    ],
    "responses that all read": [
        (name, Asking(positions=("response_mean",)), {"data": Texts(respond="first")})
        for name in ("second", "third")
    ],
    "responses of each stage, and their prompts": [
        ("second", Asking(("stage", "random")), {"data": Texts(respond="own")}),
        ("third", Asking(), {"data": Texts(respond="own")}),
        ("second", Asking()),
    ],
}


def jobs_of(job, sweep):
    return [job(name, analysis, **dict(*rest)) for name, analysis, *rest in SWEEPS[sweep]]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_steps_are_those_that_are_then_taken(job, computed, sweep):
    jobs = jobs_of(job, sweep)
    forecast = Forecast(jobs)
    told = [forecast.add(it) for it in jobs]
    assert computed() == {"activations": 0, "responses": 0}
    expected = Counter(it.kind for it in forecast.steps)
    assert {it.state for it in told} == {"missing"}
    done = []
    for number, it in enumerate(jobs):
        before = sum(computed().values())
        it.run({}, lambda _: jobs)
        done.append(sum(computed().values()) - before)
        assert done[-1] == len(told[number].steps)
    assert computed() == {kind: expected[kind] for kind in ("activations", "responses")}
    # The other way round nothing is left, neither of the jobs nor of what they read.
    again = Forecast()
    assert {again.add(it).state for it in jobs} == {"done"}
    told = [again.add(replace(it, force=True)) for it in jobs]
    assert again.steps == []
    assert all(it.state == "missing" and it.n_stored for it in told)


@pytest.mark.parametrize(
    "sweep",
    [
        "a site a job",
        "sites one after another in one job",
        "several positions one after another",
        "all layers, then some",
        "some layers, then all",
    ],
)
def test_there_is_one_pass_a_stage(job, sweep):
    jobs = jobs_of(job, sweep)
    forecast = Forecast(jobs)
    for it in jobs:
        forecast.add(it)
    assert sorted(it.stage.label for it in forecast.steps) == ["first", "second"]


def test_jobs_that_share_a_step_are_told_of_it(job):
    forecast = Forecast()
    first, second = (forecast.add(job(name)) for name in ("second", "third"))
    assert [it.stage.label for it in forecast.steps] == ["second", "first", "third"]
    assert (first.steps, first.shared) == ((0, 1), ())
    assert (second.steps, second.shared) == ((2,), (1,))


def test_a_job_that_runs_is_told_of_as_it_is(job):
    told = Forecast().add(job())
    assert told.about == {
        "stage": "second",
        "reference": "first",
        "size": "custom",
        "analysis": "asking",
        "data": "texts",
    }
    assert job().run({}).job.about() == told.about


def test_of_an_analysis_that_does_not_tell_there_may_be_more(job):
    forecast = Forecast()
    told = forecast.add(job(analysis=Silent()))
    assert not told.is_whole
    assert [it.stage.label for it in forecast.steps] == ["second"]
    assert forecast.add(job()).is_whole


def test_no_model_is_loaded(job, monkeypatch):
    monkeypatch.setattr(loading, "load", None)
    Forecast().add(job(data=Texts(respond="own")))


def test_another_cache_has_steps_of_its_own(job, tmp_path):
    forecast = Forecast()
    forecast.add(job())
    forecast.add(replace(job(), cache=str(tmp_path / "elsewhere")))
    assert len(forecast.steps) == 4


# What is not on this machine


@pytest.fixture
def tiny(job):
    """A job of the miniature family, which is not built in its cache."""
    return lambda name, analysis=None: job(lookup(name, "tiny"), analysis)


def test_the_miniature_family_is_not_trained(tiny, tmp_path):
    forecast = Forecast()
    told = [forecast.add(tiny(name)) for name in ("think_sft", "think_dpo", "base")]
    assert [it.state for it in told] == ["missing"] * 3
    assert [it.stage.label for it in forecast.steps] == ["think_sft", "base", "think_dpo"]
    assert not any(it.is_here for it in forecast.steps)
    assert list(tmp_path.iterdir()) == []


def test_random_initialisations_of_one_shape_and_tokenizer_are_one_without_them_too(tiny):
    forecast = Forecast()
    random = Asking(("random",))
    for name in ("think_sft", "think_dpo", "base", "rl_zero_math", "olmo2_base"):
        forecast.add(tiny(name, random))
    assert [it.stage.name for it in forecast.steps] == ["think_sft", "base", "olmo2_base"]


def test_layers_of_a_model_that_is_not_here_are_a_part_of_all(tiny):
    forecast = Forecast()
    for layers in ((None,), ((0,),), ((-1,),)):
        forecast.add(tiny("base", Asking(layers=layers)))
    assert len(forecast.steps) == 1
    with pytest.raises(ConfigError, match=r"layers \[8\] of base"):
        forecast.add(tiny("base", Asking(layers=((8,),))))


@pytest.fixture
def hub(monkeypatch, tmp_path, stages, job):
    """A job on a repository, and what puts some of its files into the hub's cache."""
    from huggingface_hub import constants

    commit, root = "0" * 40, tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # so that asking it would be noticed
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(root))

    def put(*names):
        folder = root / "models--me--mine"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        for name in names:
            content = (Path(stages["first"].source) / name).read_bytes()
            (folder / "snapshots" / commit / name).write_bytes(content)

    return job(Stage("mine", "custom", "me/mine")), put


def test_a_repository_that_is_not_here_is_not_downloaded(hub, tmp_path):
    job, put = hub
    forecast = Forecast()
    assert forecast.add(job).state == "missing"
    assert [it.is_here for it in forecast.steps] == [False]
    put("config.json")  # a part of what is needed to know what it is
    Forecast().add(job)
    assert not (tmp_path / "cache").exists()


def test_config_and_tokenizer_are_enough_to_know_a_repository(hub, monkeypatch):
    job, put = hub
    put("config.json", "tokenizer.json", "tokenizer_config.json")
    forecast = Forecast()
    forecast.add(job)
    assert [it.is_here for it in forecast.steps] == [True]
    monkeypatch.setattr("socket.socket.connect", None)
    assert job.finished() is False


def test_weights_that_are_not_here_make_results_unknown(job, stages, tmp_path):
    done = job("first")
    done.run({})
    assert done.finished()
    moved = tmp_path / "moved"
    (tmp_path / "other").mkdir()
    away = replace(done, model=replace(done.model, source=f"me/{moved.name}"))
    assert away.finished() is None
    # Of another analysis there is no result at all.
    assert replace(away, analysis=Silent()).finished() is False
    assert Forecast().add(away).state == "unknown"
    assert stages["first"] == done.model


# finished


def test_a_job_is_finished_once_it_ran(job):
    assert job().finished() is False
    outcome = job().run({})
    assert job().finished() is True
    assert replace(job(), seed=1).finished() is False
    assert replace(job(), force=True).finished() is False
    (outcome.folder / "measurements.parquet").write_bytes(b"damaged")
    assert job().finished() is False


def test_a_result_is_one_of_a_device(job):
    here = replace(job(), compute=replace(job().compute, device="auto"))
    replace(here, compute=here.compute.on("cpu")).run({})
    assert here.finished("cpu") is True
    assert here.finished("cuda") is False
    in_single = replace(here, compute=replace(here.compute, dtype="float32"))
    assert in_single.finished("cuda") is True


def test_what_cannot_run_says_so_before(job):
    with pytest.raises(ConfigError, match="reference=nobody"):
        job(reference="nobody").finished()
    assert job(reference="none").finished() is False


def test_a_job_of_a_dry_run_does_not_run(job, computed):
    with pytest.raises(ConfigError, match="dry_run=True is for a whole launch"):
        job(dry_run=True).run({})
    assert computed() == {"activations": 0, "responses": 0}
