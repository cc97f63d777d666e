"""Pretraining, midtraining and, for OLMo 3, long-context training of a base model."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from olmo_stages.miniature.corpus import MIXES, batches
from olmo_stages.miniature.model import CausalLM
from olmo_stages.miniature.recipe import Pretraining, Recipe

WARM_UP = 20
"""Steps over which the learning rate rises from 0."""


def orthogonalise(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Return the matrices with all singular values brought near 1 (0.7 to 1.2).

    Five steps of the quintic Newton-Schulz iteration of Muon (Keller Jordan, 2024).
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalise(matrices.mT).mT
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


class Muon:
    """Muon for the matrices of the blocks, in float32 and one batch for each shape.

    torch's own works in bfloat16, one matrix at a time, which costs half a step here.
    """

    def __init__(self, matrices: Iterable[torch.nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        self.groups = [(group, torch.zeros(len(group), *s)) for s, group in shapes.items()]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update all matrices from their gradients."""
        for group, moving in self.groups:
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            moving.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(moving, self.momentum))
            scale = max(1.0, update.shape[1] / update.shape[2]) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.add_(change, alpha=-lr * scale)


def token_losses(model: CausalLM, ids: Int[Tensor, "row token"]) -> Float[Tensor, "row token_1"]:
    """Return the cross-entropy in nats of each token but the first, given those before it."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    flat = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    return flat.view(ids.shape[0], -1)


def weighted_loss(
    model: CausalLM, ids: Int[Tensor, "row token"], weights: Float[Tensor, "row token"]
) -> Float[Tensor, ""]:
    """Return the mean loss in nats of the tokens, weighted; the first token is not predicted."""
    return (token_losses(model, ids) * weights[:, 1:]).sum() / weights[:, 1:].sum()


def pretrain(
    model: CausalLM,
    phases: Sequence[Pretraining],
    recipe: Recipe,
    seed: int,
    save: Callable[[str], None],
    progress: Callable[[], None],
) -> None:
    """Train a base model through its phases, in place.

    Args:
        model: untrained.
        phases: their lengths.
        recipe: learning rates.
        seed: of the documents.
        save: called with the name of each revision.
        progress: called after each step.
    """
    blocks = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "layers" in n)]
    muon = Muon(blocks)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0, foreach=True)
    total, first = sum(p.steps for p in phases), phases[0].steps
    done = 0
    for number, (phase, mix) in enumerate(zip(phases, MIXES[: len(phases)], strict=True), start=1):
        source = batches(mix, phase.rows, phase.tokens, np.random.default_rng([seed, number]))
        for step in range(phase.steps + 1):
            if step in phase.saves:
                save(f"stage{number}-step{step}")
            if step == phase.steps:
                break
            ids, weights = next(source)
            weighted_loss(model, torch.from_numpy(ids), torch.from_numpy(weights)).backward()
            rate = min(1.0, (done + 1) / WARM_UP, (total - done) / max(1, total - first))
            for group in adam.param_groups:
                group["lr"] = recipe.adam_lr * rate
            adam.step()
            muon.step(recipe.muon_lr * rate)
            model.zero_grad(set_to_none=True)
            done += 1
            progress()
    save("main")
