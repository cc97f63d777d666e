"""Probes trained on one kind of statement and tested on another, e.g. affirmed and negated ones.

Source:
    Buerger et al. 2024, 2407.12831.
"""

from dataclasses import replace
from itertools import permutations

import numpy as np

from olmo_stages.errors import DataError
from olmo_stages.heldout import Estimate
from olmo_stages.nested import cross_validate
from olmo_stages.probing.design import Design
from olmo_stages.types import Activations


def polarities(design: Design, acts: Activations) -> tuple[dict[str, Estimate], list[str]]:
    """AUROC by layer for each ordered pair of kinds, as `KIND->OTHER`, and what was left out."""
    found: dict[str, Estimate] = {}
    said: list[str] = []
    kinds = np.array([e.polarity for e in design.examples])
    names = sorted(set(kinds.tolist()) - {""})
    held_out = design.held_out
    for source, target in permutations(names, 2):
        try:
            probes = cross_validate(
                acts.values,
                held_out.labels,
                held_out.folds,
                design.recipe(acts),
                train=kinds == source,
                test=kinds == target,
            )
        except DataError as error:
            said.append(f"{source}->{target} left out: {error}")
            continue
        its = replace(held_out, folds=probes.folds)
        found[f"{source}->{target}"] = its.auroc(probes.score(acts.values))
    return found, said
