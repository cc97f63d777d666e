"""How long jobs will take: their forward passes from the plan, their analyses from earlier ones."""

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from olmo_stages import plan, records
from olmo_stages.atomic import safe_name
from olmo_stages.dry_run.forecast import Step
from olmo_stages.errors import ConfigError, ModelError, StoreError
from olmo_stages.experiment import Experiment
from olmo_stages.rates import tokens

WRITING_BYTES = {"cuda": 2e12, "cpu": 2e10}
"""Bytes of weights a second that writing a response reads, all of them once for each token."""

OF_RESPONSES = (
    "responses: as long as data.generation.max_new_tokens allows, and all of them can be read; a "
    f"batch reads the weights once a token, at {WRITING_BYTES['cuda'] / 1e12:.0f} TB/s on a GPU, "
    f"{WRITING_BYTES['cpu'] / 1e9:.0f} GB/s on a CPU"
)
"""What the time of responses stands on."""
ASSUMPTIONS = (
    f"forward pass: {plan.TIME}",
    OF_RESPONSES,
    "analysis: as long as the quickest finished job of the same analysis, options, data and size "
    "in OUTPUTS took; not counted where there is none",
    "a GPU counts for as long as its job runs, the analysis included; not counted are downloads, "
    "queues, and the training of the miniature family",
)
"""What the estimates stand on, one line each."""


def needs(step: Step) -> plan.Needs | None:
    """What the plan says of a step; None where its model or its data are of unknown size."""
    if step.dataset is None:
        return None
    stage = step.stage
    while stage.members:  # all have one shape
        stage = stage.members[0].stage
    n_examples, n_tokens = step.dataset.n_examples, tokens(step.dataset)
    n_read = n_tokens + n_examples * _longest(step)
    try:
        return plan.needs(stage, step.compute, n_examples, n_read, step.device)
    except (ConfigError, ModelError):
        return None


def seconds(step: Step, needed: plan.Needs) -> float:
    """How long a step takes.

    Args:
        step: the step.
        needed: what it needs.
    """
    if step.kind == "activations":
        return needed.seconds
    n_batches = math.ceil(needed.tokens / step.compute.token_budget)
    reading = needed.weight_bytes / WRITING_BYTES[step.device]
    return needed.seconds + n_batches * _longest(step) * reading


def _longest(step: Step) -> int:
    """Tokens of a response at most."""
    respond = None if step.dataset is None else step.dataset.respond
    return 0 if respond is None else respond.generation.max_new_tokens


class Analyses:
    """How long analyses took, from the results that there are, each of which is read once."""

    def __init__(self) -> None:
        self._known: dict[Path, list[dict[str, Any]]] = {}

    def seconds(self, experiment: Experiment, data: str) -> float | None:
        """The shortest time of a job with the same analysis, options, data and size.

        Args:
            experiment: the job.
            data: name of its data set.

        Returns:
            None where there is none.
        """
        analysis = experiment.analysis
        options = asdict(analysis) if is_dataclass(analysis) else {}
        wanted = json.loads(records.canonical_json(options))
        found = [
            it["seconds"]
            for it in self._of(Path(experiment.outputs) / safe_name(analysis.name))
            if (it["options"], it["data"], it["size"]) == (wanted, data, experiment.model.size)
        ]
        return min(found, default=None)

    def _of(self, folder: Path) -> list[dict[str, Any]]:
        if folder not in self._known:
            read = (_provenance(it) for it in sorted(folder.glob("*/*/")))
            self._known[folder] = [it for it in read if it is not None]
        return self._known[folder]


def _provenance(folder: Path) -> dict[str, Any] | None:
    """What a finished result says of how it was made; None where there is none."""
    try:
        mark = records.read_mark(folder)
        found = json.loads(records.read_file(folder, mark, records.PROVENANCE))
        job = found["job"]
        return {
            "seconds": float(found["seconds"]),
            "options": job["identity"]["options"],
            "data": job["data"],
            "size": job["stage"]["size"],
        }
    except (StoreError, ValueError, KeyError, TypeError):
        return None
