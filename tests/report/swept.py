"""A whole outputs folder with a sweep, as the runner leaves it, made of planted activations.

Only the forward pass is made up: analyses, results, provenance and statuses are the real ones.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml

from olmo_stages import command, experiment
from olmo_stages.activations.comparison import Formats
from olmo_stages.activations.extraction import Source
from olmo_stages.activations.identity import PassIdentity
from olmo_stages.analyses.cka import CKA
from olmo_stages.analyses.cosine import Cosine
from olmo_stages.analyses.probe import Probe
from olmo_stages.analyses.projection import Projection
from olmo_stages.data.dataset import Dataset
from olmo_stages.expected import Expected, write_expected
from olmo_stages.models.compute import Compute
from olmo_stages.report.across import assemble
from olmo_stages.stages import conf_folder, custom, lookup
from olmo_stages.statuses import Status, read_statuses, write_status
from olmo_stages.tracking import NoTracking
from olmo_stages.types import Example, Stage
from tests.documents import HOSTILE
from tests.fakes import FakeSource

ENDS = "</script></style></textarea>"
"""Would end the elements in which a page keeps its data."""

TEMPLATE = "{{ 7*7 }} %{x} ${y}"
"""Would be filled in by a template language, or by plotly's labels."""

POST_TRAINED = (
    "think_sft",
    "think_dpo",
    "think_rlvr",
    "instruct_sft",
    "instruct_dpo",
    "instruct_rlvr",
    "rl_zero_math",
    "rl_zero_code",
    "rl_zero_if",
    "rl_zero_general",
    "rl_zero_mix",
)
FAILED, MISSING = "rl_zero_code", "rl_zero_mix"
"""Whose probe job failed, and whose cosine job never started."""

REVISIONS = ("think_sft@step20", "think_sft@step40")
"""Steps on the way to a stage, which only the cosine is run on."""

OWN = f"mine {HOSTILE}"
"""Label of a checkpoint of the user's own."""

# How far a kind of training moves a stage from its parent, relative to the noise of its examples.
_MOVES = {"sft": 0.6, "dpo": 0.15, "rlvr": 0.1, "step20": 0.2, "step40": 0.4}


@dataclass(frozen=True)
class Size:
    """How much there is of everything.

    Args:
        layers: of every stage.
        d_model: width.
        groups: of examples, four in each.
        draws: resamples of intervals, and permutations of nulls.
        whole: whether analyses do all that they do by default, and not what is quick.
    """

    layers: int = 4
    d_model: int = 12
    groups: int = 10
    draws: int = 100
    whole: bool = False


SMALL = Size()
MINIATURE = Size(layers=8, d_model=64, groups=20, whole=True)
OLMO_7B = Size(layers=32, d_model=64, groups=20, whole=True)


def analyses(size: Size) -> dict[str, Any]:
    """The three analyses of the post-training study, with few draws, and a fourth for its texts."""
    draws, few = {"n_resamples": size.draws}, {"n_permutations": size.draws}
    quick = {
        "probe": {"kind": "mean_difference", "n_folds": 3, "n_inner": 2, "n_controls": 1},
        "cka": {"also": [], "n_halves": 1, "position": "last"},
        "cosine": {"n_unrelated": size.draws, "n_folds": 3},
        "projection": {"tokens": True, "shown": 1, "n_folds": 3},
    }
    if size.whole:
        quick |= {"probe": {}, "cka": {"n_permutations_also": 10}, "cosine": few}
    return {
        name: kind(**(_options(name) | draws | few | quick[name])) for name, kind in _KINDS.items()
    }


_KINDS = {"probe": Probe, "cka": CKA, "cosine": Cosine, "projection": Projection}


def _options(name: str) -> dict[str, Any]:
    """What conf/analysis says."""
    options = yaml.safe_load((conf_folder() / "analysis" / f"{name}.yaml").read_text("utf-8"))
    del options["_target_"]
    return options


@dataclass(frozen=True)
class Data:
    """Chat-like texts that try to be anything but text."""

    size: Size
    hostile: bool = True

    def load(self, *, miniature: bool) -> Dataset:  # noqa: ARG002
        bad = f" {HOSTILE} {ENDS} {TEMPLATE}" if self.hostile else ""
        examples = tuple(
            Example(
                id=f"g{group}e{index}{bad}",
                group=f"g{group}",
                label=index % 2,
                text=f"text {group} {index}{bad}",
                trait=f"manners{bad}",
            )
            for group in range(self.size.groups)
            for index in range(4)
        )
        notes = (f"read from a file named texts{bad}.csv",) if self.hostile else ()
        return Dataset(f"manners{bad}", examples, "raw", notes=notes)


class MadeUp(Source):
    """The source of an experiment, with planted activations in place of forward passes."""

    def __init__(self, dataset: Dataset, size: Size) -> None:
        self.dataset, self.completed, self.ran_on = dataset, None, {}
        self.pooled = FakeSource(
            dataset.examples,
            lambda stage: planted(stage, size),
            token_ids=tuple((0, 5 + i % 2, 6, 7 + i % 5) for i in range(len(dataset.examples))),
            layer_types=layer_types(size.layers),
        )
        self.tokens = replace(
            self.pooled,
            make=lambda stage: planted(stage, size).repeat(3, axis=1),
            owners=np.repeat(np.arange(len(dataset.examples)), 3),
        )

    @property
    def examples(self) -> tuple[Example, ...]:
        return self.dataset.examples

    def __call__(self, stage, *, site="resid_post", position="last", layers=None):
        source = self.tokens if position == "tokens" else self.pooled
        return source(stage, site=site, position=position, layers=layers)

    def stream(self, stage, *, site="resid_post", position="last", layers=None):
        source = self.tokens if position == "tokens" else self.pooled
        return source.stream(stage, site=site, position=position, layers=layers)

    def close(self):
        """Nothing is in use."""

    def prefetch(self, stage, captures, layers=None):
        """Nothing is to be had more cheaply."""

    def readings(self, stage):
        """The sink and three pieces of each example's text."""
        texts = [(example.text or "").rsplit(" ", 2) for example in self.examples]
        found = self.pooled.readings(stage)
        return tuple(replace(it, texts=("", *text)) for it, text in zip(found, texts, strict=True))

    def identity(self, stage: Stage) -> PassIdentity:
        weights = f"{zlib.crc32(stage.label.encode()):08x}" * 8
        return PassIdentity(
            weights=weights,
            random_init=stage.random_init,
            dtype="float32",
            quantisation="none",
            attention="sdpa",
            tokenizer="t" * 64,
            format="raw",
            data=self.dataset.digest,
            max_length=512,
        )

    def caveats(self, stage: Stage) -> tuple[str, ...]:  # noqa: ARG002
        return ()

    def check_formats(self, stage: Stage, reference: Stage | None) -> Formats:  # noqa: ARG002
        return Formats()


def layer_types(layers: int) -> list[str]:
    """Every fourth layer sees everything, as in OLMo 3."""
    return ["full_attention" if i % 4 == 3 else "sliding_attention" for i in range(layers)]


@cache
def planted(stage: Stage, size: Size) -> np.ndarray:
    """Activations [layer example d_model] in which the label grows clearer with depth.

    A stage is its parent, moved in a direction and by an amount of its own; a random initialisation
    knows nothing of the label.
    """
    rng = np.random.default_rng(zlib.crc32(stage.label.encode()))
    n = size.groups * 4
    shape = (size.layers, n, size.d_model)
    if stage.random_init is not None:
        return rng.normal(size=shape)
    depth = np.linspace(0.1, 1.2, size.layers)[:, None, None]
    label = (np.arange(n) % 2 - 0.5)[None, :, None]
    if stage.parent is None:
        return rng.normal(size=shape) + depth * label * rng.normal(size=size.d_model)
    moved = _MOVES.get(stage.revision, _MOVES.get(stage.name.rpartition("_")[2], 0.3))
    turned = rng.normal(size=size.d_model)
    return planted(stage.parent, size) + moved * depth * (rng.normal(size=shape) + label * turned)


def stages() -> list[Stage]:
    """The post-trained stages, two steps on the way to one of them, and a user's own."""
    own = custom(path="mine", name=OWN, parent="think_sft", revision="main", size="tiny")
    return [*(lookup(name, "tiny") for name in (*POST_TRAINED, *REVISIONS)), own]


def sweep(
    outputs: Path,
    size: Size = SMALL,
    *,
    chosen: Sequence[Stage] | None = None,
    names: Sequence[str] = ("probe", "cka", "cosine", "projection"),
    hostile: bool = True,
    reference: str = "parent",
    together: bool = True,
) -> Path:
    """Run every analysis on every stage, and leave what a sweep leaves.

    Args:
        outputs: folder of the results.
        size: how much of everything.
        chosen: the stages; None = all of `stages()`.
        names: analyses; `projection` runs on one stage only, as it is there for its texts.
        hostile: whether the data set tries to break out of its text, one job failed and one is
            missing.
        reference: what each stage is compared with.
        together: whether the jobs are put together at the end.

    Returns:
        Folder of the sweep.
    """
    every = list(chosen) if chosen is not None else stages()
    folder = outputs / "sweeps" / "post_training"
    models = ",".join(stage.label.partition(" ")[0] for stage in every)
    words = [f"analysis={','.join(names)}", f"model={models}", f"reference={reference}"]
    command.record(folder, "run.py", ["-m", *words, f"outputs={outputs.name}"])
    jobs = {(name, it.label): it for name in names for it in every if _wanted(name, it)}
    statuses = {
        key: Status(f"analysis={key[0]},model={key[1]}", "missing", overrides=_overrides(*key))
        for key in jobs
    }
    write_expected(folder, [_expected(it, key, jobs[key]) for key, it in statuses.items()])
    with mock.patch.multiple(
        experiment,
        Source=lambda dataset, *_, **__: MadeUp(dataset, size),
        _check_family=lambda *_: None,
    ):
        for key, stage in jobs.items():
            if hostile and key == ("cosine", MISSING):
                continue
            if hostile and key == ("probe", FAILED):
                error = f"no space left on the disk {HOSTILE} {ENDS} {TEMPLATE}"
                write_status(folder, replace(statuses[key], state="failed", error=error))
                continue
            job = experiment.Experiment(
                model=stage,
                data=Data(size, hostile),
                analysis=analyses(size)[key[0]],
                compute=Compute("cpu", "float32", 8192, None),
                tracking=NoTracking(),
                size="tiny",
                reference=reference,
                seed=0,
                force=False,
                outputs=str(outputs),
                cache=str(outputs / "no_cache"),
                sweep=folder.name,
            )
            write_status(folder, _run(job, statuses[key], outputs.parent))
    if together:
        assemble(folder, read_statuses(folder, ended=True))
    return folder


def _wanted(name: str, stage: Stage) -> bool:
    """Whether an analysis is run on a stage: not all are, for the sake of the time it takes."""
    if name == "projection":
        return stage.label == POST_TRAINED[0]
    return name == "cosine" or stage.label not in REVISIONS


def _overrides(name: str, label: str) -> list[str]:
    return [f"analysis={name}", f"model={label}"]


def _expected(status: Status, key: tuple[str, str], stage: Stage) -> Expected:
    about = {"stage": stage.label, "size": stage.size, "analysis": key[0]}
    return Expected(status.job, status.overrides, about)


def _run(job: experiment.Experiment, status: Status, here: Path) -> Status:
    """Run a job as from the folder `here`, which its status is relative to."""
    name = job.analysis.name
    target = f"olmo_stages.analyses.{name}.{type(job.analysis).__name__}"
    outcome = job.run({"analysis": {"_target_": target}, "size": "tiny", "seed": 0})
    return replace(
        status,
        state="ok",
        folder=str(outcome.folder.relative_to(here)),
        seconds=outcome.seconds,
        headline=dict(outcome.result.headline),
        about=outcome.job.about(),
    )
