"""Figures that analyses hand out, as plotly JSON text; plotly is imported only to draw.

Lines over layers (`layer_curves`, and `stage_curves` for all stages of a study), pairs of layers
(`heat_map`), pairs of stages (`stage_matrix`), numbers along training (`trajectory.trajectory`) and
tokens (`token_map.token_map`). Intervals and nulls are drawn or are in the hover text, an undefined
value is a gap or a cross, and text from data is shown as it is.

`layout.meta` of each holds `title` (plain, on one line) and `caption`, both not escaped, and
`metric`, `variant` and `trait`: lists of what the measurements behind the figure have in these
columns. Where they are those of the jobs that were put together, not of the same result, `of` is
`jobs`; where rows of a table of the result are behind it, `table` says which (`frame.of_table`).

A page can show a figure on a light or a dark background: lines are greys and colours that are seen
on both (`palette`), fonts have no colour of their own. It sets `layout.paper_bgcolor` and
`layout.plot_bgcolor` to `rgba(0,0,0,0)` and `layout.font.color` to that of its text. Menus are dark
on light and stay so. What it says itself it can leave out: without `layout.title`, `margin.t` may
be smaller by 19 for each of its lines.
"""

from olmo_stages.figures.curves import layer_curves, logarithmic
from olmo_stages.figures.frame import of_jobs
from olmo_stages.figures.layer_map import heat_map
from olmo_stages.figures.overlay import stage_curves
from olmo_stages.figures.stage_map import stage_matrix

__all__ = ["heat_map", "layer_curves", "logarithmic", "of_jobs", "stage_curves", "stage_matrix"]
