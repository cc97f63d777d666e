"""The forward pass that reads activations and keeps only what was asked for.

It runs the decoder without its vocabulary head, stops after the last layer asked for, pads on the
right (exact for causal models) with attention mask and position ids, and pools inside the hooks, so
that a batch leaves one vector per example, site, position and layer, or one per token asked for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int

from olmo_stages.errors import ModelError, NonFiniteError
from olmo_stages.models.captures import Capture, Key
from olmo_stages.models.memory import TokenBudget, is_exhausted
from olmo_stages.models.sites import (
    Block,
    Decoder,
    Hidden,
    device_of,
    devices_of,
    hooks,
    on_input,
    on_output,
)
from olmo_stages.types import EMBEDDING_LAYER, MEANS, Position, Site


@dataclass(frozen=True)
class Item:
    """One example, ready for the model.

    Args:
        id: for error messages.
        token_ids: the prompt, without padding.
        tokens: for each position, the indices of the tokens that are read, ascending.
    """

    id: str
    token_ids: tuple[int, ...]
    tokens: Mapping[Position, tuple[int, ...]]


class Stop(Exception):
    """What was asked for has been read."""


def batches(lengths: Sequence[int], token_budget: int) -> Iterator[slice]:
    """Cut neighbours into batches whose padded size stays within a budget.

    Args:
        lengths: tokens per example, best sorted, in the order in which they run.
        token_budget: largest number of tokens of a batch, padding included; an example that is
            longer by itself is a batch alone.

    Yields:
        Slices that cover `lengths` in order.
    """
    start, longest = 0, 0
    for i, length in enumerate(lengths):
        longest = max(longest, length)
        if i > start and longest * (i + 1 - start) > token_budget:
            yield slice(start, i)
            start, longest = i, length
    if lengths:
        yield slice(start, len(lengths))


def pooled(
    decoder: Decoder,
    items: Sequence[Item],
    captures: Sequence[Capture],
    layers: Sequence[int],
    *,
    token_budget: int | TokenBudget,
    on_batch: Callable[[int], None] = lambda _n_examples: None,
) -> dict[Key, Float[torch.Tensor, "row d_model"]]:
    """Run the decoder and pool its hidden states.

    Args:
        decoder: from `find_decoder`.
        items: in the order of the result; sorted by length they waste the least padding.
        captures: sites and positions.
        layers: block indices; -1 = the embeddings (input of block 0), whatever the site.
        token_budget: see `batches`; a `TokenBudget` is told, and keeps, how far it was halved. A
            batch for which memory does not suffice is done again in smaller ones.
        on_batch: told after each forward pass how many examples it held.

    Returns:
        One tensor per capture and layer on the CPU; float32 for means, which are also summed in
        float32, else the model's dtype. A row is an example or, at position `tokens`, a token:
        examples in order, the tokens of each ascending.

    Raises:
        ModelError: a token id that the model has no embedding for, or too little memory for a
            single example.
        NonFiniteError: names the first layer and example whose activations are not finite.
    """
    parts: dict[Key, list[torch.Tensor]] = {
        Key(*capture, layer): [] for capture in captures for layer in sorted(layers)
    }
    check_ids(decoder.n_embeddings, items)
    budget = TokenBudget(token_budget) if isinstance(token_budget, int) else token_budget
    lengths = [len(item.token_ids) for item in items]
    done = 0
    while done < len(items):
        batch = items[done:][next(batches(lengths[done:], budget.tokens))]
        found = _attempt(decoder, batch, captures, sorted(layers))
        if found is None:
            longest = max(len(item.token_ids) for item in batch)
            budget.halve(len(batch), longest, devices_of(decoder.model))
            continue
        for key, vectors in found.items():
            parts[key].append(vectors)
        done += len(batch)
        on_batch(len(batch))
    return {key: torch.cat(vectors) for key, vectors in parts.items()}


def _attempt(
    decoder: Decoder, batch: Sequence[Item], captures: Sequence[Capture], layers: Sequence[int]
) -> dict[Key, torch.Tensor] | None:
    """The rows of one batch on the CPU; None if memory ran out, which leaves nothing behind.

    Raises:
        RuntimeError: what else went wrong in the model.
    """
    try:
        found = _run(decoder, batch, captures, layers)
        for key, vectors in found.items():
            check_finite(key, batch, vectors)
        return {key: vectors.cpu() for key, vectors in found.items()}
    except MemoryError:
        return None
    except RuntimeError as error:
        if is_exhausted(error):
            return None
        raise


def _run(
    decoder: Decoder, batch: Sequence[Item], captures: Sequence[Capture], layers: Sequence[int]
) -> dict[Key, torch.Tensor]:
    device = device_of(decoder.model)
    ids, mask = padded(batch, device)
    chosen = {
        capture.position: token_mask(batch, capture.position, ids.shape[1], device)
        for capture in captures
    }
    found: dict[Key, torch.Tensor] = {}
    memory = _Together(layers)

    def register(stack: ExitStack) -> None:
        for layer in layers:
            for capture in captures:
                read = reader(found, Key(*capture, layer), chosen[capture.position], memory)
                place(stack, decoder.blocks[max(layer, 0)], capture.site, layer, read)
        # Registered after the readers, because hooks run in the order of their registration.
        if layers[-1] == EMBEDDING_LAYER:
            on_input(stack, decoder.blocks[0].module, stop)
        else:
            on_output(stack, decoder.blocks[layers[-1]].module, stop)

    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    with hooks(register), torch.inference_mode(), suppress(Stop):
        decoder.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return found


class _Together:
    """Memory for a batch's rows of all layers, taken at the first of them.

    Small pieces that stay would lie within the large ones that the CPU's blocks free, which would
    then be too small for the next block: memory would grow from layer to layer.

    Args:
        layers: those that are read.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        self._place = {layer: number for number, layer in enumerate(layers)}
        self._taken: dict[Capture, torch.Tensor] = {}

    def __call__(self, key: Key, rows: torch.Tensor) -> torch.Tensor:
        """The same rows, in that memory."""
        if rows.device.type != "cpu":
            return rows
        capture = Capture(key.site, key.position)
        if capture not in self._taken:
            self._taken[capture] = rows.new_empty(len(self._place), *rows.shape)
        return self._taken[capture][self._place[key.layer]].copy_(rows)


def place(
    stack: ExitStack, block: Block, site: Site, layer: int, read: Callable[[torch.Tensor], None]
) -> None:
    """Read a block at a site, or its input where the layer is the embeddings."""
    if layer == EMBEDDING_LAYER:
        on_input(stack, block.module, read)
        return
    match site:
        case "resid_pre":
            on_input(stack, block.module, read)
        case "attn_out":
            on_output(stack, block.attn, read)
        case "resid_mid":
            on_input(stack, block.mid, read)
        case "mlp_out":
            on_output(stack, block.mlp, read)
        case "resid_post":
            on_output(stack, block.module, read)


def reader(
    found: dict[Key, torch.Tensor],
    key: Key,
    chosen: Bool[torch.Tensor, "example token"],
    keep: Callable[[Key, torch.Tensor], torch.Tensor] = lambda _, rows: rows,
) -> Callable[[torch.Tensor], None]:
    """What pools hidden states as the key says and puts the rows into `found`, as they are kept."""

    def read(hidden: Hidden) -> None:
        if hidden.shape[:2] != chosen.shape:
            raise ModelError(
                f"layer {key.layer}, {key.site}: shape {tuple(hidden.shape)} for a batch of "
                f"{tuple(chosen.shape)} tokens; this architecture is not supported"
            )
        rows = pool(hidden, chosen.to(hidden.device), mean=key.position in MEANS)
        # The tokens of all layers together may not fit beside the model.
        found[key] = keep(key, rows.cpu() if key.position == "tokens" else rows)

    return read


def pool(
    hidden: Hidden, chosen: Bool[torch.Tensor, "example token"], *, mean: bool
) -> Float[torch.Tensor, "row d_model"]:
    """Pool the chosen tokens of each example.

    Args:
        hidden: hidden states, in the model's dtype.
        chosen: the tokens.
        mean: average in float32; else each token as it is.

    Returns:
        One vector per example if `mean`; else one per token, by example, then ascending.
    """
    if not mean:
        return hidden[chosen]
    # `where`, not a product: what padding holds may be nan, and 0 * nan is nan.
    kept = torch.where(chosen[..., None], hidden.float(), 0.0)
    return kept.sum(dim=1) / chosen.sum(dim=1, keepdim=True)


def stop(_hidden: torch.Tensor) -> None:
    """End a forward pass, from a hook."""  # noqa: DOC501
    raise Stop


def padded(
    batch: Sequence[Item], device: torch.device
) -> tuple[Int[torch.Tensor, "example token"], Int[torch.Tensor, "example token"]]:
    """Token ids padded on the right with 0, and the mask that hides the padding."""
    longest = max(len(item.token_ids) for item in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for row, item in enumerate(batch):
        ids[row, : len(item.token_ids)] = torch.tensor(item.token_ids)
        mask[row, : len(item.token_ids)] = 1
    return ids.to(device), mask.to(device)


def token_mask(
    batch: Sequence[Item], position: Position, width: int, device: torch.device
) -> Bool[torch.Tensor, "example token"]:
    """The tokens that a position reads.

    Raises:
        ModelError: another number of tokens of an example than the position allows.
    """
    chosen = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, item in enumerate(batch):
        chosen[row, list(item.tokens[position])] = True
    counts = chosen.sum(dim=1)
    several = position in {*MEANS, "tokens"}
    if not bool((counts >= 1).all() if several else (counts == 1).all()):
        raise ModelError(
            f"position {position!r} must choose {'at least' if several else 'exactly'} one token "
            f"of each example, not {counts.tolist()}"
        )
    return chosen.to(device)


def check_ids(n_embeddings: int, items: Sequence[Item]) -> None:
    """Refuse token ids that the model has no embedding for.

    Raises:
        ModelError: names the first such example.
    """
    for item in items:
        if not item.token_ids or max(item.token_ids) >= n_embeddings:
            raise ModelError(
                f"example {item.id!r}: token ids {item.token_ids[:3]}... do not fit the model's "
                f"{n_embeddings} embeddings; tokenizer and weights do not belong together"
            )


def check_finite(key: Key, batch: Sequence[Item], vectors: torch.Tensor) -> None:
    """Refuse activations that are not finite.

    Raises:
        NonFiniteError: names layer, site and the first example.
    """
    finite = torch.isfinite(vectors).all(dim=-1)
    if not bool(finite.all()):
        tokens = key.position == "tokens"
        owners = [item.id for item in batch for _ in (item.tokens["tokens"] if tokens else (0,))]
        first = owners[int(torch.nonzero(~finite)[0])]
        raise NonFiniteError(
            f"layer {key.layer}, {key.site}: activations of example {first!r} are not finite in "
            f"{vectors.dtype}; use compute.dtype=float32 or leave the example out"
        )
