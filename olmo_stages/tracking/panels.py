"""Panels of W&B about the runs of a section, and which runs they show.

Every name in a panel is one that `run_layout` gave a number or figure of these runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_stages import records
from olmo_stages.document import Section, Source, Study
from olmo_stages.errors import StoreError
from olmo_stages.figures.palette import styles
from olmo_stages.headlines import restored
from olmo_stages.tracking import library
from olmo_stages.tracking.run_layout import (
    TABLE,
    curves,
    figure_name,
    main_curves,
    metric_name,
    summary,
)
from olmo_stages.tracking.sent import Sent
from olmo_stages.types import Measurement, Result

_MARKS = {"dash": "dashed", "dashdot": "dotdash", "longdash": "dashed", "longdashdot": "dotdotdash"}
"""W&B's names of plotly's dashes."""
_MOST_MAIN = 8
_WIDE, _NARROW, _WHOLE = (12, 8), (8, 6), (24, 10)
"""Width and height of panels; a row is 24 wide."""


@dataclass(frozen=True)
class Logged:
    """What the runs of a section hold, by the names under which it was logged.

    Args:
        main: curves by layer that lead, with the ends of their intervals.
        further: the other curves.
        numbers: numbers that are not about one layer.
        figures: figures.
    """

    main: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    further: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """How the line of a run looks.

    Args:
        label: in legends.
        colour: of its stage, as in the figures.
        mark: of its stage, as in the figures.
    """

    label: str
    colour: str
    mark: str


def runs_of(section: Section, study: Study, sent: Sequence[Sent]) -> list[Sent]:
    """Return the runs of a section's jobs, in the order of the sources."""
    named = any(it.section for it in study.sources)
    about = (section.analysis, section.data)
    return [
        it
        for it in sent
        if (
            it.source.section == section.key
            if named
            else (it.source.analysis, it.source.data) == about
        )
    ]


def logged(runs: Sequence[Sent]) -> Logged:
    """Return what runs hold; those whose files are gone are left out."""
    found: dict[str, tuple[str, ...]] = {}
    main: dict[str, None] = {}
    numbers: dict[str, None] = {}
    figures: dict[str, None] = {}
    for run in runs:
        result, analysis = _result(run.source), run.source.analysis
        if result is None:
            continue
        for name, ends in curves(result.measurements, analysis).items():
            found[name] = max(found.get(name, ()), ends, key=len)
        main |= dict.fromkeys(main_curves(result.measurements, analysis))
        numbers |= dict.fromkeys(_numbers(result, analysis))
        figures |= dict.fromkeys(map(figure_name, result.figures))
    leading = list(main)[:_MOST_MAIN]
    return Logged(
        {name: found[name] for name in leading},
        {name: ends for name, ends in found.items() if name not in leading},
        tuple(numbers),
        tuple(figures),
    )


def lines(runs: Sequence[Sent], study: Study) -> dict[str, Line]:
    """Return how the run of each id looks; a stage has its colour in every section."""
    labels = [it.label for it in study.nodes] + [it.stage for it in study.sources]
    drawn = styles(dict.fromkeys(labels))
    stages = [it.source.stage for it in runs]
    looks: dict[str, Line] = {}
    for run in runs:
        label = run.source.stage
        style = drawn[label]
        if stages.count(label) > 1:
            label += f" vs {run.source.reference}" if run.source.reference else ""
            label += f" ({run.run_id[:6]})"
        looks[run.run_id] = Line(label, style.colour, _MARKS.get(style.dash, style.dash))
    return looks


def line_plots(
    names: Mapping[str, tuple[str, ...]], looks: Mapping[str, Line], *, plain: bool = False
) -> list[Any]:
    """Return a plot by layer for each curve, with the ends of its interval.

    Args:
        names: curves, with the names of the ends.
        looks: of the runs, by id.
        plain: leave names and marks to the server, which makes a report of many curves smaller.
    """
    wr = library.reports()
    return [
        wr.LinePlot(
            title=_without_prefix(name),
            x="layer",
            y=[name, *ends],
            title_x="layer",
            smoothing_type="none",
            max_runs_to_show=len(looks),
            **({} if plain else _line_styles(name, ends, looks)),
        )
        for name, ends in names.items()
    ]


def _line_styles(name: str, ends: Sequence[str], looks: Mapping[str, Line]) -> dict[str, Any]:
    """The names, colours and marks of the lines of a plot; the ends of intervals are dotted."""
    styles: dict[str, dict[str, Any]]
    styles = {"line_titles": {}, "line_colors": {}, "line_marks": {}, "line_widths": {}}
    for run, look in looks.items():
        for line in (name, *ends):
            is_end = line != name
            end = f", {line.removeprefix(f'{name}_')} end of the interval" if is_end else ""
            key = f"{run}:{line}"
            styles["line_titles"][key] = f"{look.label}{end}"
            styles["line_colors"][key] = look.colour
            styles["line_marks"][key] = "dotted" if is_end else look.mark
            styles["line_widths"][key] = 0.75 if is_end else 2.0
    return styles


def bar_plots(names: Sequence[str], n_runs: int) -> list[Any]:
    """Return a bar chart for each number that is not about one layer, a bar a run."""
    wr = library.reports()
    return [
        wr.BarPlot(
            title=_without_prefix(name),
            metrics=[name],
            max_runs_to_show=n_runs,
            max_bars_to_show=n_runs,
        )
        for name in names
    ]


def others(figures: Sequence[str]) -> list[Any]:
    """Return the logged figures, the table of all measurements, and what differs between runs."""
    wr = library.reports()

    media = [wr.MediaBrowser(title="figures", media_keys=list(figures))] if figures else []
    return [*media, wr.WeavePanelSummaryTable(table_name=TABLE), wr.RunComparer(diff_only="split")]


def laid_out(wide: Sequence[Any], narrow: Sequence[Any], whole: Sequence[Any]) -> list[Any]:
    """Give panels their places: two, three and one a row."""
    top = 0
    for panels, (width, height) in ((wide, _WIDE), (narrow, _NARROW), (whole, _WHOLE)):
        top = _place(panels, width, height, top)
    return [*wide, *narrow, *whole]


def _place(panels: Sequence[Any], width: int, height: int, top: int) -> int:
    wr = library.reports()

    a_row = 24 // width
    for index, panel in enumerate(panels):
        row, column = divmod(index, a_row)
        panel.layout = wr.Layout(x=column * width, y=top + row * height, w=width, h=height)
    return top + -(-len(panels) // a_row) * height


def _result(source: Source) -> Result | None:
    """The rows, headline and names of figures of a result; its large files are left alone."""
    import pyarrow.parquet as pq

    folder = Path(source.folder)
    try:
        mark = records.read_mark(folder)
        rows = pq.read_table(folder / records.MEASUREMENTS).to_pylist()
        measurements = tuple(Measurement(**row) for row in rows)
    except (StoreError, OSError, ValueError, TypeError):  # gone, or damaged
        return None
    figures = dict.fromkeys(mark["figures"], "")
    return Result(measurements, figures=figures, headline=restored(mark["headline"]))


def _numbers(result: Result, analysis: str) -> list[str]:
    """The numbers that are about all layers, or about none; the headline repeats them."""
    own = f"{metric_name(analysis)}/"
    found = summary(result, analysis).items()
    return [name for name, it in found if name.startswith(own) and isinstance(it, int | float)]


def _without_prefix(name: str) -> str:
    return name.partition("/")[2].replace("/", " · ").replace("_", " ")
