"""What did each post-training stage do to this model? Experiments across the stages of OLMo 3."""

from jaxtyping import install_import_hook

__version__ = "0.1.0"

# Here rather than in run.py, because a Slurm worker imports the package but never executes run.py.
install_import_hook("olmo_stages", "beartype.beartype")
