"""Which rows of the activations are compared, the same ones in every stage."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from olmo_stages.errors import DataError, PairingError
from olmo_stages.types import Activations


def owners_of(acts: Activations) -> Int[np.ndarray, " row"]:
    """Index of each row's example."""
    return np.arange(len(acts.ids)) if acts.owners is None else acts.owners


def chosen_rows(
    acts: Activations,
    groups: Sequence[str],
    *,
    per_example: int | None,
    most: int | None,
    seed: int,
) -> Int[np.ndarray, " chosen"]:
    """Rows to compare: few tokens of each example, then whole groups until there are enough.

    Args:
        acts: one side.
        groups: group of each example.
        per_example: tokens of each example, evenly spaced; None = all.
        most: largest number of rows; None = no limit.
        seed: of the choice of groups, which depends on their names only.

    Returns:
        Ascending indices of rows.

    Raises:
        DataError: no group fits into `most` rows, or fewer than 4 examples are left.
    """
    owners = owners_of(acts)
    rows = np.arange(len(owners))
    if acts.owners is not None and per_example is not None:
        rows = np.concatenate([
            mine[_spaced(len(mine), per_example)]
            for mine in np.split(rows, np.flatnonzero(np.diff(owners)) + 1)
        ])
    if most is not None and len(rows) > most:
        rows = _whole_groups(rows, np.asarray(groups)[owners[rows]], most, seed)
    n_examples = len(np.unique(owners[rows]))
    if n_examples < 4:
        raise DataError(
            f"{n_examples} examples to compare; similarity needs at least 4 (raise "
            "analysis.max_rows, or give more examples)"
        )
    return rows


def check_pair(one: Activations, other: Activations) -> str | None:
    """Refuse to compare different examples, or different tokens that nobody chose to compare.

    Prompts may differ by choice (`data.mix_formats`) where a row is an example. Where it is a token
    there is no telling which token of the one belongs to which of the other.

    Returns:
        What to say of prompts that differ by choice; None where they are the same.

    Raises:
        PairingError: says how many differ, and the first.
    """
    pair = f"{one.stage.label} and {other.stage.label}"
    if one.ids != other.ids:
        differ = len(set(one.ids) ^ set(other.ids))
        raise PairingError(
            f"{pair} hold different examples or another order ({len(one.ids)} and "
            f"{len(other.ids)}, {differ} in one side only); read both from the same data"
        )
    differ = [
        name for name, a, b in zip(one.ids, one.token_ids, other.token_ids, strict=True) if a != b
    ]
    if differ:
        said = f"{pair} see different token ids in {len(differ)} of {len(one.ids)} examples"
        pooled = one.owners is None and other.owners is None
        if pooled and one.mixed and other.mixed:
            return (
                f"{said}, by choice (data.mix_formats=true): what differs is partly the prompt, "
                "not the stage"
            )
        remedy = ", or compare them all the same with data.mix_formats=true" if pooled else ""
        raise PairingError(
            f"{said}, the first {differ[0]!r}; compare stages of one tokenizer in one format, e.g. "
            f"data.format=raw{remedy}"
        )
    if _read(one) != _read(other):
        raise PairingError(
            f"{pair} read other tokens of the same texts ({len(owners_of(one))} and "
            f"{len(owners_of(other))} rows): their tokenizers disagree on what is special; read "
            "another position, e.g. analysis.position=mean"
        )
    return None


def _read(acts: Activations) -> tuple[list[int], list[int]]:
    index = [] if acts.token_index is None else acts.token_index.tolist()
    return owners_of(acts).tolist(), index


def digest(acts: Activations, rows: Int[np.ndarray, " chosen"]) -> UInt8[np.ndarray, " byte"]:
    """Identity of what is compared, 32 bytes: examples, tokens, and the rows of them."""
    parts = [repr(acts.ids), repr(acts.token_ids), repr(_read(acts)), repr(rows.tolist())]
    found = hashlib.sha256("\n".join(parts).encode()).digest()
    return np.frombuffer(found, dtype=np.uint8)


def _spaced(n: int, wanted: int) -> Int[np.ndarray, " chosen"]:
    if n <= wanted:
        return np.arange(n)
    # The middle of each of `wanted` equal stretches.
    return ((np.arange(wanted) + 0.5) * n / wanted).astype(np.int64)


def _whole_groups(
    rows: Int[np.ndarray, " row"], groups: np.ndarray, most: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = sorted(
        range(len(names)), key=lambda i: hashlib.sha256(f"{seed}:{names[i]}".encode()).digest()
    )
    kept: list[int] = []
    total = 0
    for group in order:
        if total + sizes[group] <= most:
            kept.append(group)
            total += int(sizes[group])
    if not kept:
        raise DataError(
            f"no group fits into analysis.max_rows={most}: the smallest has {sizes.min()} rows"
        )
    return rows[np.isin(member, kept)]
