"""The sections of a report: what was measured, what came out, its tables and its figures."""

import math
import re
from collections.abc import Sequence

from olmo_stages.document import Grid, Section
from olmo_stages.figures.wording import written
from olmo_stages.report.captions import size_of
from olmo_stages.report.drawn import figures, job_names, main_rows
from olmo_stages.report.headlines import headline_findings, lead, noted
from olmo_stages.report.kept import Done
from olmo_stages.report.parts import Part
from olmo_stages.report.sentences import all_of
from olmo_stages.types import EMBEDDING_LAYER, Measurement

_FEW = 3
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_TYPES = {"sliding_attention": "sliding", "full_attention": "full", "embedding": "embedding"}


def section(part: Part, findings: Sequence[str], labels: Sequence[str] = ()) -> Section:
    """Put a section together.

    Args:
        part: its jobs.
        findings: what they say of the edges of the lineage; empty = what is highest and lowest.
        labels: of all stages of the report, so that each looks the same in every figure.
    """
    drawn, wrong = figures(part, labels)
    said = [*(findings or headline_findings(part)), *noted(part), *_of_whole(part)]
    return Section(
        key=part.key,
        analysis=part.analysis,
        data=part.data,
        title=part.title,
        about=_about(part),
        findings=tuple(said),
        lead=lead(part),
        figures=drawn,
        tables={**_by_layer(part), **_matrices(part)},
        notes=(*part.notes, *wrong, *_notes(part)),
    )


def _of_whole(part: Part) -> list[str]:
    """What the headline of all jobs together says, where it says more than their number.

    Where an edge of the lineage carries what the analysis found, that is said in its place.
    """
    told = {} if part.whole is None or part.changes else part.whole.headline
    values = {head: it for head, it in told.items() if it is not None}
    if len(values) < 2:
        return []
    cells = [f"{head} {_shown(it)}" for head, it in values.items()]
    n = len(part.jobs)
    whose = f"{all_of(n, 'jobs').capitalize()} together" if n > 1 else "Its job"
    return [f"{whose}: {', '.join(cells)}."]


def _shown(value: str | float | int | Measurement) -> str:
    if isinstance(value, Measurement):
        known = math.isfinite(value.value)
        return written(value.value, value.ci_low, value.ci_high) if known else "undefined"
    if isinstance(value, float):
        return written(value) if math.isfinite(value) else "undefined"
    return str(value)


def _about(part: Part) -> str:
    """What was measured, on how much, and with which options."""
    key = part.group.key
    options = [
        f"{name}={value}"
        for name, value in key["options"].items()
        if isinstance(value, str) or (name.startswith("n_") and isinstance(value, int))
    ]
    passes = [
        f"{it}={key['pass'][it]}" for it in ("format", "dtype", "quantisation") if it in key["pass"]
    ]
    responses = key["responses"] or {}
    replies = [f"responses={responses['mode']}"] if "mode" in responses else []
    told = ", ".join([*options, *passes, *replies, f"seed={key['seed']}"])
    main = main_rows(part)
    frames = [job.frame for job in part.jobs]
    counted = frames if main is None else [it.loc[it["metric"] == main.metric] for it in frames]
    sizes = list(dict.fromkeys(filter(None, map(size_of, counted))))
    said = [
        part.spoken.about,
        *([f"{'; '.join(sizes[:_FEW])}."] if sizes else []),
        f"Options: {told}.",
    ]
    return " ".join(filter(None, said))


def _by_layer(part: Part) -> dict[str, Grid]:
    """The main number at each layer, a column a job; a table for each trait."""
    main = main_rows(part)
    if main is None:
        return {}
    tables: dict[str, Grid] = {}
    for trait in main.traits:
        of_jobs = [{row.layer: row for row in rows if row.trait == trait} for rows in main.of_jobs]
        kinds = {row.layer: _TYPES.get(row.layer_type, "") for it in of_jobs for row in it.values()}
        layers = sorted(layer for layer in kinds if layer is not None)
        rows = [
            ("emb" if it == EMBEDDING_LAYER else it, kinds[it], *(own.get(it) for own in of_jobs))
            for it in layers
        ]
        about = f", {trait}" if len(main.traits) > 1 else ""
        columns = ("layer", "attention", *main.names)
        tables[f"{main.name} by layer{about}"] = Grid(columns, tuple(rows))
    return tables


def _matrices(part: Part) -> dict[str, Grid]:
    """Stages against stages: the first number about two stages as wholes of all jobs together."""
    if part.whole is None:
        return {}
    rows = [
        row
        for row in part.whole.rows
        if row.layer is None and row.layer_type == "" and row.reference
    ]
    if not rows:
        return {}
    metric, variant = rows[0].metric, rows[0].variant
    own = [row for row in rows if (row.metric, row.variant) == (metric, variant)]
    traits = list(dict.fromkeys(row.trait for row in own))
    name = " · ".join(filter(None, [metric.removesuffix("_stages").replace("_", " "), variant]))
    return {
        f"{name}{f', {trait}' if len(traits) > 1 else ''}, each stage against others": _matrix([
            row for row in own if row.trait == trait
        ])
        for trait in traits
    }


def _matrix(rows: Sequence[Measurement]) -> Grid:
    by_pair = {(row.stage, row.reference): row for row in rows}
    stages = list(dict.fromkeys(row.stage for row in rows))
    references = list(dict.fromkeys(row.reference for row in rows))
    return Grid(
        ("stage", *(f"against {it}" for it in references)),
        tuple((stage, *(by_pair.get((stage, it)) for it in references)) for stage in stages),
    )


def _notes(part: Part) -> list[str]:
    """Warnings of jobs and of all together, each once; those alike but for numbers, too."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for job, name in zip(part.jobs, job_names(part.jobs), strict=True):
        for text in job.warnings:
            alike.setdefault(_pattern(text, job), []).append((name, text))
    said = [_note(found, len(part.jobs)) for found in alike.values()]
    return [*said, *(() if part.whole is None else part.whole.warnings)]


def _pattern(text: str, job: Done) -> str:
    """A warning without what it says of this job in particular."""
    for label in sorted({*job.labels} - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w@-]){re.escape(label)}(?![\w@-])", "\0", text)
    return _NUMBER.sub("#", text)


def _note(found: Sequence[tuple[str, str]], total: int) -> str:
    names = list(dict.fromkeys(name for name, _ in found))
    text = found[0][1]
    whom = ", ".join(names) if len(names) <= _FEW else f"{len(names)} of {total} jobs"
    whom = all_of(total, "jobs") if len(names) == total > 1 else whom
    same = len({it for _, it in found}) == 1
    return f"{text} ({whom if same else f'{names[0]}; alike, with other numbers, for {whom}'})"
