"""The blocks of a report on W&B: what the study says, and panels of its runs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmo_stages.document import Grid, Section, Shift, Source, Study
from olmo_stages.markdown import escaped
from olmo_stages.tracking import library, markdown, panels
from olmo_stages.tracking.runsets import Home, artifact_url, run_sets, run_url
from olmo_stages.tracking.sent import Sent
from olmo_stages.types import Measurement

_MOST_ROWS = 50
_MOST_NUMBERS = 6


def opening(study: Study, sent: Sequence[Sent]) -> list[Any]:
    """Return what was asked and found, and what each edge of the lineage carries."""
    wr = library.reports()
    asked = [wr.P(_line(study.asked))] if study.asked else []
    for name in ("question", "prediction"):
        if text := getattr(study, name):
            asked.append(_markdown(f"**{name.capitalize()}**: {escaped(text)}"))
    lineage = [_markdown(markdown.table(study.lead, _unchanged(study)))]
    lineage += _bullets(_reasons(study))
    return [
        *asked,
        *_missing_runs(study, sent),
        wr.H1("Findings"),
        *_bullets(study.findings),
        *_titled("Warnings", study.warnings),
        wr.H1("What each stage changed"),
        *lineage,
    ]


def section_blocks(section: Section, runs: Sequence[Sent], study: Study, home: Home) -> list[Any]:
    """Return what a section says, then panels by layer of its runs."""
    wr = library.reports()
    blocks = [wr.H1(_line(section.title))]
    blocks += [wr.P(_line(section.about))] if section.about else []
    blocks += [*_bullets(section.findings), _markdown(markdown.table(section.lead))]
    blocks += _titled("Notes", section.notes)
    blocks += _panels(runs, study, home)
    captions = [f"{it.title}: {it.caption}" for it in section.figures]
    hidden = {"How the figures are read": _bullets(captions)} if captions else {}
    hidden |= {name: [_markdown(_short_table(grid))] for name, grid in section.tables.items()}
    return [*blocks, *_collapsed(hidden)]


def problems(study: Study) -> list[Any]:
    """Return the jobs without a result."""
    if not study.problems:
        return []
    rows = tuple((it.job, it.state, it.reason, Path(it.sweep).name) for it in study.problems)
    grid = Grid(("job", "state", "reason", "sweep"), rows)
    again = list(dict.fromkeys(it.command for it in study.problems if it.command))
    wr = library.reports()
    blocks = [wr.H1("Jobs without a result"), _markdown(markdown.table(grid))]
    return [*blocks, *([_code("\n".join(again))] if again else [])]


def runs_and_files(study: Study, sent: Sequence[Sent], home: Home) -> list[Any]:
    """Return a table that links the runs and artifacts of all jobs."""
    of = {it.source.folder: it for it in sent}
    rows = [_row(source, of.get(source.folder), home) for source in study.sources]
    if not rows:
        return []
    heads = ("analysis", "stage", "reference", "data", "run", "files", "result")
    return [library.reports().H1("Runs and files"), _markdown(markdown.raw_table(heads, rows))]


def provenance(study: Study) -> list[Any]:
    """Return what redoes the study, versions, and digests of models and data."""
    wr = library.reports()
    # Folders of the machine are nobody's business on a server.
    hidden = {"folder", "tracked", "section"}
    sources = [
        {key: it for key, it in dataclasses.asdict(source).items() if key not in hidden}
        for source in study.sources
    ]
    made = {"made": study.made.isoformat(), "sweeps": [Path(it).name for it in study.sweeps]}
    blocks = [wr.H1("Provenance")]
    blocks += [_code("\n".join(study.commands))] if study.commands else []
    blocks.append(_json({**made, "versions": dict(study.versions)}))
    return [*blocks, *_collapsed({"Models, data and code of each job": [_json(sources)]})]


def _unchanged(study: Study) -> set[Measurement]:
    """The numbers of the lead table whose interval holds the value of two equal models.

    Also those that compare with another stage than the parent, which no edge carries.
    """
    shifts = [*(it for edge in study.edges for it in edge.shifts), *study.beside]
    changes = dict.fromkeys(shift.change for shift in shifts)
    return {
        cell
        for row in study.lead.rows
        for cell in row
        if isinstance(cell, Measurement)
        for it in changes
        if (cell.metric, cell.variant)
        in {(it.metric, it.variant), (it.metric_across, it.variant_across)}
        and Shift(it, "", cell).holds_unchanged
    }


def _reasons(study: Study) -> list[str]:
    """Why numbers of edges are not known, or what is to be known about them; each reason once."""
    found: dict[tuple[str, str], list[str]] = {}
    for edge in study.edges:
        for shift in edge.shifts:
            if shift.why and (shift.row is None or shift.row.note != shift.why):
                found.setdefault((shift.change.name, shift.why), []).append(edge.stage)
    return [f"{name} of {', '.join(stages)}: {why}" for (name, why), stages in found.items()]


def _missing_runs(study: Study, sent: Sequence[Sent]) -> list[Any]:
    """Say what the panels cannot show."""
    wr = library.reports()
    recorded = {it.source.folder for it in sent}
    untracked = sum(source.folder not in recorded for source in study.sources)
    waiting = sum(not it.is_uploaded for it in sent)
    said = []
    if untracked:
        said.append(f"{untracked} of {len(study.sources)} jobs were not recorded as runs.")
    if waiting:
        said.append(
            f"{waiting} of {len(sent)} runs were not uploaded when this report was made; "
            "its panels show them once wandb sync has uploaded them."
        )
    return [wr.CalloutBlock(" ".join(said))] if said else []


def _panels(runs: Sequence[Sent], study: Study, home: Home) -> list[Any]:
    if not runs:
        return []
    wr = library.reports()
    held, looks = panels.logged(runs), panels.lines(runs, study)
    colours = {run: look.colour for run, look in looks.items()}
    main = panels.laid_out(
        panels.line_plots(held.main, looks),
        panels.bar_plots(held.numbers[:_MOST_NUMBERS], len(runs)),
        panels.others(held.figures),
    )
    blocks = [wr.PanelGrid(runsets=run_sets(runs, home, colours), panels=main)]
    more = panels.laid_out(
        panels.line_plots(held.further, looks, plain=True),
        panels.bar_plots(held.numbers[_MOST_NUMBERS:], len(runs)),
        [],
    )
    if more:
        grid = wr.PanelGrid(runsets=run_sets(runs, home, colours), panels=more)
        blocks += _collapsed({"Further curves": [grid]})
    return blocks


def _row(source: Source, run: Sent | None, home: Home) -> list[str]:
    about = (source.analysis, source.stage, source.reference, source.data)
    cells = [escaped(it) for it in about]
    if run is None:
        cells += ["not recorded", ""]
    else:
        to_run, to_files = run_url(run, home), artifact_url(run, home)
        name = escaped(run.run_id)
        cells.append(markdown.link(run.run_id, to_run) if to_run else name)
        cells.append(markdown.link("files", to_files) if to_files else "")
    return [*cells, escaped(source.result[:16])]


def _short_table(grid: Grid) -> str:
    if len(grid.rows) <= _MOST_ROWS:
        return markdown.table(grid)
    short = dataclasses.replace(grid, rows=grid.rows[:_MOST_ROWS])
    return f"{markdown.table(short)}\n{_MOST_ROWS} of {len(grid.rows)} rows.\n"


def _collapsed(parts: Mapping[str, Sequence[Any]]) -> list[Any]:
    wr = library.reports()
    return [wr.H3(_line(head), collapsed_blocks=list(inner)) for head, inner in parts.items()]


def _titled(head: str, texts: Sequence[str]) -> list[Any]:
    return [library.reports().H2(head), *_bullets(texts)] if texts else []


def _bullets(texts: Sequence[str]) -> list[Any]:
    return [_markdown(markdown.bullets(texts))] if texts else []


def _markdown(text: str) -> Any:  # noqa: ANN401  (a block of a library that is imported late)
    return library.reports().MarkdownBlock(text)


def _code(text: str) -> Any:  # noqa: ANN401  (a block of a library that is imported late)
    # W&B colours no shell; YAML leaves most of a command as it is.
    return library.reports().CodeBlock(text, language="yaml")


def _json(content: Any) -> Any:  # noqa: ANN401  (JSON data, and a block)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return library.reports().CodeBlock(text, language="json")


def _line(text: str) -> str:
    return " ".join(text.split())
