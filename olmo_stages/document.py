"""What a report says, before anybody decides how it looks.

The page, the W&B report and the terminal all show a `Study`; none of them reads results itself.
"""

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from olmo_stages.types import Change, Measurement

Cell = str | int | float | Measurement | None
"""A cell of a grid: a `Measurement` where the number has an interval, a null or a note."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A table for people, sortable by every column.

    Args:
        columns: heads, each once.
        rows: cells in the order of the columns.
        notes: what the heads mean where they do not say it themselves, by head.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of a grid has not {len(self.columns)} cells, one a column")


@dataclass(frozen=True, eq=False)
class Choice:
    """One of the alternatives of a figure, e.g. one stage.

    Args:
        name: in the figure's menu; empty where it has one alternative only.
        plotly: the figure as JSON text.
        rows: the measurements behind it, columns of `olmo_stages.results`, or rows of a table of
            the result; may be empty where a figure of an analysis does not say what it is made of.
        caption: of this alternative, where it is another than the figure's; empty = the figure's.
    """

    name: str
    plotly: str
    rows: pd.DataFrame
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure with what is needed to read it.

    Args:
        key: unique in its section; letters, digits, `-` and `_`.
        title: of the figure.
        caption: what is drawn, what was resampled for the band, and which null; of most choices.
        choices: at least one.
    """

    key: str
    title: str
    caption: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, eq=False)
class Section:
    """Jobs of one analysis on the same data with the same options.

    Args:
        key: unique in the study; letters, digits, `-` and `_`.
        analysis: its name.
        data: name of the data set.
        title: tells it from the other sections.
        about: what was measured, in one or two sentences.
        findings: what came out, one sentence each, with intervals.
        lead: one row a job, with its headline.
        figures: in the order of reading.
        tables: more tables by title.
        notes: warnings of its jobs, each once, with the stages they are about.
    """

    key: str
    analysis: str
    data: str
    title: str
    about: str
    findings: tuple[str, ...]
    lead: Grid
    figures: tuple[Figure, ...]
    tables: Mapping[str, Grid] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A stage of the lineage.

    Args:
        label: of the stage.
        parent: label of the node above; empty for a root.
        measured: whether a finished job is about it; others are drawn so that the tree is whole.
        failed: whether a job about it failed or is missing.
        size: of the stage.
    """

    label: str
    parent: str
    measured: bool
    failed: bool = False
    size: str = ""


@dataclass(frozen=True, eq=False)
class Shift:
    """One number on an edge of the lineage: how far a stage is from its parent, by one analysis.

    Args:
        change: which number it is.
        section: key of the section that it comes from.
        row: the number; None where it is not known.
        why: why it is not known, or a caveat of the number; else empty.
    """

    change: Change
    section: str
    row: Measurement | None
    why: str = ""

    @property
    def holds_unchanged(self) -> bool | None:
        """Whether it cannot be told from the value for two equal models; None without an interval.

        So it is where the interval holds that value, and where it `lies_above` it.
        """
        ends = self._ends
        if ends is None:
            return None
        return ends[0] <= self.change.unchanged <= ends[1] or self.lies_above

    @property
    def lies_above(self) -> bool:
        """Whether the interval of a similarity lies above that of two equal models.

        A correction for noise can do that; it is no sign of change.
        """
        ends = self._ends
        return ends is not None and self.change.is_similarity and ends[0] > self.change.unchanged

    @property
    def _ends(self) -> tuple[float, float] | None:
        row = self.row
        if row is None or row.ci_low is None or row.ci_high is None:
            return None
        ends = (row.ci_low, row.ci_high)
        return ends if all(map(math.isfinite, ends)) else None


@dataclass(frozen=True, eq=False)
class Edge:
    """From a parent to a stage.

    Args:
        parent: label.
        stage: label.
        shifts: one for each number that edges carry, the same ones in the same order on every edge:
            of each section whose analysis has a `Change`, or of each of its traits.
    """

    parent: str
    stage: str
    shifts: tuple[Shift, ...]


@dataclass(frozen=True)
class Problem:
    """A job without a result.

    Args:
        job: its name.
        state: `failed`, `killed`, `missing`, `running` or `damaged`.
        reason: in one line.
        sweep: folder of its sweep.
        command: what redoes what is missing of its sweep; empty where it is not known.
    """

    job: str
    state: str
    reason: str
    sweep: str
    command: str


@dataclass(frozen=True)
class Source:
    """Where the numbers of one job come from.

    Args:
        stage: label.
        reference: label, or empty.
        analysis: name.
        data: name of the data set.
        folder: of the result.
        digest: identity of the job.
        result: identity of the numbers.
        models: label to `source@revision` with the commit or the digest of the weights.
        data_digest: of the data set.
        code: version and commit of this package that ran.
        finished: when, UTC.
        seconds: how long it took.
        tracked: address of the W&B run, or the line that uploads it; empty where there is none.
        section: key of the section that it is in; empty = the one of its analysis and data.
    """

    stage: str
    reference: str
    analysis: str
    data: str
    folder: str
    digest: str
    result: str
    models: Mapping[str, str]
    data_digest: str
    code: str
    finished: str
    seconds: float
    tracked: str
    section: str = ""


@dataclass(frozen=True, eq=False)
class Study:
    """All that a report says.

    Args:
        title: e.g. the name of the sweep.
        asked: what was run, in one or two sentences.
        question: of the study, where it has one.
        prediction: of the study, where it has one.
        findings: what came out over all analyses, one sentence each, most important first.
        nodes: of the lineage, parents before children.
        edges: of the lineage.
        lead: one row a stage: parent, and what the edge carries.
        sections: one for each analysis, data set and set of options.
        problems: jobs without a result.
        warnings: what concerns more than one section.
        commands: what redoes the sweeps.
        sources: where each job's numbers come from.
        versions: of the software, name to version; several are joined with commas.
        made: when the report was made, UTC.
        sweeps: folders.
        assembled: folders of what was put together of several jobs, `across` of their analyses.
        beside: numbers of the lead table on no edge: against another stage than the parent.
    """

    title: str
    asked: str
    question: str
    prediction: str
    findings: tuple[str, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    lead: Grid
    sections: tuple[Section, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    commands: tuple[str, ...]
    sources: tuple[Source, ...]
    versions: Mapping[str, str]
    made: datetime.datetime
    sweeps: tuple[str, ...]
    assembled: tuple[str, ...] = ()
    beside: tuple[Shift, ...] = ()
