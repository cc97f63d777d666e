"""The axis of training that figures are drawn along; `olmo_stages.revisions.axis` lays it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmo_stages.figures.wording import escape

_STRETCH = "rgba(0,0,0,0.04)"


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

    def layout(self, title: str, y_label: str) -> dict[str, Any]:
        """Return plotly's layout of a figure along this axis, each stretch shaded and named."""
        lines = {"gridcolor": "#eeeeee", "zeroline": False, "linecolor": "#444444"}
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
                "fillcolor": _STRETCH,
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
            "template": "none",
            "title": {"text": escape(title), "x": 0.02, "xanchor": "left"},
            "xaxis": {
                **lines,
                "showgrid": True,
                "tickvals": [self.at[label] for label in shown],
                "ticktext": [escape(text) for text in shown.values()],
                "range": ends,
                "automargin": True,
                "title": {"text": "stage; where a stretch is named, step within it (log)"},
            },
            "yaxis": {**lines, "title": {"text": escape(y_label)}},
            "shapes": shapes,
            "annotations": names,
            "legend": {"orientation": "v"},
            "margin": {"t": 110},
            "hovermode": "closest",
        }
