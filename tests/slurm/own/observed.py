"""An analysis as a user might bring it, which also tells tests what is computed, where and when.

Tests and jobs, which may be on another node, meet in the folder OBSERVED: files `hold-STAGE` and
`fail-STAGE` there hold an analysis up or make it fail, `hold-run` holds a job up whose run of W&B
is made but not noted yet, `hold-shard3` one that is about to write that shard, `pace` says how long
each shard takes a job that was not queued again, and everything that was done is a line of `log`.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from olmo_stages.activations.entry import Writer
from olmo_stages.tracking.runs import Wandb
from olmo_stages.types import Measurement, Position, Result, Site

_FOLDER = Path(os.environ["OBSERVED"])


def note(what: str, **facts: object) -> None:
    """Add a line to the log; short lines from several processes do not mix."""
    where = {key: os.environ.get(f"SLURM_{key.upper()}") for key in ("job_id", "restart_count")}
    where["node"] = os.environ.get("SLURMD_NODENAME")
    line = json.dumps({"what": what, **facts, **where, "pid": os.getpid(), "at": time.time()})
    with (_FOLDER / "log").open("a", encoding="utf-8") as log:
        log.write(f"{line}\n")


def _pace() -> float:
    if os.environ.get("SLURM_RESTART_COUNT"):
        return 0.0
    try:
        return float((_FOLDER / "pace").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0.0


def _wait(what: str) -> None:
    while (_FOLDER / f"hold-{what}").exists():
        time.sleep(0.05)


_add = Writer.add


def _add_slowly(self: Writer, part: int, *rest: object) -> str:
    time.sleep(_pace())
    _wait(f"shard{part}")
    name = _add(self, part, *rest)
    note("shard", entry=self.folder.name, part=part)
    return name


Writer.add = _add_slowly
_send = Wandb._send


def _send_and_hold(self: Wandb, copy):
    sent = _send(self, copy)
    note("run", run=copy.job.run_id)
    _wait("run")
    return sent


Wandb._send = _send_and_hold


@dataclass(frozen=True)
class Observed:
    """The mean length of activations by layer."""

    site: Site
    position: Position
    layers: tuple[int, ...] | None

    name: ClassVar[str] = "observed"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def __call__(self, stage, reference, activations, seed) -> Result:
        del reference, seed
        found = activations(stage, site=self.site, position=self.position, layers=self.layers)
        note("analysis", stage=stage.label)
        _wait(stage.label)
        if (_FOLDER / f"fail-{stage.label}").exists():
            raise ValueError(f"{stage.label} was to fail")
        lengths = np.linalg.norm(found.values, axis=2).mean(1)
        rows = tuple(
            Measurement("length", float(v), stage.label, layer=i, layer_type=t, n=len(found.ids))
            for v, i, t in zip(lengths, found.layers, found.layer_types, strict=True)
        )
        return Result(rows, headline={"length": rows[-1]})
