"""Sampling from a model, and reinforcement learning with verifiable rewards."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from olmo_stages.miniature import tasks
from olmo_stages.miniature.corpus import chat_prompt, pick, plain_prompt
from olmo_stages.miniature.model import CausalLM
from olmo_stages.miniature.posttrain import pad_rows, update
from olmo_stages.miniature.pretrain import token_losses
from olmo_stages.miniature.recipe import RL
from olmo_stages.miniature.tokenizer import END, EOS, PAD, TOKEN_ID, encode
from olmo_stages.miniature.world import vocabulary

TOKENS = vocabulary()
STOPS = frozenset({TOKEN_ID[EOS], TOKEN_ID[END]})


@torch.no_grad()
def sample(
    model: CausalLM,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """Sample one completion of each prompt at temperature 1 from the full distribution.

    Args:
        model: what to sample from.
        prompts: token ids; they may differ in length.
        max_new_tokens: longest completion.
        generator: source of the choices.

    Returns:
        The sampled ids, up to and including the first stop token.
    """
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), TOKEN_ID[PAD])
    mask = torch.zeros(len(prompts), width + max_new_tokens, dtype=torch.long)
    mask[:, width:] = 1
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    sampled: list[Tensor] = []
    done = torch.zeros(len(prompts), dtype=torch.bool)
    cache, start = None, 0
    for end in range(width, width + max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, start = output.past_key_values, end
        chances = output.logits[:, -1].softmax(-1)
        ids = torch.multinomial(chances, 1, generator=generator)
        sampled.append(ids[:, 0])
        done |= torch.isin(ids[:, 0], torch.tensor(sorted(STOPS)))
        if bool(done.all()):
            break
    return [_until_stop(row.tolist()) for row in torch.stack(sampled, 1)]


def _until_stop(ids: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in STOPS]
    return ids[: ends[0] + 1] if ends else ids


def decode(ids: Sequence[int]) -> str:
    """Return the text of a completion without its stop token."""
    return " ".join(TOKENS[token] for token in ids if token not in STOPS)


def prompt_ids(task: tasks.Task, *, chat: bool) -> list[int]:
    """Return the ids of a task's prompt in chat or plain format."""
    return encode(chat_prompt(task.prompt) if chat else plain_prompt(task.prompt))


def reward(task: tasks.Task, completion: Sequence[int], *, traces: bool) -> float:
    """Return 1 for a finished completion whose final answer is right (or polite), else 0.

    Args:
        task: what was asked.
        completion: sampled ids.
        traces: whether a complete trace is required; without, one is an error.
    """
    if not completion or completion[-1] not in STOPS:
        return 0.0
    trace, answer = tasks.split_reply(decode(completion))
    return float((trace is not None) == traces and tasks.is_correct(task, answer))


def advantages(rewards: Float[Tensor, "prompt sample"]) -> Float[Tensor, "prompt sample"]:
    """Return rewards minus the mean of their prompt.

    Group-relative (GRPO) without division by the standard deviation, as OLMo 3 does, which would
    give most weight to prompts that are nearly always or nearly never solved.
    """
    return rewards - rewards.mean(1, keepdim=True)


def policy_loss(
    model: CausalLM,
    ids: Int[Tensor, "row token"],
    mask: Float[Tensor, "row token"],
    advantage: Float[Tensor, " row"],
) -> Float[Tensor, ""]:
    """Return the policy-gradient loss, averaged over tokens; one update a sample needs no ratio."""
    losses = token_losses(model, ids) * mask[:, 1:]
    return (losses * advantage[:, None]).sum() / mask[:, 1:].sum()


def rlvr(
    model: CausalLM,
    options: RL,
    seed: int,
    save: Callable[[str], None],
    progress: Callable[[], None],
    *,
    traces: bool,
) -> None:
    """Reinforce in place what earns the reward."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(
        model.parameters(), options.lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    for step in range(1, options.steps + 1):
        chosen = [
            pick(rng, tasks.pool(options.tasks[(step + i) % len(options.tasks)], held_out=False))
            for i in range(options.prompts)
        ]
        prompts = [
            prompt_ids(task, chat=options.chat) for task in chosen for _ in range(options.samples)
        ]
        completions = sample(model, prompts, options.max_new_tokens, generator)
        rewards = torch.tensor([
            reward(chosen[row // options.samples], completion, traces=traces)
            for row, completion in enumerate(completions)
        ])
        advantage = advantages(rewards.view(options.prompts, options.samples)).flatten()
        useful = [row for row, value in enumerate(advantage.tolist()) if value]
        if useful:
            ids, mask = pad_rows([prompts[i] for i in useful], [completions[i] for i in useful])
            update(policy_loss(model, ids, mask, advantage[useful]), optimiser)
        progress()
        if step in options.saves:
            save(f"step_{step}")
    save("main")
