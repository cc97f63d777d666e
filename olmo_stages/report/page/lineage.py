"""The lineage as a tree with a row a stage: where everything is drawn, in pixels.

A row is the edge from the parent above to the stage. Beside it stands each number of the edge, as
text and as a point with its interval on a scale that all edges share, so that they can be compared
at a glance and chains of many checkpoints stay as readable as a bush of stages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.document import Node, Study
from olmo_stages.report.page.marks import LENGTH, Column, Mark, Scale, notes_of, scales_of, width_of
from olmo_stages.report.page.shortened import cut, cut_apart, width

_ROW = 56.0
_TOP = 62.0
_DOT = 15.0  # from the middle of a dot to the label
_DEEPEST = 300.0  # all steps to the right together
_CHARACTER = 7.8
_LONGEST = 30  # label, in characters
_STRAND = 6.0  # between the lines of an edge, a line a number


@dataclass(frozen=True)
class _Room:
    """What a drawing has to get by with, in pixels.

    Args:
        width: of all, which long chains and many numbers may need more than.
        left: x of the first dot.
        gap: from the labels to the columns, and between columns.
        steps: from a stage to the one below it, widest and narrowest.
        shortest: to which labels are cut at most, in characters.
        labels: width that they have in any case.
    """

    width: float
    left: float
    gap: float
    steps: tuple[float, float]
    shortest: int
    labels: float


# A window of 1280 pixels has 976 for the page, one of a phone 358.
_DESK = _Room(976.0, 16.0, 20.0, (44.0, 26.0), 16, 110.0)
_PHONE = _Room(358.0, 9.0, 8.0, (14.0, 10.0), 15, 40.0)


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
        places: x of each column, by its index.
        notes: of the numbers, by letter.
        strands: height of each number's line of an edge, below the edge's middle, by index.
    """

    width: float
    height: float
    start: float
    scale: int
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    places: Mapping[int, float]
    notes: tuple[tuple[str, str], ...]
    strands: Mapping[int, float]

    @property
    def leaves(self) -> bool:
        """Whether something of a number is beyond its scale."""
        return any(any(mark.leaves) for row in self.rows for mark in row.marks)

    @property
    def told(self) -> dict[str, str]:
        """What is explained below it: notes with their letters, and what columns are."""
        return {it.says: "" for it in self.columns} | {note: mark for mark, note in self.notes}


def lineage(study: Study) -> Lineage:
    """Lay the lineage of a study out.

    Returns:
        Rows in the order of the tree, each parent above its children; a stage whose parent is not
        among the nodes is a root.
    """
    scales = scales_of(study)
    return _drawn(study.nodes, scales, notes_of(scales), _DESK)


def narrow_lineages(study: Study) -> list[Lineage]:
    """Lay the lineage out for a phone: a drawing a number, as narrow as can be read."""
    scales = scales_of(study)
    notes = notes_of(scales)
    return [_drawn(study.nodes, chosen, notes, _PHONE) for chosen in ([it] for it in scales)] or [
        _drawn(study.nodes, [], notes, _PHONE)
    ]


def _drawn(
    nodes: Sequence[Node], scales: Sequence[Scale], noted: Mapping[str, str], room: _Room
) -> Lineage:
    placed = _in_order(nodes)
    widths = [width_of(it, nodes, noted) + room.gap for it in scales]
    xs, labels, start = _labelled(placed, room, room.width - sum(widths))
    rows = _rows(placed, xs, labels, scales, noted)
    indices = [it.column.index for it in scales]
    heights = _strands(len(scales))
    return Lineage(
        width=start + sum(widths),
        height=_TOP + _ROW * len(rows) + (26 if scales else 0),
        start=start,
        scale=LENGTH,
        rows=rows,
        columns=tuple(scale.column for scale in scales),
        places={it: start + sum(widths[:place]) for place, it in enumerate(indices)},
        notes=tuple((mark, note) for note, mark in noted.items()),
        strands=dict(zip(indices, heights, strict=True)),
    )


def _labelled(
    placed: Sequence[tuple[Node, int]], room: _Room, free: float
) -> tuple[dict[str, float], dict[str, str], float]:
    """Place of each dot, each label as it is shown, and where the columns start.

    Steps are made narrower first, then labels are cut, so that all columns have room.
    """
    deepest = max((depth for _, depth in placed), default=0)
    names = [node.label for node, _ in placed]
    ways = [(step, _LONGEST) for step in room.steps]
    ways += [(room.steps[1], longest) for longest in range(_LONGEST - 1, room.shortest - 1, -1)]
    xs: dict[str, float] = {}
    labels: dict[str, str] = {}
    start = 0.0
    for widest, longest in ways:
        step = min(widest, _DEEPEST / max(deepest, 1))
        labels = cut_apart(names, longest)
        xs = {node.label: room.left + depth * step for node, depth in placed}
        ends = (xs[it] + _DOT + max(width(labels[it]) * _CHARACTER, room.labels) for it in names)
        start = max(ends, default=0.0) + room.gap
        if start <= free:
            break
    return xs, labels, start


def _rows(
    placed: Sequence[tuple[Node, int]],
    xs: Mapping[str, float],
    labels: Mapping[str, str],
    scales: Sequence[Scale],
    noted: Mapping[str, str],
) -> tuple[Row, ...]:
    with_size = len({node.size for node, _ in placed}) > 1
    ys = {node.label: _TOP + _ROW * (index + 0.5) for index, (node, _) in enumerate(placed)}
    reached = {node.parent: ys[node.label] for node, depth in placed if depth}
    return tuple(
        Row(
            x=xs[node.label],
            y=ys[node.label],
            stem=xs[node.parent] if depth else None,
            label=labels[node.label],
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
