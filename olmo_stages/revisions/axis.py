"""Where stages and revisions are on an axis of training, and which was trained from which.

Each run of revisions (a phase of pretraining, a fine-tuning) has a stretch of its own with a
logarithmic axis of the steps within it, since on a common one the later phases would be a hair's
breadth: those of a 7B are the last 4 % of its steps. A stage without other revisions is one place.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from olmo_stages.figures.axis import Axis
from olmo_stages.lineage import lineage_order
from olmo_stages.revisions.names import MAIN, Revision, in_order, parse
from olmo_stages.stages import catalogue

_RANDOM = " (random)"
_PER_DECADE = 1.5
_PER_POINT = 0.5
_BEFORE_FIRST = 0.75
_GAP = 1.0
_CLOSEST = 0.3


@dataclass(frozen=True)
class _Run:
    """Revisions of a stage that were trained one after another, or one label on its own."""

    stage: str
    title: str
    labels: tuple[str, ...]
    steps: tuple[int, ...]


def training_axis(labels: Iterable[str]) -> Axis:
    """Lay labels of stages out from left to right, in the order of the lineage and of training.

    Args:
        labels: of stages, as `Stage.label` gives them.

    Returns:
        Positions, texts, and the pairs that lines join: neighbours within a run, the end of a run
        and the beginning of the next, and a stage and the nearest ancestor that is there. What is
        no point of training (a random initialisation, a commit, an ablation) is joined to nothing.
    """
    by_stage = _by_stage(labels)
    at: dict[str, float] = {}
    ticks: dict[str, str] = {}
    titles: list[tuple[str, float, float]] = []
    told: dict[str, str] = {}
    right = 0.0
    for runs in by_stage.values():
        whole = len(runs) == 1 and not runs[0].steps
        for run in runs:
            places = _places(run.steps) if run.steps else [0.0]
            left = right + _GAP if at else 0.0
            at |= {label: left + x for label, x in zip(run.labels, places, strict=True)}
            right = left + places[-1]
            ticks |= _ticks(run, places, whole=whole)
            told |= _told(run)
            if run.steps:
                named = any(title.partition(" ")[0] == run.stage for title, *_ in titles)
                title = run.title.removeprefix(f"{run.stage} ") if named else run.title
                titles.append((title, left, right))
    joins = [pair for runs in by_stage.values() for pair in _within(runs)]
    joins += _between(by_stage)
    return Axis(at, ticks, tuple(titles), tuple(joins), told)


def _by_stage(labels: Iterable[str]) -> dict[str, list[_Run]]:
    """The runs of every stage, stages in the order of the lineage, their runs in that of training.

    A random initialisation is a stage of its own.
    """
    place = lineage_order()
    ordered = sorted(set(labels), key=place)
    stages: dict[str, list[_Run]] = {}
    for name, members in groupby(ordered, key=_name):
        stages[name] = list(_runs(name, tuple(members)))
    return stages


def _name(label: str) -> str:
    return label if label.endswith(_RANDOM) else label.partition("@")[0]


def _runs(name: str, labels: Sequence[str]) -> Iterator[_Run]:
    if name.endswith(_RANDOM):
        yield _Run(name, name, tuple(labels), ())
        return
    by_revision = {label.partition("@")[2] or MAIN: label for label in labels}
    known, others = in_order(by_revision)
    stepped = [it for it in known if it.step is not None]
    for _, members in groupby(stepped, key=lambda it: (it.phase or 1, it.line)):
        run = tuple(members)
        own = tuple(by_revision[it.name] for it in run)
        yield _Run(name, _title(name, run[0]), own, tuple(it.step or 0 for it in run))
    for revision in [*(it.name for it in known if it.step is None), *others]:
        yield _Run(name, name, (by_revision[revision],), ())


def _title(name: str, revision: Revision) -> str:
    parts = [
        name,
        "" if revision.phase is None else f"stage{revision.phase}",
        "" if revision.ingredient is None else f"ingredient{revision.ingredient}",
        revision.lr or "",
    ]
    return " ".join(filter(None, parts))


def _places(steps: Sequence[int]) -> list[float]:
    """Positions of ascending steps from 0 on, logarithmic; step 0 is a place before the others."""
    positive = [step for step in steps if step > 0]
    start = _BEFORE_FIRST if len(positive) < len(steps) and positive else 0.0
    if not positive:
        return [0.0] * len(steps)
    decades = math.log10(positive[-1] / positive[0])
    width = max(_PER_DECADE * decades, _PER_POINT * (len(positive) - 1))
    scale = width / decades if decades else 0.0
    logs = [start + scale * math.log10(step / positive[0]) for step in positive]
    return [*([0.0] if start else []), *logs]


def _ticks(run: _Run, places: Sequence[float], *, whole: bool) -> dict[str, str]:
    """Text below each label; empty where the next one would be written over it."""
    if not run.steps:
        revision = run.labels[0].partition("@")[2]
        return {run.labels[0]: run.stage if whole or not revision else revision}
    texts: dict[str, str] = {}
    right = math.inf
    for label, step, place in reversed(list(zip(run.labels, run.steps, places, strict=True))):
        fits = right - place >= _CLOSEST
        texts[label] = short(step) if fits else ""
        right = place if fits else right
    return texts


def short(step: int) -> str:
    """Return a step as an axis has room for: 300, 3k, 1.41M."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if step >= unit:
            return f"{step / unit:.3g}{name}"
    return str(step)


def _told(run: _Run) -> dict[str, str]:
    if not run.steps:
        return {label: label for label in run.labels}
    pairs = zip(run.labels, run.steps, strict=True)
    return {label: f"{run.title}, step {step}" for label, step in pairs}


def _phase(run: _Run) -> int:
    """Phase of a run; after all phases the released model; -1 = no point of training."""
    revision = parse(run.labels[0].partition("@")[2] or MAIN)
    if run.stage.endswith(_RANDOM) or revision is None:
        return -1
    return 10 if revision.step is None else revision.phase or 1


def _phases(runs: Sequence[_Run]) -> list[list[_Run]]:
    """Runs side by side together, in the order of training; what is no point of it is left out."""
    trained = [run for run in runs if _phase(run) >= 0]
    return [list(group) for _, group in groupby(trained, key=_phase)]


def _within(runs: Sequence[_Run]) -> Iterator[tuple[str, str]]:
    phases = _phases(runs)
    for run in (run for phase in phases for run in phase):
        yield from pairwise(run.labels)
    for before, after in pairwise(phases):
        for one in before:
            for other in after:
                yield one.labels[-1], other.labels[0]


def _between(by_stage: Mapping[str, Sequence[_Run]]) -> Iterator[tuple[str, str]]:
    """Join each stage to the nearest ancestor that has a place."""
    specs = catalogue()
    for name, runs in by_stage.items():
        phases = _phases(runs)
        start = _ancestor(name, by_stage, specs)
        if phases and start is not None:
            for run in phases[0]:
                yield start, run.labels[0]


def _ancestor(
    name: str, by_stage: Mapping[str, Sequence[_Run]], specs: Mapping[str, Mapping[str, Any]]
) -> str | None:
    seen = {name}
    current = name
    while True:
        given = specs.get(current, {}).get("parent")
        parents = [*given.values()] if isinstance(given, Mapping) else [given]
        parents = [it for it in parents if it and it.partition("@")[0] not in seen]
        if not parents:
            return None
        # Where sizes have different parents, the one farthest down that has a place is that of
        # this size.
        order = list(by_stage)
        there = [it for it in parents if it.partition("@")[0] in order]
        there.sort(key=lambda it: order.index(it.partition("@")[0]))
        before = (there or parents)[-1]
        current, _, revision = before.partition("@")
        seen.add(current)
        label = _end(before, by_stage[current], revision) if current in by_stage else None
        if label is not None:
            return label


def _end(label: str, runs: Sequence[_Run], revision: str) -> str | None:
    """The label of a revision, or the last of a stage's; None if it has no trained one."""
    if revision and any(label in run.labels for run in runs):
        return label
    phases = _phases(runs)
    return phases[-1][-1].labels[-1] if phases else None
