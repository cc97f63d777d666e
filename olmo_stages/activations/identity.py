"""What makes two requests the same: everything that changes a number, nothing else."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from olmo_stages.models.captures import Capture

EXTRACTOR_VERSION = 1
"""Raise it when the code makes other numbers of the same inputs, so that old entries miss: when
prompts, spans or positions change (olmo_stages.data), or sites and pooling (olmo_stages.models)."""


@dataclass(frozen=True)
class PassIdentity:
    """Identity of a forward pass over a data set.

    Batch size, device or devices and thread count are not part of it: they change rounding at most
    (with int8 weights also, by its error at most, which columns of a batch count as outliers).

    Args:
        weights: digest of the weights, or of config and seed for a random initialisation.
        random_init: seed of a random initialisation; None = trained weights.
        dtype: dtype of weights and activations.
        quantisation: of the weights, one of `SCHEMES` of olmo_stages.models.compute.
        attention: attention implementation.
        tokenizer: digest of the tokenizer's files, chat template included.
        format: how examples become prompts.
        data: digest of the examples.
        max_length: tokens after which a prompt is cut.
        truncation: side from which it is cut.
        extractor: version of the code that reads and pools.
    """

    weights: str
    random_init: int | None
    dtype: str
    quantisation: str
    attention: str
    tokenizer: str
    format: str
    data: str
    max_length: int
    truncation: str = "left"
    extractor: int = EXTRACTOR_VERSION

    @property
    def key(self) -> str:
        """Digest of all fields."""
        return digest(asdict(self))


def entry_key(identity: PassIdentity, captures: Iterable[Capture], layers: Iterable[int]) -> str:
    """Digest of a pass and of what is kept of it; the order of captures and layers is no part."""
    return digest([identity.key, sorted(set(captures)), sorted(set(layers))])


def digest(content: object) -> str:
    """SHA-256 of the canonical JSON of `content`."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
