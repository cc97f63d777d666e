"""Extraction of a model that is read block by block, into the same entries of the store."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from olmo_stages.activations.entry import Writer
from olmo_stages.activations.held_model import say
from olmo_stages.activations.request import Work
from olmo_stages.activations.rows import Rows
from olmo_stages.models.compute import Compute
from olmo_stages.progress import progress

Extracted = tuple[list[str], tuple[str, ...], dict[str, str]]
"""Names of the shards, the type of each block, and what was on each device."""


def extract(
    work: Work, writer: Writer, rows: Rows, cut: Sequence[Sequence[int]], compute: Compute
) -> Extracted:
    """Compute the shards of an entry that are not there yet, in one reading of the weights.

    Args:
        work: the stage's.
        writer: of the entry.
        rows: its examples.
        cut: the examples of each shard.
        compute: device, dtype and batches.

    Raises:
        ModelError: the checkpoint cannot be used.
        StoreError: the store cannot be written.
    """
    import torch

    from olmo_stages.models import layer_major, placement
    from olmo_stages.models.forward import Item
    from olmo_stages.models.loading import skeleton
    from olmo_stages.models.memory import TokenBudget

    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    device = compute.resolve_device()
    model = skeleton(work.stage, work.checkpoint, dtype=work.identity.dtype, device=device)
    ids = [[rows.ids[i] for i in part] for part in cut]
    names = [writer.finished(number, of_part) for number, of_part in enumerate(ids)]
    missing = [number for number, name in enumerate(names) if name is None]
    items = [
        [Item(rows.ids[i], rows.token_ids[i], rows.tokens(i)) for i in cut[n]] for n in missing
    ]
    label = work.stage.label
    budget = TokenBudget(compute.token_budget, lambda line: say(f"{label}: {line}"))
    n_steps = max(writer.layers) + 2
    root = writer.folder.parents[2]  # of the store; what an entry's folder holds belongs to it
    root.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="streamed-", dir=root) as scratch,
        progress(f"{label}: activations block by block", n_steps if missing else 0) as advance,
    ):
        if missing:
            memory = layer_major.Memory(budget, Path(scratch))
            found = layer_major.pooled(
                model, items, writer.captures, writer.layers, memory, advance
            )
            for number, of_part in zip(missing, found, strict=True):
                names[number] = writer.add(number, ids[number], of_part)
    shards = [name for name in names if name is not None]
    return shards, model.layer_types, {device: placement.name(device)}
