"""The control task: what the same probes score on labels that can only be remembered.

Source:
    Hewitt & Liang 2019, 1909.03368.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from olmo_stages.controls import control_labels, control_types
from olmo_stages.data.splits import example_folds
from olmo_stages.heldout import Estimate
from olmo_stages.nested import cross_validate
from olmo_stages.probing.design import Design
from olmo_stages.types import Activations, Example


def control(
    design: Design, acts: Activations, *, n_folds: int, n_tasks: int, seed: int
) -> tuple[Estimate | None, str]:
    """Balanced accuracy by layer on labels drawn by type, each type being met in training.

    Args:
        design: how the probes are fitted.
        acts: what they read.
        n_folds: outer folds, which groups are spread over.
        n_tasks: random labellings whose mean is taken.
        seed: of the labels.

    Returns:
        The score, None where nothing repeats enough; and what must be said of it, or nothing.
    """
    found = control_types([e.group for e in design.examples], acts.token_ids)
    if found is None:
        return None, "no control task and no selectivity: neither groups nor tokens repeat enough"
    name, types = found
    known = [replace(e, group=kind) for e, kind in zip(design.examples, types, strict=True)]
    tasks = [
        _task(design, acts, known, n_folds, control_labels(types, f"{seed}:{task}"))
        for task in range(n_tasks)
    ]
    mean = replace(
        tasks[0],
        value=np.mean([task.value for task in tasks], axis=0),
        samples=np.mean([task.samples for task in tasks], axis=0),
    )
    said = "" if name == "group" else f"groups hardly repeat: the control task is about the {name}"
    return mean, said


def _task(
    design: Design,
    acts: Activations,
    known: Sequence[Example],
    n_folds: int,
    labels: Int[np.ndarray, " example"],
) -> Estimate:
    """One task; `known` are the examples in groups of one type, whose own labels play no part."""
    chosen = labels >= 0
    outer = np.full(len(labels), -1)
    pool = [e for e, c in zip(known, chosen, strict=True) if c]
    outer[chosen] = example_folds(pool, min(n_folds, len(pool)))
    recipe = replace(
        design.recipe(acts),
        split_inner=lambda rows: example_folds([known[i] for i in rows], design.n_inner),
    )
    labels = np.maximum(labels, 0)
    probes = cross_validate(acts.values, labels, outer, recipe, train=chosen)
    held_out = replace(design.held_out, labels=labels, folds=outer)
    return held_out.balanced_accuracy(probes.score(acts.values))
