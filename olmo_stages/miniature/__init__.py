"""The miniature family: tiny OLMo models that really went through every stage of training.

Importing this package is cheap: torch and transformers are imported by the workers that train,
and by `olmo_stages.miniature.behaviour`, which measures.
"""

from olmo_stages.miniature.family import clean, ensure, ensure_many, revisions
from olmo_stages.miniature.recipe import FAMILIES, PARENTS, STAGES, Recipe

__all__ = ["FAMILIES", "PARENTS", "STAGES", "Recipe", "clean", "ensure", "ensure_many", "revisions"]
