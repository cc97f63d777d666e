"""What the checkpoints of a released family have in common in one size."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """What the checkpoints of a family have in common in one size.

    Args:
        n_layers: number of blocks.
        full_every: every so many-th block has full attention, the others a sliding window.
        context: longest prompt of the released model, in tokens.
        pretraining_context: of the revisions before the context was extended, where it was.
    """

    n_layers: int
    full_every: int
    context: int
    pretraining_context: int | None = None

    @property
    def layer_types(self) -> tuple[str, ...]:
        """`sliding_attention` or `full_attention`, one per block."""
        return tuple(
            "sliding_attention" if (i + 1) % self.full_every else "full_attention"
            for i in range(self.n_layers)
        )


# Olmo 3 technical report, table 33; OLMo's configs/official-*; the miniature family's recipe.
SHAPES: Mapping[tuple[str, str], Shape] = {
    ("olmo3", "tiny"): Shape(8, 4, 512),
    ("olmo3", "7b"): Shape(32, 4, 65536, 8192),
    ("olmo3", "32b"): Shape(64, 4, 65536, 8192),
    ("olmo2", "1b"): Shape(16, 1, 4096),
    ("olmo2", "7b"): Shape(32, 1, 4096),
    ("olmo2", "13b"): Shape(40, 1, 4096),
    ("olmo2", "32b"): Shape(64, 1, 4096),
}
"""Shape by family and size."""
