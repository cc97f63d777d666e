"""One job whose chats are completed by stages: what its result and its record say."""

from dataclasses import dataclass, replace
from typing import ClassVar

import hydra
import pytest
from safetensors.torch import load_file, save_file

from olmo_stages import records
from olmo_stages.activations.extraction import Source
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import Generation, Response
from olmo_stages.data.responses import responding as respond_by
from olmo_stages.errors import ConfigError, DataError
from olmo_stages.stages import conf_folder
from olmo_stages.types import Example, Measurement, Message, Result, Stage
from tests.chat_tokenizers import INSTRUCT, THINK, byte_level, small_model


@dataclass(frozen=True)
class Same:
    """Says whether both sides read the same tokens."""

    position: str = "response_mean"
    name: ClassVar[str] = "same"
    version: ClassVar[int] = 1

    def __call__(self, stage, reference, activations, seed):  # noqa: ARG002
        found = [
            activations(it, layers=(0,), position=self.position) for it in (stage, reference) if it
        ]
        assert found[0].ids == found[-1].ids == tuple(it.id for it in activations.examples)
        same = float(found[0].token_ids == found[-1].token_ids)
        row = Measurement("same", same, stage.label, n=len(found[0].ids))
        return Result((row,), headline={"same": same}, warnings=("its own",))


@dataclass(frozen=True)
class Chats:
    """Data to complete."""

    respond: str | None
    format: str = "chat_fixed"
    mix_formats: bool = False

    def load(self, *, miniature):  # noqa: ARG002
        examples = tuple(
            Example(f"e{i}", f"g{i}", i % 2, messages=(Message("user", f"Why {i}?"),))
            for i in range(6)
        )
        by = respond_by(self.respond, Generation(5))
        return Dataset(
            "chats",
            examples,
            self.format,
            mix_formats=self.mix_formats,
            notes=("a note",),
            respond=by,
        )


@pytest.fixture(scope="module")
def experiment():
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["tracking=none"])
        return hydra.utils.instantiate(composed, _convert_="all")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Three stages of one vocabulary, the last of which has another template."""
    root = tmp_path_factory.mktemp("stages")
    found = {}
    for name, template in {"first": THINK, "second": THINK, "third": INSTRUCT}.items():
        path = small_model(root / name, byte_level(template))
        found[name] = Stage(name, "custom", str(path), parent=found.get("first"))
    # Of the same weights, all would write the same.
    for n, name in enumerate(("second", "third"), start=1):
        file = root / name / "model.safetensors"
        weights = load_file(file)
        weights["lm_head.weight"] = weights["lm_head.weight"].roll(7 * n, dims=0).contiguous()
        save_file(weights, file, metadata={"format": "pt"})
    return found


@pytest.fixture
def run(experiment, stages, tmp_path):
    def run(respond, *, model="second", position="response_mean", reference="parent", **options):
        job = replace(
            experiment,
            model=stages[model],
            data=Chats(respond, **options),
            analysis=Same(position),
            reference=reference,
            outputs=str(tmp_path / "outputs"),
            cache=str(tmp_path / "cache"),
        )
        return job.run({"analysis": {"_target_": "mine.Same"}})

    return run


def fake(monkeypatch, texts):
    """Responses by label of the stage and id of the example; `ok` where none is given."""
    tokenizer = byte_level()

    def written(label, name):
        text = texts.get((label, name), "ok")
        return Response(tuple(tokenizer(text)["input_ids"]), text)

    def respond(self, stages):
        ids = [it.id for it in self._dataset.examples]
        return {stage: {name: written(stage.label, name) for name in ids} for stage in stages}

    monkeypatch.setattr(Source, "_respond", respond)


def test_a_replay_is_labelled_and_the_same_for_both(run):
    outcome = run("first")
    assert outcome.result.measurements[0].value == 1.0
    assert outcome.result.headline == {"same": 1.0, "responses": "replay of first"}
    note, mode, counts, own = outcome.result.warnings
    assert (note, own) == ("a note", "its own")
    assert mode.startswith("responses: replay of first (greedy, at most 5 tokens)")
    assert counts.startswith("responses of first: label 0: 3 of 3 usable, 3 kept")
    recorded = records.read(outcome.folder)
    assert recorded.provenance["responses"]["mode"] == "replay of first"
    assert recorded.provenance["responses"]["stages"][0]["kept"] == {"0": 3, "1": 3}
    assert recorded.result.warnings == outcome.result.warnings


def test_own_responses_are_labelled_and_differ(run):
    outcome = run("own")
    assert outcome.result.measurements[0].value == 0.0
    assert outcome.result.headline["responses"] == "own"
    _, mode, second, first, _ = outcome.result.warnings
    assert "stages differ in words and not only in activations" in mode
    assert second.startswith("responses of second")
    assert first.startswith("responses of first")
    assert len(records.read(outcome.folder).provenance["responses"]["stages"]) == 2


def test_without_responses_nothing_is_said_of_them(run):
    outcome = run(None, position="last")
    assert outcome.result.headline == {"same": 1.0}
    assert outcome.result.warnings == ("a note", "its own")
    provenance = records.read(outcome.folder).provenance
    assert "responses" not in provenance
    assert "responses" not in provenance["job"]["identity"]


def test_each_mode_is_a_job_of_its_own_and_is_found_again(run, monkeypatch):
    folders = [run(by).folder for by in ("first", "second", "own")]
    assert len(set(folders)) == 3
    # Of a stage alone, its own responses and a replay of them are the same tokens in two modes.
    alone = [run(by, reference="none") for by in ("second", "own")]
    digests = [records.read(it.folder).provenance["data_digest"] for it in alone]
    assert alone[0].folder != alone[1].folder
    assert digests[0] != digests[1]
    monkeypatch.setattr("olmo_stages.models.loading.load", None)
    for by, folder in zip(("first", "second", "own"), folders, strict=True):
        again = run(by)
        assert again.cached
        assert again.folder == folder


def test_the_data_digest_is_that_of_what_was_read(run):
    replayed, other = (records.read(run(by).folder).provenance for by in ("first", "second"))
    assert replayed["data_digest"] != other["data_digest"]
    identity = replayed["job"]["identity"]
    assert identity["activations"]["data"] == identity["reference"]["data"]
    assert identity["activations"]["data"] == replayed["data_digest"]
    own = records.read(run("own").folder).provenance["job"]["identity"]
    assert own["activations"]["data"] != own["reference"]["data"]


def test_counterparts_lost_in_one_stage_are_lost_in_both(run, monkeypatch):
    fake(monkeypatch, {("first", "e1"): " ", ("second", "e4"): ""})
    outcome = run("own")
    assert outcome.result.measurements[0].n == 4
    counts = records.read(outcome.folder).provenance["responses"]["stages"]
    assert [(it["stage"], it["usable"], it["kept"]) for it in counts] == [
        ("second", {"0": 2, "1": 3}, {"0": 2, "1": 2}),
        ("first", {"0": 3, "1": 2}, {"0": 2, "1": 2}),
    ]


def test_what_the_analysis_reads_decides_what_is_kept(run, monkeypatch):
    answered = {("first", f"e{i}"): "<think>hm</think>yes" for i in range(5)}
    fake(monkeypatch, answered | {("first", "e5"): "<think>hm"})
    assert run("first", position="answer_mean").result.measurements[0].n == 5
    assert run("first", position="response_mean").result.measurements[0].n == 6
    assert run("first", position="last").result.measurements[0].n == 6


def test_nothing_kept_is_one_line_with_the_counts(run, monkeypatch):
    fake(monkeypatch, {("first", f"e{i}"): "" for i in range(6)})
    with pytest.raises(DataError, match=r"responses of first: label 0: 0 of 3 usable, 0 kept;"):
        run("first")


@pytest.mark.parametrize(("wrong", "hint"), [("think_sfd", "mean think_sft"), ("Own", "mean own")])
def test_a_responder_that_does_not_exist_is_named_with_what_there_is(run, wrong, hint):
    with pytest.raises(ConfigError, match=rf"data.respond={wrong} does not exist; .*{hint}"):
        run(wrong)


def test_formats_are_checked_on_the_prompts_before_anybody_responds(run, monkeypatch):
    monkeypatch.setattr("olmo_stages.models.loading.load", None)
    for by in ("own", "first"):
        with pytest.raises(ConfigError, match=r"6 of 6 examples .*data.mix_formats=true"):
            run(by, model="third", format="chat_native")


def test_own_responses_in_one_format_are_no_mixed_formats(run, capsys):
    outcome = run("own", format="chat_native")
    assert outcome.result.measurements[0].value == 0.0
    assert not any("mixed by choice" in it for it in outcome.result.warnings)
    assert "see other tokens" not in capsys.readouterr().err


def test_templates_mixed_by_choice_read_the_same_response(run):
    outcome = run("first", model="third", format="chat_native", mix_formats=True)
    assert outcome.result.measurements[0].value == 0.0
    assert any(it.startswith("prompts are mixed by choice") for it in outcome.result.warnings)
