"""What the table of measurements is made of: rows that come and go together."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

MEASUREMENT, ACROSS, EMPTY = "measurement", "across", "empty"
"""Kinds of rows: a number of a job, a number of several jobs, a job without numbers."""

OF_A_MODEL = ("size", "revision", "source", "model_digest")

PER_ROW = (
    "job",
    "analysis",
    "data",
    "options",
    "stage",
    *OF_A_MODEL,
    "reference",
    *(f"reference_{name}" for name in OF_A_MODEL),
    "metric",
    "variant",
    "trait",
    "layer",
    "layer_type",
    "reference_layer",
    "reference_layer_type",
    "value",
    "ci_low",
    "ci_high",
    "null",
    "p",
    "p_max",
    "q",
    "n",
    "n_groups",
    "seed",
    "note",
    "job_stage",
    "job_reference",
    "data_digest",
    "job_digest",
    "result_digest",
    "folder",
)
"""Columns that say what a row is about."""

TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(["layer", "reference_layer", "n", "n_groups", "seed"], pa.int64()),
    **dict.fromkeys(["value", "ci_low", "ci_high", "null", "p", "p_max", "q"], pa.float64()),
}
"""Types of the columns that hold no texts."""

# What is the same in all rows of a block.
_KEY = (
    *("state", "error", "job", "analysis", "data", "options", "job_stage", "job_reference"),
    *("data_digest", "job_digest", "result_digest", "folder"),
)
_SWEEPS = ", "
_logger = logging.getLogger(__name__)

Model = Mapping[str, str]
"""Size, revision, source and digest of a model, under the names of the columns."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows that come and go together.

    Args:
        about: the columns that are the same in all of its rows.
        rows: the columns that are not; None for a job without numbers.
        sweeps: names of the sweeps that it is in.
        models: what is known of the models behind labels.
    """

    about: Mapping[str, str]
    rows: pa.Table | None = None
    sweeps: tuple[str, ...] = ()
    models: Mapping[str, Model] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What tells it from other blocks, wherever it was found."""
        named = (self.about.get(name, "") for name in ("job", "folder"))
        return self.about.get("job_digest") or "\n".join([*self.sweeps, *named])

    @property
    def result(self) -> str:
        """Identity of its numbers; empty where there are none."""
        return self.about.get("result_digest", "")

    def whole(self) -> pa.Table:
        """All columns, in any order."""
        rows = pa.table({"": pa.nulls(1)}) if self.rows is None else self.rows
        texts = {"sweep": _SWEEPS.join(self.sweeps), **self.about}
        found = {name: rows[name] for name in rows.column_names}
        # Rows of a saved table have them already.
        for side in () if "size" in found or self.rows is None else ("stage", "reference"):
            found |= _of_models(side, rows, self.models)
        found |= {name: pa.repeat(pa.scalar(str(it)), rows.num_rows) for name, it in texts.items()}
        for name in ("kind", "state", "error", *PER_ROW):
            if name not in found:
                kind = TYPES.get(name)
                blank = pa.repeat(pa.scalar(""), rows.num_rows)
                found[name] = blank if kind is None else pa.nulls(rows.num_rows, kind)
        return pa.table(found)


def _of_models(side: str, rows: pa.Table, models: Mapping[str, Model]) -> dict[str, pa.Array]:
    """The columns about the models behind labels; empty where nothing is known."""
    labels = rows[side].combine_chunks().dictionary_encode()
    known = [models.get(label, {}) for label in labels.dictionary.to_pylist()]
    prefix = "" if side == "stage" else f"{side}_"
    return {
        f"{prefix}{name}": pa.array([it.get(name, "") for it in known], pa.string()).take(
            labels.indices
        )
        for name in OF_A_MODEL
    }


def of_table(table: pa.Table) -> list[Block]:
    """Take a table apart into what it was made of."""
    frame = table.select([*_KEY, "kind", "sweep"]).to_pandas()
    blocks: list[Block] = []
    for indices in frame.groupby([*frame.columns], sort=False, dropna=False).indices.values():
        rows = table.take(pa.array(indices))
        (first,) = rows.slice(0, 1).select([*_KEY, "kind", "sweep"]).to_pylist()
        sides = rows.select(["stage", *OF_A_MODEL]).to_pylist() if rows.num_rows else []
        models = {it["stage"]: {name: it[name] for name in OF_A_MODEL} for it in sides}
        sweeps = tuple(filter(None, first.pop("sweep").split(_SWEEPS)))
        blocks.append(Block(first, rows.drop_columns(["sweep", *first]), sweeps, models))
    return blocks


def once(blocks: Iterable[Block]) -> list[Block]:
    """Keep of every job the first block with numbers, with all sweeps that it is in.

    Of two results of one job whose numbers differ, as two machines may make them, the first one is
    kept, with a warning. What has no numbers in one sweep and has them in another is left out.
    """
    kept: dict[str, Block] = {}
    for block in blocks:
        earlier = kept.setdefault(block.identity, block)
        sweeps = tuple(dict.fromkeys([*earlier.sweeps, *block.sweeps]))
        if earlier.result and block.result not in {"", earlier.result}:
            _logger.warning(
                "%s and %s are results of one job with different numbers; the first one is kept",
                *(it.about["folder"] for it in (earlier, block)),
            )
        best = earlier if earlier.result or not block.result else block
        kept[block.identity] = replace(best, sweeps=sweeps)
    done: dict[str, list[Block]] = {}
    for block in kept.values():
        if block.result:
            done.setdefault(block.about.get("job", ""), []).append(block)
    return [it for it in kept.values() if not _is_done(it, done.get(it.about.get("job", ""), ()))]


def _is_done(block: Block, done: Sequence[Block]) -> bool:
    """Whether a job without numbers has them elsewhere, under the same settings."""
    if block.result or not block.about.get("job"):
        return False
    own = _job_of(block)
    others = map(_job_of, done)
    return any(all(not it or it == other[name] for name, it in own.items()) for other in others)


def _job_of(block: Block) -> dict[str, str]:
    stage = block.about.get("job_stage", "")
    size = block.models.get(stage, block.about).get("size", "")
    return {"job_stage": stage, "analysis": block.about.get("analysis", ""), "size": size}
