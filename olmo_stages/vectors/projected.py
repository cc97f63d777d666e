"""What scores along a vector come to: rows, tensors and the table of examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from olmo_stages.heldout import Where
from olmo_stages.types import Example, Measurement, Table
from olmo_stages.vectors.readout import ANSWER, THINK, Readout, label_column
from olmo_stages.vectors.scores import Ruler
from olmo_stages.vectors.tasks import Task

CLASSES = {"positive": 1, "negative": 0}
ALL = "all"
"""Variant of the means over examples without labels."""

LEVEL = 0.05
"""p, over the maximum over layers, from which on scores are not said to know the labels."""

CHANCE = "not distinguishable from the null"
REVERSED = "scores fall with the label, more than under the null"
DIRECTIONLESS = "the source's classes have the same mean: no direction, no score"


@dataclass(frozen=True, eq=False)
class Projected:
    """Everything that was scored.

    Args:
        tasks: one a trait.
        where: the stage and its layers; the other side is that of the vector, if it is a job's.
        versus: the same with the reference, whose scores along the same vectors are taken off.
        rulers: one a layer.
        slots: for each example which of a ruler's directions it is scored along.
        readout: scores of single tokens, if they were asked for.
        has_units: whether 0 and 1 are the classes of the vector's data; else scores are raw.
    """

    tasks: tuple[Task, ...]
    where: Where
    versus: Where | None
    rulers: tuple[Ruler, ...]
    slots: np.ndarray
    readout: Readout | None
    has_units: bool = True

    def rows(self) -> list[Measurement]:
        """One number a layer each, in the order in which a reader asks for them."""
        return [row for task in self.tasks for row in self._of_task(task)]

    def _of_task(self, task: Task) -> Iterator[Measurement]:
        where = _About(self.where, task.trait, self._notes(task))
        if task.labelled:
            inference = task.inference()
            judged = replace(where, notes=_judged(where.notes, inference, task.below()))
            yield from judged.rows("projection_auroc", "", task.auroc(), **inference)
            yield from where.rows("projection_separation", "", task.separation())
        for name, of in (_classes(task) or {ALL: _every(task)}).items():
            yield from where.rows("projection", name, task.mean(task.units, of))
            yield from where.rows("projection_raw", name, task.mean(task.raw, of))
        if self.versus is not None:
            versus = replace(where, where=self.versus)
            for name, of in (_classes(task) or {ALL: _every(task)}).items():
                moved = task.mean(task.differences, of)
                yield from versus.rows("projection_difference", name, moved)
        if self.readout is not None:
            yield from self._parts(task, self.readout, where)

    def _parts(self, task: Task, readout: Readout, where: "_About") -> Iterator[Measurement]:
        """Means over each example's tokens of a part, then over examples."""
        means = {part: np.array(layers)[:, task.rows] for part, layers in readout.means.items()}
        has = {part: readout.counts[part][task.rows] > 0 for part in means}
        shown = {part: ("projection_part", means[part], has[part]) for part in means}
        if THINK in means and ANSWER in means:
            both = has[THINK] & has[ANSWER]
            difference = means[THINK] - means[ANSWER]
            shown[f"{THINK}-{ANSWER}"] = ("projection_part_difference", difference, both)
        for name, (metric, scores, chosen) in shown.items():
            classes = {f":{it}": of for it, of in _classes(task).items()}
            for suffix, of in ({"": _every(task)} | classes).items():
                if (chosen & of).any():
                    found = task.mean(list(scores), chosen & of)
                    yield from where.rows(metric, f"{name}{suffix}", found)

    def _notes(self, task: Task) -> list[str]:
        slots = np.unique(self.slots[task.rows])
        return ["" if (it.unit[slots] > 0).all() else DIRECTIONLESS for it in self.rulers]

    def tensors(self) -> dict[str, np.ndarray]:
        """`layers`, and for each trait its vectors, one a fold, with what makes units of scores.

        `T.directions` float32 [fold, layer, d_model], of length 1; `T.midpoints` and
        `T.separations` float64 [fold, layer]: a raw score is midpoint + (score - 0.5) * separation.
        """
        found: dict[str, np.ndarray] = {
            "layers": np.array(self.where.layers, dtype=np.int64),
        }
        for task in self.tasks:
            slots = np.unique(self.slots[task.rows])
            directions = np.stack([it.directions[slots] for it in self.rulers], axis=1)
            found[f"{task.trait}.directions"] = directions.astype(np.float32)
            for name, get in (("midpoints", "midpoint"), ("separations", "unit")):
                values = np.stack([getattr(it, get)[slots] for it in self.rulers], axis=1)
                found[f"{task.trait}.{name}"] = values
        return found

    def tables(self, examples: Sequence[Example]) -> dict[str, Table]:
        """`examples`: one row an example with its fold and a score a layer; `tokens` likewise.

        Without labels they have no column of them.
        """
        order = np.argsort(np.concatenate([task.rows for task in self.tasks]))
        numbers = np.concatenate([task.sample.folds for task in self.tasks])[order]
        scores = np.concatenate([np.array(task.units) for task in self.tasks], axis=1)[:, order]
        table: Table = {
            "example": [it.id for it in examples],
            "group": [it.group for it in examples],
            "trait": [it.trait for it in examples],
            **label_column(examples),
            "fold": numbers.astype(np.int32) if self.tasks[0].fitted else np.full_like(numbers, -1),
            **{
                f"layer_{layer}": column.astype(np.float32)
                for layer, column in zip(self.where.layers, scores, strict=True)
            },
        }
        found: dict[str, Table] = {"examples": table}
        if self.readout is not None:
            found["tokens"] = self.readout.table(examples)
        return found


def _every(task: Task) -> Bool[np.ndarray, " chosen"]:
    return np.ones(len(task.rows), dtype=bool)


def _classes(task: Task) -> dict[str, Bool[np.ndarray, " chosen"]]:
    """Which of its examples are of each class; nothing where there are no labels."""
    if not task.labelled:
        return {}
    return {name: task.of_class(label) for name, label in CLASSES.items()}


def _judged(
    notes: Sequence[str], inference: Mapping[str, Sequence[float]], below: Sequence[float]
) -> list[str]:
    """Notes that say in which layers scores do not rise with the label, as far as was tested."""
    if not inference:
        return list(notes)
    found: list[str] = []
    for note, above, under in zip(notes, inference["p_max"], below, strict=True):
        verdict = "" if above <= LEVEL else REVERSED if under <= LEVEL else CHANCE
        found.append(note or verdict)
    return found


@dataclass(frozen=True)
class _About:
    """Makes rows of a trait, each with what must be said of its layer."""

    where: Where
    trait: str
    notes: list[str]

    def rows(self, metric: str, variant: str, estimate, **per_head) -> list[Measurement]:  # noqa: ANN001, ANN003
        traits = [self.trait] * len(self.notes)
        return self.where.rows(metric, variant, estimate, trait=traits, note=self.notes, **per_head)
