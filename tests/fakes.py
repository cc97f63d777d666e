"""A source of made-up activations, so that an analysis is tested without a model."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from olmo_stages.types import Activations, Example, Reading, Stage

BASE = Stage("base", "tiny", "miniature")
THINK = Stage("think_sft", "tiny", "miniature", parent=BASE)


def grouped_examples(n_groups: int, per_group: int = 4, *, polarity: bool = False) -> list[Example]:
    """Balanced within every group: half of each group's examples are 1."""
    return [
        Example(
            id=f"g{g}e{e}",
            group=f"g{g}",
            label=e % 2,
            text=f"text {g} {e}",
            polarity=("affirmative", "negated")[e // 2 % 2] if polarity else "",
        )
        for g in range(n_groups)
        for e in range(per_group)
    ]


@dataclasses.dataclass
class FakeSource:
    """Hands out `make(stage)` as [layer example d_model] for layers 0.. and zeros for -1.

    With `owners`, the rows are tokens: `owners[row]` is the index of the row's example. `change`
    has the last word on everything handed out; `asked` lists the labels of the stages asked for.
    `parts` are those of every token of `token_ids`, per example.
    """

    examples: tuple[Example, ...]
    make: Callable[[Stage], np.ndarray]
    token_ids: tuple[tuple[int, ...], ...] = ()
    layer_types: Sequence[str] = ()
    owners: np.ndarray | None = None
    change: Callable[[Activations], Activations] = lambda acts: acts
    parts: Sequence[tuple[str, ...]] = ()
    asked: list[str] = dataclasses.field(default_factory=list)
    fetched: list[tuple] = dataclasses.field(default_factory=list)

    def __call__(self, stage, *, site="resid_post", position="last", layers=None):
        self.asked.append(stage.label)
        values = self.make(stage).astype(np.float32)
        chosen = tuple(range(len(values))) if layers is None else tuple(layers)
        zeros = np.zeros_like(values[:1])
        tokens = self.token_ids or tuple((5, 6, i % 3) for i in range(len(self.examples)))
        types = self.layer_types or ["full_attention"] * len(values)
        index = None
        if self.owners is not None:
            starts = np.searchsorted(self.owners, self.owners)
            index = np.arange(len(self.owners)) - starts + 1  # 0 is the sink
            tokens = self.token_ids or tuple(
                tuple(range(7, 8 + int(np.sum(self.owners == i))))
                for i in range(len(self.examples))
            )
        acts = Activations(
            stage=stage,
            site=site,
            position=position,
            layers=chosen,
            layer_types=tuple("embedding" if i < 0 else types[i] for i in chosen),
            ids=tuple(e.id for e in self.examples),
            values=np.concatenate([values[[i]] if i >= 0 else zeros for i in chosen]),
            token_ids=tokens,
            n_truncated=0,
            model_digest=stage.label,
            key=stage.label,
            owners=self.owners,
            token_index=index,
        )
        return self.change(acts)

    def stream(self, stage, *, site="resid_post", position="last", layers=None):
        chosen = tuple(range(len(self.make(stage)))) if layers is None else tuple(layers)
        for layer in chosen:
            yield self(stage, site=site, position=position, layers=(layer,))

    def prefetch(self, stage, captures, layers=None):
        self.fetched.append((stage.label, tuple(captures), layers))

    def readings(self, stage):
        acts = self(stage, layers=(0,))
        parts = self.parts or [("text",) * len(ids) for ids in acts.token_ids]
        return tuple(
            Reading(
                id=example.id,
                token_ids=ids,
                texts=tuple(f" w{token}" for token in ids),
                parts=part,
            )
            for example, ids, part in zip(self.examples, acts.token_ids, parts, strict=True)
        )
