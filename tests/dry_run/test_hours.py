"""How long jobs will take."""

from dataclasses import replace

import pytest

from olmo_stages import plan
from olmo_stages.dry_run import hours
from olmo_stages.dry_run.forecast import Forecast, Step
from olmo_stages.models.compute import Compute
from olmo_stages.rates import tokens
from olmo_stages.soups import soup
from olmo_stages.stages import lookup
from olmo_stages.types import Stage
from tests.dry_run.conftest import Asking, Texts

COMPUTE = Compute("auto", "auto", 8192, None)


@pytest.fixture
def step(tmp_path):
    def build(stage=None, *, device="cuda", kind="activations", **options):
        data = Texts(**options).load(miniature=False)
        stage = stage or lookup("base", "7b")
        return Step(kind, stage, COMPUTE.on(device), device, tmp_path, data.name, data)

    return build


def seconds(step):
    return hours.seconds(step, hours.needs(step))


def test_a_pass_takes_what_the_plan_says_where_it_would_run(step):
    data = Texts().load(miniature=False)
    for device in ("cuda", "cpu"):
        told = plan.needs(lookup("base", "7b"), COMPUTE, 6, tokens(data), device)
        assert seconds(step(device=device)) == told.seconds
    assert seconds(step(device="cpu")) > seconds(step(device="cuda"))


def test_responses_take_longer_than_reading_them_and_that_longer_than_prompts(step):
    prompts = seconds(step())
    reading = seconds(step(respond="own"))
    writing = seconds(step(respond="own", kind="responses"))
    assert prompts < reading < writing


def test_an_average_takes_as_long_as_its_members(step):
    made = soup(
        of=["base@stage1-step1000", "base"],
        weights=None,
        name=None,
        parent=None,
        tokenizer=None,
        size="7b",
    )
    assert seconds(step(made)) == seconds(step())


def test_what_is_of_unknown_size_is_not_estimated(step):
    assert hours.needs(step(Stage("mine", "custom", "me/mine"))) is None
    assert hours.needs(replace(step(), dataset=None)) is None


def test_an_analysis_takes_as_long_as_the_quickest_of_its_kind(job):
    analyses = hours.Analyses()
    assert analyses.seconds(job(), "texts") is None
    for name in ("second", "third"):
        job(name).run({})
    known = hours.Analyses()
    found = known.seconds(job(), "texts")
    assert found is not None
    assert 0 < found < 60
    assert known.seconds(job(), "others") is None
    assert known.seconds(job(analysis=Asking(("stage",))), "texts") is None
    assert known.seconds(job(lookup("base", "tiny")), "texts") is None


def test_a_step_knows_its_device(job):
    forecast = Forecast()
    here = replace(job(), compute=replace(job().compute, device="auto"))
    forecast.add(here, "cuda")
    assert {(it.device, it.compute.dtype) for it in forecast.steps} == {("cuda", "bfloat16")}
