"""Figures that analyses hand out, as plotly JSON text; plotly is imported only to draw.

Lines over layers (`layer_curves`), pairs of layers (`heat_map`) and pairs of stages
(`stage_matrix`). Colours can be told apart with any colour vision, intervals and nulls are drawn or
are in the hover text, an undefined value is a gap, and text from data is shown as it is.
"""

from olmo_stages.figures.curves import layer_curves, logarithmic
from olmo_stages.figures.layer_map import heat_map
from olmo_stages.figures.stage_map import stage_matrix

__all__ = ["heat_map", "layer_curves", "logarithmic", "stage_matrix"]
