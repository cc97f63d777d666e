"""One stage's side of a comparison: its activations read layer by layer into tables."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from olmo_stages.dominant import VARIANTS, Variant
from olmo_stages.errors import DataError
from olmo_stages.parallel import in_threads
from olmo_stages.similarity.design import Design
from olmo_stages.similarity.features import Features
from olmo_stages.similarity.measure import Fitted, PairTable
from olmo_stages.similarity.tables import Comparison, Tables
from olmo_stages.types import Activations


@dataclass(frozen=True, eq=False)
class Plan:
    """What is made of every layer.

    Args:
        rows: rows of the activations that are compared.
        designs: structure of these rows, by number of rows in a batch (None = all together).
        tables: measures with pair tables, the main one first.
        fitted: measures that are fitted.
        n_halves: random halves of the dimensions that are compared with the rest.
        resolution: relative spread below which a dimension is rounding.
        seed: of the halves.
    """

    rows: Int[np.ndarray, " row"]
    designs: dict[int | None, Design]
    tables: tuple[PairTable, ...]
    fitted: tuple[Fitted, ...]
    n_halves: int
    resolution: float
    seed: int

    def design(self, measure: PairTable) -> Design:
        """Structure of the rows for one measure."""
        return self.designs[measure.batch]


@dataclass(frozen=True, eq=False)
class Layer:
    """What one layer is reduced to.

    Args:
        tables: by measure and variant, one array a block.
        reduced: by fitted measure and variant.
        lacking: why a measure other than the main one cannot be had of this layer, by measure, or
            the `ceiling`.
        halves: by variant, score and influences of the comparison of its own two halves.
        dominant: dimensions whose variance is far above the median.
        top: dimension with the largest variance.
        top_share: its share of the variance.
        row_share: largest share of a row in the sum of squared norms.
    """

    index: int
    kind: str
    tables: dict[tuple[str, Variant], list[np.ndarray]]
    reduced: dict[tuple[str, Variant], np.ndarray]
    lacking: dict[str, str]
    halves: dict[Variant, tuple[float, np.ndarray]]
    dominant: tuple[int, ...]
    top: int
    top_share: float
    row_share: float


@dataclass(frozen=True, eq=False)
class Side:
    """A stage in all layers.

    Args:
        label: of the stage.
        layers: one after another.
        model_digest: identity of the weights.
    """

    label: str
    layers: tuple[Layer, ...]
    model_digest: str

    @property
    def indices(self) -> tuple[int, ...]:
        """Block indices."""
        return tuple(layer.index for layer in self.layers)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Layer types."""
        return tuple(layer.kind for layer in self.layers)

    def tables(self, measure: PairTable, variant: Variant) -> Tables:
        """All layers' tables of one measure.

        Raises:
            DataError: the measure cannot be had of a layer.
        """
        for layer in self.layers:
            if measure.declared.name in layer.lacking:
                raise DataError(layer.lacking[measure.declared.name])
        parts = [layer.tables[measure.declared.name, variant] for layer in self.layers]
        blocks = tuple(np.stack(block) for block in zip(*parts, strict=True))
        return Tables(blocks, measure.order)

    def reduced(self, measure: Fitted, variant: Variant) -> list[np.ndarray]:
        """All layers, reduced for a fitted measure."""
        return [layer.reduced[measure.declared.name, variant] for layer in self.layers]


def read(
    layers: Iterator[Activations], plan: Plan, advance: Callable[[], None] = lambda: None
) -> Side:
    """Reduce a stage layer by layer; two layers of activations are in memory at a time.

    Args:
        layers: activations of one layer each; they are overwritten.
        plan: what to make of them.
        advance: called after each layer.
    """
    label, digest = "", ""
    found: list[Layer] = []

    def reduce(acts: Activations) -> tuple[Layer, str, str]:
        return _reduced(acts, plan), acts.stage.label, acts.model_digest

    for layer, label, digest in in_threads(reduce, layers):  # noqa: B007  (the same every time)
        found.append(layer)
        advance()
    return Side(label, tuple(found), digest)


def _reduced(acts: Activations, plan: Plan) -> Layer:
    values = acts.values[0]
    if len(plan.rows) < len(values):
        values = values[plan.rows]
    where = f"layer {acts.layers[0]} of {acts.stage.label}"
    features = Features.of(values, plan.resolution, where, overwrite=True)
    tables, lacking, row_share = _pair_tables(features, plan, where)
    reduced: dict[tuple[str, Variant], np.ndarray] = {}
    for measure in plan.fitted:
        for variant in VARIANTS:
            same = variant != "raw" and not len(features.dominant)
            name = measure.declared.name
            reduced[name, variant] = (
                reduced[name, "raw"] if same else measure.prepare(features.values(variant))
            )
    try:
        halves = _halves(features, plan)
    except DataError as error:
        halves, lacking["ceiling"] = {}, f"{where}: {error}"
    return Layer(
        index=acts.layers[0],
        kind=acts.layer_types[0],
        tables=tables,
        reduced=reduced,
        lacking=lacking,
        halves=halves,
        dominant=tuple(features.dominant.tolist()),
        top=features.top,
        top_share=features.top_share,
        row_share=row_share,
    )


def _pair_tables(
    features: Features, plan: Plan, where: str
) -> tuple[dict[tuple[str, Variant], list[np.ndarray]], dict[str, str], float]:
    """Tables by measure and variant, why others are lacking, and the largest share of a row.

    Raises:
        DataError: the main measure cannot be had of this layer.
    """
    tables: dict[tuple[str, Variant], list[np.ndarray]] = {}
    lacking: dict[str, str] = {}
    row_share = 0.0
    wanted = dict.fromkeys(measure.batch for measure in plan.tables)
    blocks = [(batch, rows) for batch in wanted for rows in plan.designs[batch].blocks]
    for batch, rows in blocks:
        grams = features.grams(VARIANTS, None if batch is None else rows)
        row_share = max(row_share, float(np.diag(grams["raw"]).max() / len(features.others)))
        groups = plan.designs[batch].groups[rows]
        for measure in (it for it in plan.tables if it.batch == batch):
            name = measure.declared.name
            try:
                for variant, table in _by_variant(measure, grams, groups):
                    tables.setdefault((name, variant), []).append(table)
            except DataError as error:
                if measure is plan.tables[0]:
                    raise DataError(f"{where}, {name}: {error}") from error
                lacking[name] = f"{where}: {error}"
    return tables, lacking, row_share


def _by_variant(
    measure: PairTable,
    grams: dict[Variant, np.ndarray],
    groups: Int[np.ndarray, " member"],
) -> list[tuple[Variant, np.ndarray]]:
    """Tables of one block; variants with the same Gram matrix share one."""
    made: dict[int, np.ndarray] = {}
    found: list[tuple[Variant, np.ndarray]] = []
    for variant, gram in grams.items():
        if id(gram) not in made:
            made[id(gram)] = measure.table(gram, groups)
        found.append((variant, made[id(gram)]))
    return found


def _halves(features: Features, plan: Plan) -> dict[Variant, tuple[float, np.ndarray]]:
    """Random halves of the dimensions against each other, averaged over several draws.

    Raises:
        DataError: a half does not vary, or the measure cannot be had of it.
    """
    if not plan.n_halves:
        return {}
    measure = plan.tables[0]
    design = plan.design(measure)
    d_model = features.others.shape[1]
    found: dict[Variant, tuple[float, np.ndarray]] = {}
    for variant in VARIANTS:
        if variant != "raw" and not len(features.dominant):
            found[variant] = found["raw"]
            continue
        values = features.values(variant)
        scores: list[float] = []
        influences: list[np.ndarray] = []
        # The same draws in every layer and stage of this width.
        rng = np.random.default_rng(plan.seed)
        for _ in range(plan.n_halves):
            order = rng.permutation(d_model)
            one, other = (_tables(values[:, part], measure, design) for part in _cut(order))
            pair = Comparison(one, other, design)
            scores.append(float(pair.value[0, 0]))
            influences.append(pair.influence[0, 0])
        found[variant] = float(np.mean(scores)), np.mean(influences, axis=0)
    return found


def _cut(order: Int[np.ndarray, " dimension"]) -> Sequence[Int[np.ndarray, " half"]]:
    middle = len(order) // 2
    return order[:middle], order[middle:]


def _tables(values: np.ndarray, measure: PairTable, design: Design) -> Tables:
    blocks = []
    for rows in design.blocks:
        part = values[rows]
        if not part.any():
            raise DataError(f"a random half of the dimensions, {values.shape[1]}, does not vary")
        blocks.append(measure.table(part @ part.T, design.groups[rows])[None])
    return Tables(tuple(blocks), measure.order)
