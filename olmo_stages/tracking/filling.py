"""What a run holds: a step a layer, tables, figures, the result's files, the headline."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_stages.provenance import redact
from olmo_stages.records import MEASUREMENTS, TENSORS, Job, read_mark
from olmo_stages.tracking.containment import warn_once
from olmo_stages.tracking.run_layout import (
    TABLE,
    artifact_name,
    figure_name,
    history,
    metric_name,
    summary,
)
from olmo_stages.types import Measurement, Result

_LARGEST_FILE = 20e6  # bytes; pair tables of many rows are for this machine

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Copy:
    """What is sent about one job.

    Args:
        job: what was run.
        result: what the analysis returned.
        folder: where it is on disk.
        group: name of the sweep.
        config: the full resolved configuration.
        digest: identity of the numbers.
    """

    job: Job
    result: Result
    folder: Path
    group: str
    config: Mapping[str, Any]
    digest: str

    def whole_config(self) -> dict[str, Any]:
        """Configuration and provenance without secrets."""
        provenance = json.loads((self.folder / "provenance.json").read_bytes())
        rest = {key: it for key, it in provenance.items() if key not in {"config", "job", "argv"}}
        return redact({**self.config, "job": self.job.describe(), "provenance": rest})


def fill(run: Any, copy: Copy) -> None:  # noqa: ANN401  (a wandb run)
    """Send what is known of a job; a run that broke off gets what it has not got yet.

    Args:
        run: started or continued.
        copy: what is sent.
    """
    import wandb

    job, result = copy.job, copy.result
    prefix = metric_name(job.analysis)
    run.define_metric("layer", hidden=True, summary="none")
    # No automatic summary: it would show the last layer's value as if it were the run's.
    run.define_metric(f"{prefix}/*", step_metric="layer", summary="none")
    layers = history(result.measurements, job.analysis)
    _warn_of_older_curves(run, copy)
    # First, so that a run that breaks off is not taken for one of other numbers.
    run.summary["result_digest"] = copy.digest
    for step, values in enumerate(layers):
        if step >= run.starting_step:  # a resumed run has the others already
            run.log(values, step=step)
    columns: list[Any] = [it.name for it in dataclasses.fields(Measurement)]
    rows: list[Any] = [[getattr(row, it) for it in columns] for row in result.measurements]
    media: dict[str, Any] = {TABLE: wandb.Table(columns=columns, data=rows)}
    media |= {figure_name(name): _figure(text) for name, text in result.figures.items()}
    run.log(media, step=max(len(layers), run.starting_step))
    run.log_artifact(_artifact(copy))
    run.summary.update(summary(result, job.analysis))


def _figure(text: str) -> Any:  # noqa: ANN401  (wandb is imported late)
    import plotly.io
    import wandb

    return wandb.Plotly(plotly.io.from_json(text))


def _artifact(copy: Copy) -> Any:  # noqa: ANN401  (wandb is imported late)
    import wandb

    name = artifact_name(copy.job.analysis, copy.job.run_id)
    artifact = wandb.Artifact(name, type="result", metadata={"result_digest": copy.digest})
    tables = read_mark(copy.folder).get("tables", {}).values()
    for file in (MEASUREMENTS, TENSORS, *tables):
        if (copy.folder / file).stat().st_size <= _LARGEST_FILE:
            artifact.add_file(str(copy.folder / file), name=file, skip_cache=True)
        else:
            warn_once(f"W&B: {file} of over {_LARGEST_FILE / 1e6:.0f} MB stays on disk only")
    return artifact


def _warn_of_older_curves(run: Any, copy: Copy) -> None:  # noqa: ANN401  (a wandb run)
    if run.starting_step and run.summary.get("result_digest") != copy.digest:
        _logger.warning(
            "W&B: the layer curves of run %s stay those of its first recording; "
            "its table, figures and files are new",
            copy.job.run_id,
        )
