"""The figures of a section: all stages over layers, those of the jobs, those of all together."""

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from olmo_stages.document import Choice, Figure
from olmo_stages.errors import ConfigError, StoreError
from olmo_stages.figures.overlay import stage_curves
from olmo_stages.report.behind import draws, meta_of, part_of, rows_behind
from olmo_stages.report.captions import said_of
from olmo_stages.report.kept import Done, Kept
from olmo_stages.report.parts import Part
from olmo_stages.types import Measurement

_REFERENCE = "reference"
"""Variant of what a job says of its reference as it says it of its stage."""

_BREAK = re.compile(r"<br\s*/?>")
# What the titles of the figures of several jobs have in common ends in such words.
_JOINTS = frozenset({"of", "against", "and", "with", "from", "to", "vs", "between", "in", "for"})


@dataclass(frozen=True, eq=False)
class Main:
    """The number that an analysis leads with, over layers.

    Args:
        metric: of the rows.
        variant: of the rows.
        of_jobs: the rows of each job that it is about.
        names: of these jobs.
    """

    metric: str
    variant: str
    of_jobs: tuple[tuple[Measurement, ...], ...]
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """In words."""
        return self.metric.replace("_", " ")

    @property
    def traits(self) -> list[str]:
        """What the rows are about."""
        return list(dict.fromkeys(row.trait for rows in self.of_jobs for row in rows))


def main_rows(part: Part) -> Main | None:
    """The number that the analysis leads with, at each layer; None where there is none.

    It is what the analysis says of a change, where that is known at each layer; else the metric
    that comes first in most of the jobs that compare two stages, or of all where none does. The
    main variant is the one named like the analysis, or without a name, or else that of the first
    row. Metrics over pairs of layers are no curve. A stage compared with itself is left out where
    others are compared.
    """
    asked = [job for job in part.jobs if _compares(job)] or part.jobs
    firsts = [own[0] for job in asked if (own := _curves(job))]
    if not firsts:
        return None
    metric, variant = _of_change(part, asked) or _most(part, asked, firsts)
    curves = [
        [row for row in _curves(job) if (row.metric, row.variant) == (metric, variant)]
        for job in part.jobs
    ]
    alone = all(row.reference == row.stage for rows in curves for row in rows)
    of_jobs = [tuple(row for row in rows if alone or row.reference != row.stage) for rows in curves]
    shown = [
        (name, rows)
        for job, name, rows in zip(part.jobs, job_names(part.jobs), of_jobs, strict=True)
        if rows or _compares(job)
    ]
    return Main(metric, variant, tuple(rows for _, rows in shown), tuple(name for name, _ in shown))


def _compares(job: Done) -> bool:
    return job.reference not in {"", job.stage}


def _curves(job: Done) -> list[Measurement]:
    """What a job says of single layers."""
    about = [row for row in job.rows if row.layer is not None]
    pairs = {row.metric for row in about if row.pairs_layers}
    return [row for row in about if row.metric not in pairs]


def _of_change(part: Part, jobs: Sequence[Done]) -> tuple[str, str] | None:
    """Metric and variant of the first change that is known at each layer."""
    known = {(row.metric, row.variant) for job in jobs for row in _curves(job)}
    named = ((it.metric, it.variant) for it in part.changes)
    return next((it for it in named if it in known), None)


def _most(part: Part, jobs: Sequence[Done], firsts: Sequence[Measurement]) -> tuple[str, str]:
    """The metric that comes first in most jobs, and its main variant."""
    metrics = [row.metric for row in firsts]
    metric = max(metrics, key=metrics.count)
    variants = [row.variant for job in jobs for row in _curves(job) if row.metric == metric]
    return metric, next((it for it in (part.analysis, "") if it in variants), variants[0])


def job_names(jobs: Sequence[Done]) -> list[str]:
    """What tells jobs apart: the stage, its reference where they have several."""
    several = len({job.reference for job in jobs} - {""}) > 1
    names = [
        f"{job.stage} vs {job.reference}" if several and job.reference else job.stage
        for job in jobs
    ]
    return [
        f"{name} ({job.digest[:8]})" if names.count(name) > 1 else name
        for name, job in zip(names, jobs, strict=True)
    ]


def figures(part: Part, labels: Sequence[str] = ()) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """The figures of a part, and what is wrong with those that are left out.

    Args:
        part: the jobs.
        labels: of all stages of the report, so that each looks the same in every figure.
    """
    notes: list[str] = []
    of_all = list(_of_all(part, notes))
    main = main_rows(part)
    over_layers = [it for it in of_all if main is not None and _shows(it, main)]
    if main is not None and not over_layers:
        over_layers = list(_overlay(part, main, labels, notes))
    rest = [it for it in of_all if it not in over_layers]
    found = [*over_layers, *_of_jobs(part, notes), *rest]
    keys = _unique([_safe(it.key) for it in found])
    named = [
        Figure(key, it.title, it.caption, it.choices) for key, it in zip(keys, found, strict=True)
    ]
    return tuple(named), tuple(notes)


def _shows(figure: Figure, main: Main) -> bool:
    """Whether the analysis itself has drawn its main number of all jobs, over layers."""
    return draws(meta_of(json.loads(figure.choices[0].plotly)), main.metric, main.variant)


def _overlay(part: Part, main: Main, labels: Sequence[str], notes: list[str]) -> Iterator[Figure]:
    """All stages over layers, a choice for each trait; nothing for a single job."""
    if len(part.jobs) < 2:
        return
    title = f"{main.name} by layer, all stages"
    found = [row for rows in main.of_jobs for row in rows]
    if main.variant != _REFERENCE:
        found += [
            row
            for job in part.jobs
            for row in job.rows
            if row.layer is not None and (row.metric, row.variant) == (main.metric, _REFERENCE)
        ]
    choices: list[Choice] = []
    for trait in main.traits:
        own = [row for row in found if row.trait == trait]
        behind = _frame_of(own)
        name = trait if len(main.traits) > 1 else ""
        try:
            drawn = stage_curves(
                own,
                main.metric,
                title=f"{title}: {name}" if name else title,
                y_label=main.name,
                caption=said_of(behind),
                variant=main.variant,
                of_reference=_REFERENCE,
                labels=labels,
            )
        except ConfigError as error:
            notes.append(f"no figure of all stages: {error}")
            continue
        choices.append(Choice(name, drawn, behind))
    if choices:
        yield _captioned("by-layer", title, choices)


def _of_jobs(part: Part, notes: list[str]) -> Iterator[Figure]:
    """What the jobs drew themselves, figures of one name together."""
    names = job_names(part.jobs)
    for key in dict.fromkeys(key for job in part.jobs for key in job.figures):
        choices = [
            choice
            for job, name in zip(part.jobs, names, strict=True)
            if key in job.figures
            for choice in _read(job, key, name, notes)
        ]
        if choices:
            yield _together(key, choices)


def _of_all(part: Part, notes: list[str]) -> Iterator[Figure]:
    """What was drawn of all jobs together."""
    if part.whole is None:
        return
    for key in part.whole.figures:
        choices = list(_read(part.whole, key, "", notes, part.jobs))
        if choices:
            yield _together(f"all-{key}", choices)


def _read(
    kept: Kept, key: str, name: str, notes: list[str], jobs: Sequence[Done] = ()
) -> Iterator[Choice]:
    try:
        text = kept.figure(key)
        drawn = json.loads(text)
    except (StoreError, ValueError) as error:
        notes.append(f"figure {key} is left out: {error}")
        return
    try:
        behind = rows_behind(kept, key, meta_of(drawn), jobs)
    except StoreError as error:
        notes.append(f"figure {key} has no rows: {error}")
        behind = pd.DataFrame()
    yield Choice(name, text, behind)


def _together(key: str, choices: Sequence[Choice]) -> Figure:
    title = _common([_told(it).title for it in choices]) or key.replace("_", " ")
    return _captioned(key, title, choices)


def _captioned(key: str, title: str, choices: Sequence[Choice]) -> Figure:
    """A figure with the caption of most of its choices; others have their own."""
    captions = [_told(it).caption or said_of(it.rows) for it in choices]
    most = max(captions, key=captions.count)
    own = [
        replace(choice, caption="" if caption == most else caption)
        for choice, caption in zip(choices, captions, strict=True)
    ]
    return Figure(key, title, most, tuple(own))


@dataclass(frozen=True)
class _Told:
    """What a figure says of itself."""

    title: str
    caption: str


def _told(choice: Choice) -> _Told:
    drawn = json.loads(choice.plotly)
    meta, title = meta_of(drawn), part_of(drawn, "layout").get("title", "")
    shown = title.get("text", "") if isinstance(title, Mapping) else title
    plain = html.unescape(_BREAK.sub(" ", str(shown or "")))
    return _Told(str(meta.get("title") or plain), str(meta.get("caption") or ""))


def _frame_of(rows: Sequence[Measurement]) -> pd.DataFrame:
    return pd.DataFrame([vars(row) for row in rows])


def _common(titles: Sequence[str]) -> str:
    """What titles begin with in common, without what is left of a sentence."""
    if len(set(titles)) == 1:
        return titles[0]
    words: list[str] = []
    for column in zip(*(title.split() for title in titles), strict=False):
        if len(set(column)) > 1:
            break
        words.append(column[0])
    while words and words[-1].strip(",:;·-(") in {*_JOINTS, ""}:
        words.pop()
    return " ".join(words).rstrip(" ,:;·-(")


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or "figure"


def _unique(keys: Sequence[str]) -> list[str]:
    found: list[str] = []
    for key in keys:
        same = sum(it == key or it.startswith(f"{key}-again") for it in found)
        found.append(f"{key}-again{same}" if same else key)
    return found
