"""Folds for cross-validation, keyed by names and never by a seed or by the order of the rows.

The same examples therefore fall into the same folds for every stage, on every machine, and two
stages can be compared example by example on held-out data.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from olmo_stages.errors import DataError
from olmo_stages.types import Example, labels_of


def folds(examples: Sequence[Example], n_folds: int) -> Int[np.ndarray, " example"]:
    """Fold of each example, whole groups together, both classes spread evenly.

    Groups go, largest first, to the fold where they least add to the squared share of each class;
    ties in size are broken by the hash of the group's name.

    Args:
        examples: labelled examples, in any order.
        n_folds: number of folds, at least 2.

    Returns:
        Index of the fold, 0 to n_folds - 1, of each example.

    Raises:
        DataError: a class has fewer groups than there are folds, a fold would lack a class, or an
            example has no label.
    """
    _check_request(examples, n_folds)
    sizes: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for example, label in zip(examples, labels_of(examples).tolist(), strict=True):
        sizes[example.group][label] += 1
    _check_groups_per_class(sizes, n_folds)
    total = np.sum(list(sizes.values()), axis=0)
    order = sorted(sizes, key=lambda group: (-sizes[group].sum(), _hash(group)))
    filled = np.zeros((n_folds, 2))
    fold_of_group: dict[str, int] = {}
    for group in order:
        share, added = filled / total, sizes[group] / total
        # Growth of the sum of squared shares; rounded so that ties are ties on every machine.
        cost = np.round(((share + added) ** 2 - share**2).sum(axis=1), 12)
        fold_of_group[group] = int(np.argmin(cost))
        filled[fold_of_group[group]] += sizes[group]
    if (filled == 0).any():
        fold, label = np.argwhere(filled == 0)[0]
        raise DataError(
            f"with {n_folds} folds fold {fold} holds no example of label {label}, because groups "
            "are too unequal; ask for fewer folds or use smaller groups"
        )
    return np.array([fold_of_group[example.group] for example in examples], dtype=np.int64)


def example_folds(examples: Sequence[Example], n_folds: int) -> Int[np.ndarray, " example"]:
    """Fold of each example, every group spread over the folds: for control tasks only.

    A control task labels whole groups at random (Hewitt & Liang 1909.03368), which can be learned
    only by remembering the groups; so each group must be met in training.

    Args:
        examples: examples, in any order; labels are not looked at.
        n_folds: number of folds, at least 2.

    Returns:
        Index of the fold, 0 to n_folds - 1, of each example; fold sizes differ by at most one.

    Raises:
        DataError: fewer examples than folds.
    """
    _check_request(examples, n_folds)
    order = sorted(examples, key=lambda e: (_hash(e.group), e.group, _hash(e.id)))
    fold_of_id = {example.id: rank % n_folds for rank, example in enumerate(order)}
    return np.array([fold_of_id[example.id] for example in examples], dtype=np.int64)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8")).hexdigest()


def _check_request(examples: Sequence[Example], n_folds: int) -> None:
    if n_folds < 2:
        raise DataError(f"{n_folds} folds leave nothing to test on; ask for at least 2")
    if len(examples) < n_folds:
        raise DataError(
            f"{len(examples)} examples cannot fill {n_folds} folds; ask for fewer folds"
        )
    repeated = [name for name, n in Counter(e.id for e in examples).items() if n > 1]
    if repeated:
        raise DataError(f"example id {repeated[0]!r} occurs more than once; ids must be unique")


def _check_groups_per_class(sizes: dict[str, np.ndarray], n_folds: int) -> None:
    n_groups = [sum(bool(size[label]) for size in sizes.values()) for label in (0, 1)]
    if min(n_groups) == 0:
        raise DataError(
            f"every example has label {int(n_groups[0] == 0)}; add examples of the other class"
        )
    if min(n_groups) < n_folds:
        raise DataError(
            f"label {int(np.argmin(n_groups))} occurs in {min(n_groups)} groups, fewer than the "
            f"{n_folds} folds (label 0: {n_groups[0]} groups, label 1: {n_groups[1]}); ask for at "
            f"most {min(n_groups)} folds or add groups"
        )
