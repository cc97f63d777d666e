"""What is around every figure: title, caption, axes, menus and legend, for light and dark pages."""

import json
import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from olmo_stages.figures.palette import GREY
from olmo_stages.figures.wording import MOST, escape
from olmo_stages.types import Measurement

GRID = "rgba(128,128,128,0.25)"
"""Of grid lines."""

SHADED = "rgba(128,128,128,0.13)"
"""Of stretches of an axis that are set off."""

AXIS = {"showgrid": True, "gridcolor": GRID, "zeroline": False, "linecolor": GREY}
"""Of axes with lines."""

_WIDEST = 46  # characters of a line of the title on 400 pixels
_LINE, _MENU, _SPACE = 19, 40, 16  # pixels
_STEPS = 4  # of the bar of colours


def frame(
    title: str,
    caption: str,
    rows: Sequence[Measurement],
    *,
    menu: bool = False,
    above: int = 0,
) -> dict[str, Any]:
    """Return the layout that every figure begins with.

    Args:
        title: broken into lines that fit a narrow page.
        caption: goes into `layout.meta`, as it is, with the plain title and with which rows are
            behind the figure.
        rows: the measurements behind it.
        menu: whether there is one, between title and figure.
        above: pixels that the figure needs above its axes for itself.
    """
    lines = wrap(title, _WIDEST) or [""]
    top = _SPACE + _LINE * len(lines) + above + (_MENU if menu else _SPACE)
    return {
        "template": "none",
        "title": {
            "text": "<br>".join(map(escape, lines)),
            "font": {"size": 15},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"l": 10, "t": 12},
        },
        "margin": {"l": 60, "r": 20, "t": top, "b": 60},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "meta": {"title": title, "caption": caption} | _names(rows),
    }


def of_jobs(figure: str) -> str:
    """Say of a figure that the measurements behind it are those of the jobs put together."""
    drawn = json.loads(figure)
    drawn["layout"]["meta"]["of"] = "jobs"
    return json.dumps(drawn)


def of_table(figure: str, name: str, most: int | None = None, **where: str) -> str:
    """Say of a figure that rows of a table of its result are behind it.

    Args:
        figure: as JSON text.
        name: of the table.
        most: only the first so many of the rows; None = all.
        where: what the rows have in these columns.
    """
    drawn = json.loads(figure)
    drawn["layout"]["meta"]["table"] = {"name": name, "where": where, "most": most}
    return json.dumps(drawn)


def legend(y: float = -0.25) -> dict[str, Any]:
    """Return a legend below the figure, which leaves it its width on a narrow page.

    Args:
        y: its upper end, in heights of the axes.
    """
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": y, "yanchor": "top"}


def menu(
    buttons: Sequence[dict[str, Any]], active: int = 0, *, right: bool = False
) -> dict[str, Any]:
    """Return a menu above the figure; dark on light on every page, as plotly's own colours are."""
    return {
        "buttons": list(buttons),
        "active": active,
        "x": 1 if right else 0,
        "xanchor": "right" if right else "left",
        "y": 1,
        "yanchor": "bottom",
        "pad": {"b": 6},
        "bgcolor": "#eceef1",
        "bordercolor": GREY,
        "font": {"color": "#1b1f24", "size": 12},
    }


def colours(label: str, limits: tuple[float | int, float | int]) -> dict[str, Any]:
    """Return the range of a heat map's colours, with a bar that says it.

    Args:
        label: of the bar.
        limits: values of the first and the last colour.
    """
    low, high = limits
    values = [low + (high - low) * step / _STEPS for step in range(_STEPS + 1)]
    digits = min(MOST, max(0, 1 - math.floor(math.log10((high - low) / _STEPS))))
    bar = {
        "title": {"text": escape(label), "side": "right"},
        "thickness": 14,
        "outlinewidth": 0,
        "tickvals": values,
        "ticktext": [_tick(value, digits) for value in values],
    }
    return {"zmin": low, "zmax": high, "colorbar": bar}


def _tick(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    short = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if short == "-0" else short


def _names(rows: Sequence[Measurement]) -> dict[str, list[str]]:
    found = {
        field: list(dict.fromkeys(getattr(row, field) for row in rows))
        for field in ("metric", "variant", "trait", "stage", "reference")
        if rows
    }
    # Each of several references belongs to some of the rows only, which no list of them says.
    if len(found.get("reference", [])) > 1:
        del found["reference"]
    return found
