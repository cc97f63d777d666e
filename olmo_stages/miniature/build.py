"""Training one stage and publishing its checkpoints; run as a module, a worker of `family`.

A worker reads names of stages from its standard input, one a line, and writes one JSON object a
line to its standard output: `{"stage": ..., "state": ..., "step": n, "what": ...}`. States are
`waiting` (what = who builds it), `training`, `done` and `failed` (what = why, in one line).
"""

import json
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from olmo_stages.errors import StoreError
from olmo_stages.leases import HEARTBEAT_S
from olmo_stages.miniature.recipe import DPO, PARENTS, SFT, Recipe, chats, family
from olmo_stages.once import make_once
from olmo_stages.stopping import listening

Notify = Callable[[str, int, str], None]
"""Called with a state, the number of steps that are done, and what there is to tell."""


def train(
    stage: str, recipe: Recipe, seed: int, parent: Path | None, into: Path, notify: Notify
) -> None:
    """Train a stage and write one directory a revision; the result depends on nothing else.

    Args:
        stage: name.
        recipe: lengths and learning rates.
        seed: of the family; each stage draws its own from it.
        parent: checkpoint to start from; None for a base model.
        into: existing directory for the revisions.
        notify: called after each step.
    """
    from olmo_stages.miniature import grpo, model, posttrain, pretrain  # slow imports

    own_seed = zlib.crc32(f"{seed} {stage}".encode())
    steps = iter(range(1, recipe.n_steps(stage) + 1))
    chat = chats(stage)
    trained = (
        model.new_model(recipe.architecture, own_seed, family(stage))
        if parent is None
        else model.load_model(parent)
    )

    def save(revision: str) -> None:
        model.save_checkpoint(trained, into / revision, chat=chat)

    def progress() -> None:
        notify("training", next(steps), "")

    if parent is None:
        pretrain.pretrain(trained, recipe.pretraining(stage), recipe, own_seed, save, progress)
        return
    options = recipe.post[stage]
    if isinstance(options, SFT):
        posttrain.sft(trained, options, own_seed, save, progress)
    elif isinstance(options, DPO):
        posttrain.dpo(trained, options, own_seed, save, progress)
    else:
        traces = stage.startswith("think")
        grpo.rlvr(trained, options, own_seed, save, progress, traces=traces)


def publish(
    stage: str,
    recipe: Recipe,
    seed: int,
    home: Path,
    notify: Notify,
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Build a stage whose parent exists, unless it exists; of all processes one builds it.

    The stage's directory appears whole, by one rename. A killed build leaves a hidden directory
    that nothing reads and that the next build of the stage removes.

    Args:
        stage: name.
        recipe: lengths and learning rates.
        seed: of the family.
        home: directory of this recipe and seed.
        notify: called after each step, and when another process is building the stage.
        heartbeat_s: seconds between two signs of life.

    Raises:
        StoreError: the disk is full or the place cannot be written.
    """
    parent = PARENTS[stage]
    start = None if parent is None else home / parent / "main"

    def fill(hidden: Path) -> None:
        train(stage, recipe, seed, start, hidden, notify)

    make_once(
        home / stage,
        fill,
        on_wait=lambda owner: notify("waiting", 0, owner),
        heartbeat_s=heartbeat_s,
    )


def main() -> None:
    """Build the stages named on standard input; the job is the only argument, as JSON."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)  # two spinning threads on a busy machine are up to 30 times slower
    logging.disable_progress_bar()
    job = json.loads(sys.argv[1])
    with listening():
        for line in sys.stdin:
            _build(line.strip(), job)


def _build(stage: str, job: Mapping[str, Any]) -> None:
    """Build a stage and report how it goes."""

    def notify(state: str, step: int, what: str) -> None:
        event = {"stage": stage, "state": state, "step": step, "what": what}
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()

    recipe, home = Recipe.from_json(job["recipe"]), Path(job["home"])
    try:
        publish(stage, recipe, job["seed"], home, notify, job["heartbeat_s"])
    except StoreError as error:
        notify("failed", 0, str(error))
    else:
        notify("done", 0, "")


if __name__ == "__main__":
    main()
