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
    ("olmo2", "tiny"): Shape(8, 1, 512),
    ("olmo2", "1b"): Shape(16, 1, 4096),
    ("olmo2", "7b"): Shape(32, 1, 4096),
    ("olmo2", "13b"): Shape(40, 1, 4096),
    ("olmo2", "32b"): Shape(64, 1, 4096),
}
"""Shape by family and size."""


@dataclass(frozen=True)
class Widths:
    """How large the matrices of a family are in one size.

    Args:
        d_model: width of the residual stream.
        d_ff: width of the MLP.
        n_heads: query heads.
        n_kv_heads: key and value heads.
        n_embeddings: rows of the embedding and of the vocabulary head, which are not tied.
    """

    d_model: int
    d_ff: int
    n_heads: int
    n_kv_heads: int
    n_embeddings: int

    @property
    def attention(self) -> int:
        """Width of queries, keys and values of a token together."""
        return self.d_model * (self.n_heads + 2 * self.n_kv_heads) // self.n_heads

    @property
    def block_matrices(self) -> int:
        """Weights of a block's matrices, which are what quantisation makes smaller."""
        return self.d_model * (self.attention + self.d_model) + 3 * self.d_model * self.d_ff

    @property
    def block_rows(self) -> int:
        """Output rows of a block's matrices, each of which 8-bit weights give a scale."""
        return self.attention + self.d_model + 2 * self.d_ff + self.d_model

    def parameters(self, n_layers: int) -> int:
        """Parameters of the whole model: embeddings, blocks with four norms, final norm, head."""
        d_key = self.d_model * self.n_kv_heads // self.n_heads
        norms = self.d_model + d_key + 2 * self.d_model
        outside = 2 * self.n_embeddings * self.d_model + self.d_model
        return n_layers * (self.block_matrices + norms) + outside


# The same sources.
WIDTHS: Mapping[tuple[str, str], Widths] = {
    ("olmo3", "7b"): Widths(4096, 11008, 32, 32, 100278),
    ("olmo3", "32b"): Widths(5120, 27648, 40, 8, 100278),
    ("olmo2", "1b"): Widths(2048, 8192, 16, 16, 100352),
    ("olmo2", "7b"): Widths(4096, 11008, 32, 32, 100352),
    ("olmo2", "13b"): Widths(5120, 13824, 40, 40, 100352),
    ("olmo2", "32b"): Widths(5120, 27648, 40, 8, 100352),
}
"""Widths by family and size, of the released sizes."""
