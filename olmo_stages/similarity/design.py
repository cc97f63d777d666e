"""Which rows are compared with which, and what is independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

FEWEST = 8
"""Groups of a minibatch, at least."""


@dataclass(frozen=True, eq=False)
class Design:
    """Structure of the rows of a comparison.

    Args:
        units: example of each row; the rows of one (its tokens) keep their order when rows are
            permuted.
        groups: what is independent (documents, paraphrases of one statement), and so left out of
            the tables, resampled and exchanged; a union of units.
        blocks: indices of the rows that are compared with one another; one block unless a measure
            works on minibatches. Groups are never cut.
    """

    units: Int[np.ndarray, " row"]
    groups: Int[np.ndarray, " row"]
    blocks: tuple[Int[np.ndarray, " _"], ...]

    @property
    def n_groups(self) -> int:
        """Number of independent groups."""
        return int(self.groups.max()) + 1

    @classmethod
    def of(
        cls,
        owners: Int[np.ndarray, " row"],
        groups: Sequence[str],
        batch: int | None = None,
        seed: int = 0,
    ) -> "Design":
        """Structure from the example of each row and the group of each example.

        Args:
            owners: index of each row's example.
            groups: group of each example.
            batch: rows of a minibatch, filled with whole groups in random order; None = one block.
            seed: of that order.
        """
        units = np.unique(owners, return_inverse=True)[1]
        names = np.unique(np.asarray(groups), return_inverse=True)[1][owners]
        members = np.unique(names, return_inverse=True)[1]
        everything = np.arange(len(owners))
        blocks = [everything] if batch is None else _batches(members, batch, seed)
        return cls(units, members, tuple(blocks))

    def block_of_row(self) -> Int[np.ndarray, " row"]:
        """Number of the block of each row."""
        found = np.empty(len(self.units), dtype=np.int64)
        for number, block in enumerate(self.blocks):
            found[block] = number
        return found


def _batches(
    groups: Int[np.ndarray, " row"], batch: int, seed: int
) -> list[Int[np.ndarray, " member"]]:
    """Rows of whole groups: `batch` of them and `FEWEST` groups, or more; the rest joins the last.

    A minibatch of one or two groups would leave nothing to compare that is independent.
    """
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)
    batches: list[list[int]] = [[]]
    for group in order.tolist():
        if len(batches[-1]) >= FEWEST and sizes[batches[-1]].sum() >= batch:
            batches.append([])
        batches[-1].append(group)
    last = batches[-1]
    if len(batches) > 1 and (len(last) < FEWEST or sizes[last].sum() < batch):
        batches[-2:] = [batches[-2] + last]
    return [np.flatnonzero(np.isin(groups, members)) for members in batches]


def permutations(design: Design, n: int, seed: int) -> Int[np.ndarray, "permutation row"]:
    """Rows of one side in new company: whole groups change places, and units within them.

    Groups change places with groups of as many units of the same sizes, within their block; the
    units of a group are shuffled among those of the same size; the rows of a unit (tokens) keep
    their order. Shuffling rows one by one would destroy what rows of a group share within either
    side, and the null would be too narrow.

    Args:
        design: structure of the rows.
        n: number of permutations.
        seed: the same seed gives the same permutations.

    Returns:
        `p` such that row `p[i]` of one side takes the place of its row `i`.

    Source:
        Winkler et al. 2015, Multi-level block permutation.
    """
    rng = np.random.default_rng(seed)
    found = np.tile(np.arange(len(design.units)), (n, 1))
    for block in design.blocks:
        for alike in _exchangeable(design, block):
            columns = np.array([np.concatenate(units) for units in alike])
            if columns.shape[1] == 1:
                found[:, columns[:, 0]] = rng.permuted(np.tile(columns[:, 0], (n, 1)), axis=1)
                continue
            for permutation in found:
                permutation[columns] = [
                    np.concatenate(_shuffled(alike[source], rng))
                    for source in rng.permutation(len(alike))
                ]
    return found


def exchangeable_groups(design: Design) -> int:
    """How many groups have another one to change places with."""
    return sum(
        len(alike)
        for block in design.blocks
        for alike in _exchangeable(design, block)
        if len(alike) > 1
    )


def _exchangeable(
    design: Design, block: Int[np.ndarray, " member"]
) -> list[list[list[np.ndarray]]]:
    """Groups of a block as lists of units, larger units first, sorted into classes of one shape."""
    order = block[np.lexsort((design.units[block], design.groups[block]))]
    found: dict[tuple[int, ...], list[list[np.ndarray]]] = {}
    for rows in np.split(order, np.flatnonzero(np.diff(design.groups[order])) + 1):
        units = np.split(rows, np.flatnonzero(np.diff(design.units[rows])) + 1)
        units.sort(key=len, reverse=True)
        found.setdefault(tuple(map(len, units)), []).append(units)
    return list(found.values())


def _shuffled(units: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Units in random order among those of the same size."""
    keys = rng.random(len(units))
    return [units[i] for i in sorted(range(len(units)), key=lambda i: (-len(units[i]), keys[i]))]
