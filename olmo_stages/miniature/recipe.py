"""The recipe of the miniature family: which stage comes from which, and how long each trains."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from olmo_stages.miniature.tasks import Kind

PARENTS: dict[str, str | None] = {
    "base": None,
    "think_sft": "base",
    "think_dpo": "think_sft",
    "think_rlvr": "think_dpo",
    "instruct_sft": "think_sft",
    "instruct_dpo": "instruct_sft",
    "instruct_rlvr": "instruct_dpo",
    "rl_zero_math": "base",
    "rl_zero_code": "base",
    "rl_zero_if": "base",
    "rl_zero_general": "base",
    "rl_zero_mix": "base",
    "olmo2_base": None,
    "olmo2_sft": "olmo2_base",
    "olmo2_dpo": "olmo2_sft",
    "olmo2_instruct": "olmo2_dpo",
}
"""The stage that each stage was trained from, parents first."""

STAGES: tuple[str, ...] = tuple(PARENTS)

Family = Literal["olmo3", "olmo2"]

FAMILIES: dict[Family, tuple[str, ...]] = {
    "olmo3": tuple(stage for stage in STAGES if not stage.startswith("olmo2")),
    "olmo2": tuple(stage for stage in STAGES if stage.startswith("olmo2")),
}
"""The stages of each architecture; those of one share no ancestor with those of the other."""


def family(stage: str) -> Family:
    """Return the architecture of a stage."""
    return "olmo2" if stage in FAMILIES["olmo2"] else "olmo3"


def chats(stage: str) -> bool:
    """Whether a stage is asked through the chat template; the others read plain text."""
    return PARENTS[stage] is not None and not stage.startswith("rl_zero")


@dataclass(frozen=True)
class Architecture:
    """Shape of the models.

    Args:
        n_layers: blocks; of OLMo 3 every fourth has full attention, the others a sliding window,
            of OLMo 2 all have full attention.
        d_model: width of the residual stream.
        d_ff: width of the feed-forward layer.
        n_heads: attention heads.
        window: tokens a sliding layer sees, the current one included.
        max_positions: longest context.
    """

    n_layers: int = 8
    d_model: int = 64
    d_ff: int = 176
    n_heads: int = 4
    window: int = 16
    max_positions: int = 512


@dataclass(frozen=True)
class Pretraining:
    """One phase of pretraining: `steps` batches of `rows` x `tokens`, saved after some steps."""

    steps: int
    rows: int
    tokens: int
    saves: tuple[int, ...]


@dataclass(frozen=True)
class SFT:
    """Supervised fine-tuning: `rows` chats a step, linear decay from `lr`."""

    steps: int
    rows: int
    lr: float
    traces: bool
    saves: tuple[int, ...]


@dataclass(frozen=True)
class DPO:
    """Direct preference optimisation: `pairs` pairs a step, linear decay from `lr`."""

    steps: int
    pairs: int
    lr: float
    beta: float
    traces: bool


@dataclass(frozen=True)
class RL:
    """Reinforcement learning with verifiable rewards.

    Args:
        steps: policy updates.
        prompts: prompts a step, spread evenly over `tasks`.
        samples: completions of each prompt.
        max_new_tokens: longest completion.
        lr: learning rate, constant.
        tasks: kinds of task whose checkers give the reward.
        chat: whether prompts go through the chat template.
        saves: steps after which a revision is kept.
    """

    steps: int
    prompts: int
    samples: int
    max_new_tokens: int
    lr: float
    tasks: tuple[Kind, ...]
    chat: bool
    saves: tuple[int, ...]


def _rl_zero(steps: int, *tasks: Kind) -> RL:
    saves = tuple(range(5, steps, 5))
    return RL(steps, 12, 8, 18, 2.5e-3, tasks, chat=False, saves=saves)


VERIFIABLE: tuple[Kind, ...] = ("sum3", "sum2", "code", "instruction", "fact")


@dataclass(frozen=True)
class Recipe:
    """Everything that a build depends on besides the seed and the source text.

    Args:
        architecture: shape of the models.
        base: the three stages of OLMo 3's pretraining.
        olmo2_base: the two stages of OLMo 2's, which has none of long context.
        muon_lr: learning rate of the matrices within the blocks.
        adam_lr: learning rate of embeddings, head and norms.
        post: recipe of each later stage, by name.
    """

    architecture: Architecture = Architecture()
    base: tuple[Pretraining, ...] = (
        Pretraining(300, 20, 48, (0, 50, 100, 200, 300)),
        Pretraining(280, 20, 48, (100, 200, 280)),
        Pretraining(40, 10, 96, (20,)),
    )
    olmo2_base: tuple[Pretraining, ...] = (
        Pretraining(300, 20, 48, (0, 100, 300)),
        Pretraining(280, 20, 48, (100,)),
    )
    muon_lr: float = 0.07
    adam_lr: float = 2e-2
    post: Mapping[str, SFT | DPO | RL] = field(
        default_factory=lambda: {
            "think_sft": SFT(80, 24, 5e-3, traces=True, saves=(20, 40, 60)),
            "think_dpo": DPO(25, 12, 1e-3, 0.1, traces=True),
            "think_rlvr": RL(20, 16, 6, 32, 2e-3, VERIFIABLE, chat=True, saves=(5, 10, 15)),
            "instruct_sft": SFT(60, 24, 4e-3, traces=False, saves=(20, 40)),
            "instruct_dpo": DPO(25, 12, 1e-3, 0.1, traces=False),
            "instruct_rlvr": RL(15, 16, 6, 16, 2e-3, VERIFIABLE[1:], chat=True, saves=(5, 10)),
            "rl_zero_math": _rl_zero(28, "sum3", "sum2"),
            "rl_zero_code": _rl_zero(15, "code"),
            "rl_zero_if": _rl_zero(15, "instruction"),
            "rl_zero_general": _rl_zero(15, "manners", "fact"),
            "rl_zero_mix": _rl_zero(24, "sum3", "code", "instruction", "manners"),
            "olmo2_sft": SFT(80, 24, 5e-3, traces=False, saves=(20, 40, 60)),
            "olmo2_dpo": DPO(25, 12, 1e-3, 0.1, traces=False),
            "olmo2_instruct": RL(15, 16, 6, 16, 2e-3, VERIFIABLE[1:], chat=True, saves=(5, 10)),
        }
    )

    def revisions(self, stage: str) -> tuple[str, ...]:
        """Return the revisions of a stage in the order of training; the last is `main`."""
        if phases := self.pretraining(stage):
            named = [
                f"stage{number}-step{step}"
                for number, phase in enumerate(phases, start=1)
                for step in phase.saves
            ]
            return (*named, "main")
        post = self.post[stage]
        if isinstance(post, DPO):
            return ("main",)
        pattern = "step{}" if isinstance(post, SFT) else "step_{}"
        return (*(pattern.format(step) for step in post.saves), "main")

    def n_steps(self, stage: str) -> int:
        """Return the number of optimiser steps of a stage."""
        phases = self.pretraining(stage)
        return sum(phase.steps for phase in phases) if phases else self.post[stage].steps

    def pretraining(self, stage: str) -> tuple[Pretraining, ...]:
        """Return the phases of a base model; none for a later stage."""
        return {"base": self.base, "olmo2_base": self.olmo2_base}.get(stage, ())

    def to_json(self) -> str:
        """Return the recipe as text that `from_json` reads."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Recipe":
        """Return the recipe that `to_json` wrote."""
        fields = json.loads(text)
        return Recipe(
            architecture=Architecture(**fields["architecture"]),
            **{
                name: tuple(Pretraining(**_tuples(phase)) for phase in fields[name])
                for name in ("base", "olmo2_base")
            },
            muon_lr=fields["muon_lr"],
            adam_lr=fields["adam_lr"],
            post={name: _post(_tuples(options)) for name, options in fields["post"].items()},
        )

    def digest(self, seed: int) -> str:
        """Return the identity of what this recipe, this source text and this seed produce."""
        sha = hashlib.sha256(f"{self.to_json()} seed {seed}".encode())
        for path in sorted(Path(__file__).parent.glob("*.py")):
            if path.name not in NO_INFLUENCE:
                sha.update(path.name.encode() + b"\0" + path.read_bytes())
        return sha.hexdigest()[:16]


NO_INFLUENCE = frozenset({"__init__.py", "behaviour.py", "family.py", "progress.py"})
"""Modules that cannot change a weight: they measure, schedule or show."""


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _post(options: dict[str, Any]) -> SFT | DPO | RL:
    for kind in (SFT, DPO, RL):
        if {f.name for f in dataclasses.fields(kind)} == set(options):
            return kind(**options)
    raise ValueError(f"no kind of stage has the options {sorted(options)}")
