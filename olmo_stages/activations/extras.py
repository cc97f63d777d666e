"""What a forward pass keeps beyond what is asked for, so that the next analysis needs no pass.

Other layers and positions of a pass cost the time to write them. They are kept where that is less
than a tenth of the time of the pass itself. Both are estimated from the model's shape and the
length of the data alone, so that every process comes to the same, and a dry run too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from olmo_stages.activations.passes import Pass
from olmo_stages.activations.request import Work
from olmo_stages.models.captures import Capture
from olmo_stages.rates import FLOPS, READ_BYTES, tokens
from olmo_stages.types import EMBEDDING_LAYER, MEANS, PooledPosition, Site

SHARE = 0.1
"""Of a forward pass's time, for what nobody has asked for."""

MOST_BYTES = 1e9
"""For what nobody has asked for of one pass, since whoever reads an entry checks all of it."""

POSITIONS: tuple[PooledPosition, ...] = (
    "last",
    "mean",
    "last_prompt",
    "response_mean",
    "last_user",
    "last_content",
    "first_response",
    "think_mean",
    "answer_mean",
    "first_content",
)
"""The likeliest to be asked for first."""

_WRITTEN_BYTES_S = 0.5e9
_START_S = 0.2


def with_extras(asked: Pass, device: str) -> Pass:
    """Add to a pass what else it is to keep.

    Args:
        asked: what is asked of it.
        device: `cuda` or `cpu`, where it runs.

    Returns:
        The pass with what else is to be had at less than `SHARE` of it. Positions that some example
        does not have are among them, and are left out when the examples have been tokenised.
    """
    work = asked.work
    captures, layers = sorted(set(asked.captures)), tuple(sorted(set(asked.layers)))
    room = min(SHARE * _seconds(work, max(layers) + 1, device) * _WRITTEN_BYTES_S, MOST_BYTES)
    more = _layers(work, layers)
    size = sum(_bytes(work, it, len(more) - len(layers)) for it in captures)
    if size <= room:
        layers, room = more, room - size
    for capture in _others(captures) if work.d_model else ():
        size = _bytes(work, capture, len(layers))
        if size <= room:
            captures.append(capture)
            room -= size
    return replace(asked, captures=tuple(sorted(captures)), layers=layers)


def _layers(work: Work, asked: Sequence[int]) -> tuple[int, ...]:
    """All layers below the last one asked for, and all others if few blocks are left to compute."""
    n_run = max(asked) + 1
    few = work.n_layers - n_run <= SHARE * n_run
    return tuple(range(EMBEDDING_LAYER, work.n_layers if few else n_run))


def _others(asked: Sequence[Capture]) -> Iterator[Capture]:
    """The other pooled positions of the sites that are read."""
    sites: list[Site] = sorted({it.site for it in asked})
    for position in POSITIONS:
        for site in sites:
            if Capture(site, position) not in asked:
                yield Capture(site, position)


def _seconds(work: Work, n_blocks: int, device: str) -> float:
    """About how long the pass takes, from reading the weights (as bfloat16) on."""
    parameters = 12 * n_blocks * work.d_model**2
    run = 2 * parameters * tokens(work.dataset) / FLOPS[device]
    return _START_S + 2 * parameters / READ_BYTES + run


def _bytes(work: Work, capture: Capture, n_layers: int) -> float:
    """About what a capture takes in the store."""
    rows = tokens(work.dataset) if capture.position == "tokens" else len(work.dataset.examples)
    single = capture.position in MEANS or work.identity.dtype == "float32"
    return float(rows * n_layers * work.d_model * (4 if single else 2))
