"""What jobs say first: their headlines as tables and as sentences."""

import re
from collections.abc import Sequence

from olmo_stages.document import Cell, Grid
from olmo_stages.report.carried import with_states
from olmo_stages.report.drawn import job_names
from olmo_stages.report.findings import extremes
from olmo_stages.report.parts import Part
from olmo_stages.report.sentences import all_of, by_chance
from olmo_stages.report.tree import Place, Tree, size_of
from olmo_stages.types import Headline, Measurement

_FEW = 3
_TESTED = re.compile(r"\bat most (0\.\d+)")
_FIXED = frozenset({"stage", "parent", "reference", "state"})


def lead(part: Part) -> Grid:
    """One row a job: its stage, its reference, and its headline."""
    heads = _heads(part)
    compared = any(job.reference for job in part.jobs)
    columns = ("stage", *(("reference",) if compared else ()), *heads)
    rows: list[tuple[Cell, ...]] = []
    for job in part.jobs:
        cells = job.headline
        named: tuple[Cell, ...] = (job.stage, job.reference or None) if compared else (job.stage,)
        rows.append((*named, *(cells.get(head) for head in heads.values())))
    return Grid(columns, tuple(rows))


def lead_of_all(tree: Tree, parts: Sequence[Part]) -> Grid:
    """One row a stage with what its jobs say first, for analyses that say nothing of edges.

    Of several jobs about a stage the one that compares it with its parent speaks, or none.
    """
    columns: list[tuple[str, Part, str]] = []
    for part in parts:
        for head in _keys(part):
            name = f"{part.title}: {head}" if len(parts) > 1 else head
            columns.append((f"{name} " if name in _FIXED else name, part, head))
    rows: dict[Place, tuple[Cell, ...]] = {}
    for place, parent in tree.parents.items():
        if place in tree.measured or place in tree.undone:
            cells = {part.key: _speaking(part, place, parent) for part in parts}
            values = (cells[part.key].get(head) for _, part, head in columns)
            above = "" if parent is None else tree.names[parent]
            rows[place] = (tree.names[place], above, *values)
    heads = ("stage", "parent", *(name for name, _, _ in columns))
    return with_states(tree, heads, rows, {})


def headline_findings(part: Part) -> list[str]:
    """What is highest and lowest by the first number of the headline."""
    names = job_names(part.jobs)
    cells = [job.headline for job in part.jobs]
    for head in dict.fromkeys(head for it in cells for head in it):
        values = [
            (name, it[head])
            for name, it in zip(names, cells, strict=True)
            if isinstance(it.get(head), Measurement | float | int)
        ]
        if values and not head.endswith("layer"):
            missing = len(cells) - len(values)
            more = [f"{head} is not given for {missing} of {len(cells)}."] if missing else []
            return [extremes(head, [(name, _numeric(it)) for name, it in values]), *more]
    return []


def noted(part: Part) -> list[str]:
    """What the headlines of the jobs note, with how many of them do.

    Where they speak of one trait of several it is named. What a note means is said where the
    analysis does, with how many jobs would have it by chance where it is that of a test.
    """
    told: dict[tuple[str, str], list[str]] = {}
    has_several = len({row.trait for row in part.rows if row.trait}) > 1
    for job, name in zip(part.jobs, job_names(part.jobs), strict=True):
        note = job.headline.get("note")
        trait = _trait(job.headline) if has_several else ""
        for text in note.split("; ") if isinstance(note, str) and note else ():
            told.setdefault((text, trait), []).append(name)
    total = len(part.jobs)
    return [
        f'{_count(len(names), total)} noted as "{text}"{f" for {trait}" if trait else ""}'
        f"{_meaning(part.spoken.notes.get(text, ''), total)}"
        f"{'' if len(names) == total else f': {_few(names)}'}."
        for (text, trait), names in told.items()
    ]


def _trait(cells: Headline) -> str:
    """The one trait that a headline speaks of."""
    traits = {it.trait for it in cells.values() if isinstance(it, Measurement) and it.trait}
    return next(iter(traits)) if len(traits) == 1 else ""


def _meaning(means: str, total: int) -> str:
    """What a note means, in brackets."""
    level = _TESTED.search(means)
    chance = (
        "" if level is None or total < 2 else f"; {by_chance(float(level[1]), total, 'would be')}"
    )
    return f" ({means}{chance})" if means else ""


def _heads(part: Part) -> dict[str, str]:
    """Heads of the columns, each once and unlike the first two, with the headline's key."""
    return {f"{key} " if key in _FIXED else key: key for key in _keys(part)}


def _keys(part: Part) -> list[str]:
    """Keys of the headlines, without those whose texts say only what is in a cell before them."""
    repeated = [_repeated(job.headline) for job in part.jobs]
    keys = dict.fromkeys(head for job in part.jobs for head in job.headline)
    return [
        key
        for key in keys
        if not all(
            key in said or job.headline.get(key) == ""
            for job, said in zip(part.jobs, repeated, strict=True)
        )
    ]


def _repeated(cells: Headline) -> set[str]:
    """Heads of texts that are the note of a measurement before them."""
    notes: set[str] = set()
    found: set[str] = set()
    for head, cell in cells.items():
        if isinstance(cell, Measurement):
            notes.update(cell.note.split("; "))
        elif isinstance(cell, str) and cell and notes.issuperset(cell.split("; ")):
            found.add(head)
    return found


def _speaking(part: Part, place: Place, parent: Place | None) -> Headline:
    """The headline of the job that speaks for a stage."""
    jobs = [job for job in part.jobs if Place(size_of(job), job.stage) == place]
    to_parent = [job for job in jobs if parent is not None and job.reference == parent.label]
    chosen = to_parent or jobs
    return chosen[0].headline if len(chosen) == 1 else {}


def _numeric(cell: Cell) -> float | Measurement:
    if isinstance(cell, Measurement):
        return cell
    assert isinstance(cell, int | float)
    return float(cell)


def _count(n: int, total: int) -> str:
    if n < total:
        return f"{n} of {total} jobs {'is' if n == 1 else 'are'}"
    return f"{all_of(n, 'jobs').capitalize()} are" if n > 1 else "Its job is"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
