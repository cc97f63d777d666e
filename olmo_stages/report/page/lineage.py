"""The lineage as a tree with a row a stage: where everything is drawn, in pixels.

A row is the edge from the parent above to the stage. Beside it stands each number of the edge, as
text and as a point with its interval on a scale that all edges share, so that they can be compared
at a glance and chains of many checkpoints stay as readable as a bush of stages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Node, Study
from olmo_stages.report.page.marks import (
    LENGTH,
    Column,
    Mark,
    Scale,
    cut,
    notes_of,
    scales_of,
    width,
)

_ROW = 56.0
_TOP = 62.0
_LEFT = 16.0
_STEP = 44.0
_DEEPEST = 300  # all steps to the right together
_COLUMN = 214.0
_CHARACTER = 7.6
_LONGEST = 30  # label, in characters
_STRAND = 6.0  # between the lines of an edge, a line a number


@dataclass(frozen=True)
class Row:
    """A stage and the edge from its parent.

    Args:
        x: of its dot.
        y: of its dot.
        stem: x of the parent's dot; None for a root.
        label: of the stage, cut where it is long.
        whole: the label as it is.
        below: what stands below the label.
        state: `measured`, `failed` or `plain`.
        reach: y of its last child's dot; its own where it has none.
        marks: the numbers of the edge.
    """

    x: float
    y: float
    stem: float | None
    label: str
    whole: str
    below: str
    state: str
    reach: float
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Lineage:
    """The whole drawing.

    Args:
        width: of all.
        height: of all.
        start: x of the first column.
        scale: length of the scales.
        rows: a row a stage.
        columns: a column a number.
        places: x of each column.
        notes: of the numbers, by letter.
        strands: height of each number's line of an edge, below the edge's middle.
    """

    width: float
    height: float
    start: float
    scale: int
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    places: tuple[float, ...]
    notes: tuple[tuple[str, str], ...]
    strands: tuple[float, ...]


def lineage(study: Study) -> Lineage:
    """Lay the lineage of a study out.

    Returns:
        Rows in the order of the tree, each parent above its children; a stage whose parent is not
        among the nodes is a root.
    """
    placed = _in_order(study.nodes)
    deepest = max((depth for _, depth in placed), default=0)
    step = min(_STEP, _DEEPEST / max(deepest, 1))
    longest = max((width(cut(node.label, _LONGEST)) for node, _ in placed), default=0)
    start = _LEFT + deepest * step + 18 + max(longest * _CHARACTER, 110.0) + 20
    scales = scales_of(study)
    noted = notes_of(scales)
    rows = _rows(placed, step, scales, noted)
    return Lineage(
        width=start + len(scales) * _COLUMN,
        height=_TOP + _ROW * len(rows) + (26 if scales else 0),
        start=start,
        scale=LENGTH,
        rows=rows,
        columns=tuple(scale.column for scale in scales),
        places=tuple(start + index * _COLUMN for index in range(len(scales))),
        notes=tuple((mark, note) for note, mark in noted.items()),
        strands=_strands(len(scales)),
    )


def _rows(
    placed: Sequence[tuple[Node, int]],
    step: float,
    scales: Sequence[Scale],
    noted: Mapping[str, str],
) -> tuple[Row, ...]:
    with_size = len({node.size for node, _ in placed}) > 1
    ys = {node.label: _TOP + _ROW * (index + 0.5) for index, (node, _) in enumerate(placed)}
    xs = {node.label: _LEFT + depth * step for node, depth in placed}
    reached = {node.parent: ys[node.label] for node, depth in placed if depth}
    return tuple(
        Row(
            x=xs[node.label],
            y=ys[node.label],
            stem=xs[node.parent] if depth else None,
            label=cut(node.label, _LONGEST),
            whole=node.label,
            below=_below(node, with_size=with_size),
            state="failed" if node.failed else "measured" if node.measured else "plain",
            reach=reached.get(node.label, ys[node.label]),
            marks=tuple(it.mark(node, noted) for it in scales if node.label in it.shifts),
        )
        for node, depth in placed
    )


def _in_order(nodes: Sequence[Node]) -> list[tuple[Node, int]]:
    """Nodes with their depth, each followed by all that is below it, each once."""
    labels = {node.label for node in nodes}
    placed: dict[str, tuple[Node, int]] = {}

    def place(node: Node, depth: int) -> None:
        if node.label in placed:
            return
        placed[node.label] = (node, depth)
        for child in nodes:
            if child.parent == node.label:
                place(child, depth + 1)

    for node in nodes:
        if node.parent not in labels:
            place(node, 0)
    for node in nodes:  # what is its own ancestor has no root above it
        place(node, 0)
    return list(placed.values())


def _strands(count: int) -> tuple[float, ...]:
    """Heights of an edge's lines above and below its middle."""
    gap = min(_STRAND, 30 / max(count, 1))
    return tuple(round((index - (count - 1) / 2) * gap, 1) for index in range(count))


def _below(node: Node, *, with_size: bool) -> str:
    state = "no result" if node.failed else "" if node.measured else "not run"
    return " · ".join(filter(None, [cut(node.size, 16) if with_size else "", state]))
