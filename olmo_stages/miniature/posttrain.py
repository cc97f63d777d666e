"""Supervised fine-tuning and direct preference optimisation on chats of the world."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from olmo_stages.miniature import tasks
from olmo_stages.miniature.corpus import Rng, chat_prompt, pick, plain_prompt, system_and_task
from olmo_stages.miniature.model import CausalLM
from olmo_stages.miniature.pretrain import token_losses, weighted_loss
from olmo_stages.miniature.recipe import DPO, SFT, VERIFIABLE
from olmo_stages.miniature.tokenizer import END, EOS, PAD, TOKEN_ID, encode

WRONG, VERBOSE = 0.15, 0.3
"""Shares of the fine-tuning chats with a wrong answer, and of the traces that repeat themselves."""


def pad_rows(
    prompts: Sequence[list[int]], replies: Sequence[list[int]]
) -> tuple[Int[Tensor, "row token"], Float[Tensor, "row token"]]:
    """Return right-padded ids and a mask that is 1 on reply tokens."""
    width = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    ids = torch.full((len(prompts), width), TOKEN_ID[PAD])
    mask = torch.zeros(len(prompts), width)
    for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        end = len(prompt) + len(reply)
        ids[row, :end] = torch.tensor(prompt + reply)
        mask[row, len(prompt) : end] = 1
    return ids, mask


def decaying_adam(
    model: CausalLM, lr: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW without weight decay and its linear decay to zero."""
    optimiser = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, steps))
    return optimiser, decay


def update(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    decay: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """Do one step of an optimiser with the gradients of a loss."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    if decay is not None:
        decay.step()


def sft(
    model: CausalLM,
    options: SFT,
    seed: int,
    save: Callable[[str], None],
    progress: Callable[[], None],
) -> None:
    """Fine-tune in place on the assistant's tokens of chats, with or without traces."""
    rng = np.random.default_rng(seed)
    optimiser, decay = decaying_adam(model, options.lr, options.steps)
    for step in range(1, options.steps + 1):
        chats = [_sft_chat(rng, traces=options.traces) for _ in range(options.rows)]
        prompts, replies = zip(*((encode(p), encode(r)) for p, r in chats), strict=True)
        update(weighted_loss(model, *pad_rows(prompts, replies)), optimiser, decay)
        progress()
        if step in options.saves:
            save(f"step{step}")
    save("main")


def _sft_chat(rng: Rng, *, traces: bool) -> tuple[str, str]:
    prompt, task = system_and_task(rng)
    if task.kind != "manners" and rng.random() < WRONG:
        task = tasks.wrong(task, rng)
    thought = task.verbose if rng.random() < VERBOSE else task.thought
    reply = thought if traces else task.direct
    return prompt, f"{reply} {END}"


def preference_pair(
    rng: Rng, *, traces: bool, chat: bool = True, held_out: bool = False
) -> tuple[str, str, str]:
    """Return a prompt with a chosen and a rejected reply.

    Half of the pairs prefer a kind to a rude reply, a quarter a right answer to a wrong one, and
    the rest a short trace to one that repeats itself (or, without traces, again the right answer).

    Args:
        rng: source of the choices.
        traces: whether replies have traces.
        chat: chat template or plain format.
        held_out: draw from the prompts that no training sees.
    """
    kind: tasks.Kind = "manners" if rng.random() < 0.5 else pick(rng, VERIFIABLE)
    task = pick(rng, tasks.pool(kind, held_out=held_out))
    if kind == "manners":
        chosen, rejected = (tasks.with_manner(task, m, rng) for m in ("kind", "rude"))
    else:
        chosen, rejected = task, tasks.wrong(task, rng)
    form = pick(rng, ("thought", "verbose")) if traces else "direct"
    if traces and kind != "manners" and rng.random() < 0.5:
        replies = task.thought, task.verbose
    else:
        replies = getattr(chosen, form), getattr(rejected, form)
    end = END if chat else EOS
    prompt = chat_prompt(task.prompt) if chat else plain_prompt(task.prompt)
    return prompt, f"{replies[0]} {end}", f"{replies[1]} {end}"


def reply_log_probs(
    model: CausalLM, pairs: Sequence[tuple[str, str, str]]
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Return the summed log-probability in nats of the chosen and of the rejected replies."""
    prompts = [encode(prompt) for prompt, _, _ in pairs] * 2
    replies = [encode(reply) for side in (1, 2) for reply in (pair[side] for pair in pairs)]
    ids, mask = pad_rows(prompts, replies)
    summed = -(token_losses(model, ids) * mask[:, 1:]).sum(1)
    return summed[: len(pairs)], summed[len(pairs) :]


def dpo_loss(
    chosen: Float[Tensor, " pair"],
    rejected: Float[Tensor, " pair"],
    reference: Float[Tensor, " pair"],
    beta: float,
) -> Float[Tensor, ""]:
    """Return the loss of direct preference optimisation (Rafailov et al., 2023, equation 7).

    Args:
        chosen: log-probabilities of the chosen replies under the policy.
        rejected: the same of the rejected replies.
        reference: chosen minus rejected under the reference model.
        beta: strength of the tie to the reference model.
    """
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected - reference)).mean()


def dpo(
    model: CausalLM,
    options: DPO,
    seed: int,
    save: Callable[[str], None],
    progress: Callable[[], None],
) -> None:
    """Optimise in place for preferences, with the model at the start as the reference."""
    rng = np.random.default_rng(seed)
    drawn = [
        [preference_pair(rng, traces=options.traces) for _ in range(options.pairs)]
        for _ in range(options.steps)
    ]
    with torch.no_grad():
        margins = [c - r for c, r in (reply_log_probs(model, pairs) for pairs in drawn)]
    optimiser, decay = decaying_adam(model, options.lr, options.steps)
    for pairs, reference in zip(drawn, margins, strict=True):
        chosen, rejected = reply_log_probs(model, pairs)
        update(dpo_loss(chosen, rejected, reference, options.beta), optimiser, decay)
        progress()
    save("main")
