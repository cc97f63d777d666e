"""Scores of all pairs of layers from one pair table a layer, with their inference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from jaxtyping import Bool, Float, Int
from scipy import stats

from olmo_stages.estimates import LEVEL
from olmo_stages.parallel import in_threads
from olmo_stages.similarity.centring import same_unit
from olmo_stages.similarity.design import Design

CHUNK = 1 << 15
"""Pairs of rows that are multiplied at a time under a permutation; stays in the cache."""


ROWS = 64
"""Rows of the tables that one thread multiplies at a time."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Pair tables of several layers of one side.

    Args:
        blocks: one array a block of the design.
        order: see `PairTable.order`.
    """

    blocks: tuple[Float[np.ndarray, "layer _ _"], ...]
    order: Literal[1, 2]

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.blocks[0])

    def packed(self) -> Float[np.ndarray, "layer pair"]:
        """Every pair once, in units of the root mean square, in 16 bits."""
        parts = [
            block[:, *np.triu_indices(block.shape[1])]
            if self.order == 2
            else block.reshape(len(block), -1)
            for block in self.blocks
        ]
        flat = np.concatenate(parts, axis=1)
        scale = np.sqrt(np.square(flat).mean(axis=1, keepdims=True, dtype=np.float64))
        flat /= scale.astype(flat.dtype)
        # No entry can be above the root of their number, far below the largest 16-bit number.
        return flat.astype(np.float16)

    @classmethod
    def unpacked(
        cls, packed: Float[np.ndarray, "layer pair"], design: Design, order: Literal[1, 2]
    ) -> "Tables":
        """The tables that were packed, up to scale and 16-bit rounding.

        Scores agree to about 1e-3 over the square root of the number of pairs: 1e-5 for 100 rows.
        """
        blocks: list[np.ndarray] = []
        start = 0
        for block in design.blocks:
            n = len(block)
            full = np.zeros((len(packed), n, n), dtype=np.float32)
            if order == 2:
                upper = np.triu_indices(n)
                full[:, *upper[::-1]] = packed[:, start : start + len(upper[0])]
                full[:, *upper] = packed[:, start : start + len(upper[0])]
                start += len(upper[0])
            else:
                full[:] = packed[:, start : start + n * n].reshape(full.shape)
                start += n * n
            blocks.append(full)
        return cls(tuple(blocks), order)


class Comparison:
    """Two sides' tables over the same rows.

    Attributes:
        value: cosine of every pair of layers; exactly 1 where both tables are the same.
        error: standard error of each, over groups.
    """

    def __init__(self, x: Tables, y: Tables, design: Design) -> None:
        self.x, self.y, self.design = x, y, design
        cross, own_x, own_y = _Sums.cross(x, y, design), _Sums.own(x, design), _Sums.own(y, design)
        self.norm = np.sqrt(np.outer(own_x.total, own_y.total))
        self.value = np.clip(cross.total / self.norm, -1.0, 1.0)
        # Infinitesimal jackknife: what the score loses per unit of a group's weight.
        self.influence = cross.by_group / self.norm[..., None] - self.value[..., None] / 2 * (
            (own_x.by_group / own_x.total[:, None])[:, None]
            + (own_y.by_group / own_y.total[:, None])[None]
        )
        self._same = _equal(x, y)
        for i, j in self._same:
            self.value[i, j], self.influence[i, j] = 1.0, 0.0
        self.error = standard_error(self.influence)

    def resampled(
        self, weights: Float[np.ndarray, "resample row"]
    ) -> Float[np.ndarray, "resample layer"]:
        """The diagonal under weights of the rows; the tables keep their centring.

        Centring anew changes a resample to second order only: the derivative of HSIC with respect
        to the centring is zero, because centred tables have zero row sums.

        Args:
            weights: multiplicities, equal within a group.
        """
        blocks = [
            (weights[:, it].astype(np.float32), self._inside(it)) for it in self.design.blocks
        ]

        def one(layer: int) -> np.ndarray:
            if (layer, layer) in self._same:
                return np.ones(len(weights))
            sums = np.zeros((3, len(weights)))
            for index, (own, inside) in enumerate(blocks):
                a, b = self.x.blocks[index][layer], self.y.blocks[index][layer]
                for which, product in enumerate((a * b, a * a, b * b)):
                    sums[which] += _weighted(product, own, inside)
            # A resample may hold one group many times over, and so no pair at all.
            with np.errstate(invalid="ignore", divide="ignore"):
                return sums[0] / np.sqrt(sums[1] * sums[2])

        diagonal = range(min(self.x.n_layers, self.y.n_layers))
        return np.stack(list(in_threads(one, diagonal)), axis=1)

    def _inside(
        self, block: Int[np.ndarray, " member"]
    ) -> Bool[np.ndarray, "member member"] | None:
        groups = self.design.groups[block]
        return same_unit(groups) if np.bincount(groups).max() > 1 else None

    def null(
        self,
        permutations: Int[np.ndarray, "permutation row"],
        advance: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "permutation layer other"]:
        """Scores of all pairs of layers with the rows of the second side permuted.

        Args:
            permutations: see `olmo_stages.similarity.design.permutations`.
            advance: called after each permutation.
        """
        found = np.zeros((len(permutations), self.x.n_layers, self.y.n_layers))
        for index, block in enumerate(self.design.blocks):
            place = np.empty(len(self.design.units), dtype=np.int64)
            place[block] = np.arange(len(block))
            pairs = _Pairs(self.x.blocks[index], self.y.blocks[index], self.x.order)
            moved = (place[permutation[block]] for permutation in permutations)
            for number, product in enumerate(in_threads(pairs.product, moved)):
                found[number] += product
                if index == len(self.design.blocks) - 1:
                    advance()
        return found / self.norm


class _Pairs:
    """Tables of one block, pair by pair, so that a permutation moves whole rows of memory."""

    def __init__(
        self,
        x: Float[np.ndarray, "layer member member"],
        y: Float[np.ndarray, "other member member"],
        order: Literal[1, 2],
    ) -> None:
        n = x.shape[1]
        self.n, self.order = n, order
        self.rows, self.columns = np.triu_indices(n) if order == 2 else np.indices((n, n))
        self.rows, self.columns = self.rows.ravel(), self.columns.ravel()
        self.x = np.ascontiguousarray(x[:, self.rows, self.columns])
        if order == 2:
            self.x[:, self.rows == self.columns] /= 2
        self.y = np.ascontiguousarray(y.reshape(len(y), -1).T)

    def product(self, permutation: Int[np.ndarray, " member"]) -> Float[np.ndarray, "layer other"]:
        total = np.zeros((len(self.x), self.y.shape[1]))
        buffer = np.empty((CHUNK, self.y.shape[1]), dtype=self.y.dtype)
        for start in range(0, len(self.rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            moved = permutation[self.rows[chunk]] * self.n + permutation[self.columns[chunk]]
            # "clip" lets numpy write into the buffer directly; every index is in range.
            taken = np.take(self.y, moved, axis=0, out=buffer[: len(moved)], mode="clip")
            total += self.x[:, chunk] @ taken
        return self.order * total


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sum of products of two tables, and what a unit more of a group's weight adds to it."""

    total: np.ndarray
    by_group: np.ndarray

    @classmethod
    def cross(cls, x: Tables, y: Tables, design: Design) -> "_Sums":
        """Of every pair of layers."""

        def rows(i: int, axis: int) -> np.ndarray:
            # One small product a row of the tables: [member, layer, other].
            a, b = (np.moveaxis(side.blocks[i], axis, 0) for side in (x, y))

            def part(members: slice) -> np.ndarray:
                return np.matmul(a[members], b[members].transpose(0, 2, 1))

            return _by_parts(part, len(a))

        def inside(i: int, members: np.ndarray) -> np.ndarray:
            square = np.ix_(members, members)
            a, b = (it[i][:, *square].reshape(len(it[i]), -1) for it in (x.blocks, y.blocks))
            return a.astype(np.float64) @ b.T

        return cls._of(rows, inside, design, x)

    @classmethod
    def own(cls, x: Tables, design: Design) -> "_Sums":
        """Of each layer with itself."""

        def rows(i: int, axis: int) -> np.ndarray:
            a = np.moveaxis(x.blocks[i], axis, 0)

            def part(members: slice) -> np.ndarray:
                return np.einsum("alb,alb->al", a[members], a[members])

            return _by_parts(part, len(a))

        def inside(i: int, members: np.ndarray) -> np.ndarray:
            part = x.blocks[i][:, *np.ix_(members, members)].astype(np.float64)
            return np.square(part).sum(axis=(1, 2))

        return cls._of(rows, inside, design, x)

    @classmethod
    def _of(
        cls,
        rows: Callable[[int, int], np.ndarray],
        inside: Callable[[int, np.ndarray], np.ndarray],
        design: Design,
        tables: Tables,
    ) -> "_Sums":
        total, by_group = 0.0, []
        for index, block in enumerate(design.blocks):
            _, member = np.unique(design.groups[block], return_inverse=True)
            found = rows(index, 1).astype(np.float64)
            total = total + found.sum(axis=0)
            # A pair gains from the weight of either row, and one within a group only once.
            gains = found + (found if tables.order == 2 else rows(index, 2))
            order = np.argsort(member, kind="stable")
            starts = np.flatnonzero(np.diff(member[order], prepend=-1))
            gains = np.add.reduceat(gains[order], starts)
            hollow = not np.einsum("laa->la", tables.blocks[index]).any()
            for group in np.flatnonzero(np.bincount(member) > int(hollow)):
                gains[group] -= inside(index, np.flatnonzero(member == group))
            by_group.append(gains)
        return cls(np.asarray(total), np.moveaxis(np.concatenate(by_group), 0, -1))


def _by_parts(work: Callable[[slice], np.ndarray], n: int) -> np.ndarray:
    """Do `work` on `ROWS` rows at a time, in threads where that is more than one part."""
    if n <= ROWS:
        return work(slice(0, n))
    parts = [slice(start, start + ROWS) for start in range(0, n, ROWS)]
    return np.concatenate(list(in_threads(work, parts)))


def standard_error(influence: Float[np.ndarray, "... group"]) -> Float[np.ndarray, "..."]:
    """Standard error of a score from the influence of each independent group; NaN if only one."""
    n = influence.shape[-1]
    if n < 2:
        return np.full(influence.shape[:-1], np.nan)
    return np.sqrt(n / (n - 1) * influence.var(axis=-1) * n)


def fisher_interval(value: float, error: float, n: int) -> tuple[float, float]:
    """Interval of a cosine from its standard error, symmetric after Fisher's z.

    Args:
        value: the cosine.
        error: its standard error; NaN = unknown, as are the ends then.
        n: number of independent groups behind the error.
    """
    if error == 0:
        return value, value
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * error
    if not half < 1 - abs(value):
        # The transformation is for errors that are small beside the distance from the end.
        return float(value - half), float(value + half)
    z, half = np.arctanh(value), half / (1 - value**2)
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _weighted(
    product: Float[np.ndarray, "member member"],
    weights: Float[np.ndarray, "resample member"],
    inside: Bool[np.ndarray, "member member"] | None,
) -> Float[np.ndarray, " resample"]:
    """Sum of products of two tables in each resample.

    Args:
        product: of the tables.
        weights: of the rows, float32.
        inside: pairs of rows of one group; None = no group has two rows.
    """
    total = np.einsum("bm,bm->b", weights @ product, weights, dtype=np.float64)
    # Copies of a group are not compared with one another: a pair within it counts once a copy.
    kept = np.diag(product) if inside is None else np.where(inside, product, 0).sum(axis=1)
    return total - (weights.astype(np.float64) ** 2 - weights) @ kept


def _equal(x: Tables, y: Tables) -> list[tuple[int, int]]:
    """Pairs of layers whose tables are the same, number by number."""
    digests = [
        [
            tuple(
                xxhash.xxh3_128_digest(np.ascontiguousarray(block[i]).data) for block in side.blocks
            )
            for i in range(side.n_layers)
        ]
        for side in (x, y)
    ]
    return [(i, j) for i, a in enumerate(digests[0]) for j, b in enumerate(digests[1]) if a == b]
