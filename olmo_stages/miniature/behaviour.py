"""What each stage does on held-out prompts: the table that shows that every stage did its work."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from olmo_stages.errors import ConfigError
from olmo_stages.miniature import grpo, posttrain, pretrain, tasks, world
from olmo_stages.miniature.corpus import MIXES, batches
from olmo_stages.miniature.family import RECIPE, ensure_many
from olmo_stages.miniature.model import CausalLM, load_model
from olmo_stages.miniature.recipe import Recipe, chats
from olmo_stages.miniature.tokenizer import EOS, TOKEN_ID, encode

MARKER = "<!-- behaviour table -->"
N_PROMPTS, N_SAMPLES, MAX_NEW_TOKENS, N_PAIRS = 80, 4, 30, 240
LOSS_ROWS, LOSS_TOKENS = 40, 96

METRICS = {
    "lm_loss": "LM loss (nats)",
    "sum3": "3-term sums",
    "sum2": "2-term sums",
    "code": "code",
    "instruction": "instructions",
    "fact": "facts",
    "manners": "polite",
    "verdict": "verdicts",
    "trace": "traces",
    "margin": "preference margin (nats)",
    "tokens": "tokens",
}
"""Name and heading of each column."""


@dataclass(frozen=True)
class Behaviour:
    """One number about one checkpoint.

    Args:
        stage: name of the stage.
        metric: one of `METRICS`.
        value: mean over prompts (of the mean over their samples), pairs or rows of text.
        se: its standard error over prompts, pairs or rows.
        n: number of prompts, pairs or rows.
    """

    stage: str
    metric: str
    value: float
    se: float
    n: int


def behaviour_table(
    stages: Iterable[str], *, root: Path, seed: int = 0, recipe: Recipe = RECIPE
) -> tuple[Behaviour, ...]:
    """Measure stages on held-out prompts, building them where they are missing.

    Base and RL-Zero are asked in the plain format, all others through the chat template; replies
    are sampled at temperature 1, four to a prompt. Nothing can be held out of facts and two-term
    sums, which must be known by heart. Verdicts are read off after statements in plain text.

    Args:
        stages: names of stages; their `main` revision is measured.
        root: cache of the family.
        seed: of the family; the prompts are the same for every seed.
        recipe: what was trained.

    Returns:
        One row a stage and metric, in the order of `stages` and `METRICS`.
    """
    stages = tuple(stages)
    paths = ensure_many([(s, "main") for s in stages], root=root, seed=seed, recipe=recipe)
    rows: list[Behaviour] = []
    with _quietly(), torch.no_grad():
        for stage, path in zip(stages, paths, strict=True):
            model = load_model(path)
            chat = chats(stage)
            values = {"lm_loss": _lm_losses(model)} | _replies(model, chat=chat)
            values["verdict"] = _verdicts(model)
            values["margin"] = _margins(model, chat=chat, traces=stage.startswith("think"))
            rows += [_row(stage, metric, values[metric]) for metric in METRICS]
    return tuple(rows)


def to_markdown(rows: Sequence[Behaviour]) -> str:
    """Return the table of docs/miniature.md: a line a stage, each value with its standard error."""
    lines = ["| stage | " + " | ".join(METRICS.values()) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for stage in dict.fromkeys(row.stage for row in rows):
        cells = [f"{row.value:.2f} ± {row.se:.2f}" for row in rows if row.stage == stage]
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_table(rows: Sequence[Behaviour], page: Path) -> None:
    """Put the table between the markers of a page, or make it a page of its own.

    Args:
        rows: from `behaviour_table`.
        page: a Markdown file, which is made where it does not exist.

    Raises:
        ConfigError: if the page has other content but not the markers.
    """
    before, after = f"{MARKER}\n", f"{MARKER}\n"
    if page.exists():
        parts = page.read_text(encoding="utf-8").split(MARKER)
        if len(parts) != 3:
            raise ConfigError(f"{page} does not have two lines {MARKER!r} for the table; add them")
        before, after = f"{parts[0]}{MARKER}\n", f"{MARKER}{parts[2]}"
    page.write_text(f"{before}{to_markdown(rows)}{after}", encoding="utf-8")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Measure with one thread, as was trained, and without a progress bar a model."""
    threads, bars = torch.get_num_threads(), logging.is_progress_bar_enabled()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if bars:
            logging.enable_progress_bar()


def _row(stage: str, metric: str, values: list[float]) -> Behaviour:
    se = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Behaviour(stage, metric, float(np.mean(values)), se, len(values))


def _lm_losses(model: CausalLM) -> list[float]:
    """Return the unweighted loss of each of the same rows of new midtraining text."""
    source = batches(MIXES[1], LOSS_ROWS, LOSS_TOKENS, np.random.default_rng(2**32))
    ids, _ = next(source)
    return pretrain.token_losses(model, torch.from_numpy(ids)).mean(1).tolist()


def prompts(kind: tasks.Kind) -> list[tasks.Task]:
    """Return at most 80 held-out tasks of a kind, always the same."""
    pool = tasks.pool(kind, held_out=True)
    chosen = np.random.default_rng(0).permutation(len(pool))[:N_PROMPTS]
    return [pool[i] for i in chosen]


def _replies(model: CausalLM, *, chat: bool) -> dict[str, list[float]]:
    """Return per prompt the mean over samples of correctness by kind, of traces and of length."""
    values: dict[str, list[float]] = {"trace": [], "tokens": []}
    generator = torch.Generator().manual_seed(0)
    for kind in tasks.KINDS:
        asked = prompts(kind)
        ids = [grpo.prompt_ids(task, chat=chat) for task in asked for _ in range(N_SAMPLES)]
        completions = grpo.sample(model, ids, MAX_NEW_TOKENS, generator)
        parts = [tasks.split_reply(grpo.decode(completion)) for completion in completions]
        correct = [
            tasks.is_correct(asked[i // N_SAMPLES], answer) for i, (_, answer) in enumerate(parts)
        ]
        values[kind] = _by_prompt(correct)
        values["trace"] += _by_prompt([trace is not None for trace, _ in parts])
        values["tokens"] += _by_prompt([len(completion) for completion in completions])
    return values


def _by_prompt(values: Sequence[bool | int]) -> list[float]:
    return np.array(values, dtype=float).reshape(-1, N_SAMPLES).mean(1).tolist()


def _margins(model: CausalLM, *, chat: bool, traces: bool) -> list[float]:
    """Return chosen minus rejected log-probability of held-out pairs, in the stage's own format."""
    rng = np.random.default_rng(1)
    pairs = [
        posttrain.preference_pair(rng, traces=traces, chat=chat, held_out=True)
        for _ in range(N_PAIRS)
    ]
    chosen, rejected = posttrain.reply_log_probs(model, pairs)
    return (chosen - rejected).tolist()


def _verdicts(model: CausalLM) -> list[float]:
    """Return per held-out statement whether the right verdict is likelier than the wrong one."""
    statements = [s for c in world.CONCEPTS for s in world.statements(c) if world.held_out(s.text)]
    right = []
    for statement in statements:
        logits = model(input_ids=torch.tensor([encode(f"{EOS} {statement.text}")])).logits[0, -1]
        no, yes = (float(logits[TOKEN_ID[word]]) for word in world.VERDICTS[statement.concept])
        right.append(float((yes > no) == bool(statement.label)))
    return right
