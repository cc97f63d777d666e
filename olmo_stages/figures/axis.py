"""The axis of training that figures are drawn along; `olmo_stages.revisions.axis` lays it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmo_stages.figures.frame import AXIS, SHADED
from olmo_stages.figures.wording import escape

NAMES = 18
"""Pixels above the axes for the names of the stretches."""


@dataclass(frozen=True)
class Axis:
    """Where stages and revisions are on the horizontal axis.

    Args:
        at: position by label, in the order of training.
        ticks: text below each label.
        titles: name of a stretch with its left and right end, e.g. `base stage1`.
        joins: pairs of labels of which the second was trained from the first, with no other label
            between them; lines follow them, so that a branch of the lineage is a branch.
        told: what the hover text says of each label.
    """

    at: Mapping[str, float]
    ticks: Mapping[str, str]
    titles: Sequence[tuple[str, float, float]]
    joins: Sequence[tuple[str, str]]
    told: Mapping[str, str]

    def layout(self, y_label: str) -> dict[str, Any]:
        """Return what plotly's layout says of this axis, each stretch shaded and named."""
        ends = [min(self.at.values()) - 0.5, max(self.at.values()) + 0.5]
        shapes = [
            {
                "type": "rect",
                "xref": "x",
                "yref": "paper",
                "x0": left - 0.25,
                "x1": right + 0.25,
                "y0": 0,
                "y1": 1,
                "fillcolor": SHADED,
                "line": {"width": 0},
                "layer": "below",
            }
            for _, left, right in self.titles
        ]
        names = [
            {
                "text": escape(name),
                "x": (left + right) / 2,
                "y": 1.0,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 11},
            }
            for name, left, right in self.titles
        ]
        shown = {label: text for label, text in self.ticks.items() if text}
        return {
            "xaxis": {
                **AXIS,
                "tickvals": [self.at[label] for label in shown],
                "ticktext": [escape(text) for text in shown.values()],
                "range": ends,
                "automargin": True,
                "tickangle": -45,
            },
            "yaxis": {**AXIS, "title": {"text": escape(y_label)}, "automargin": True},
            "shapes": shapes,
            "annotations": names,
        }
