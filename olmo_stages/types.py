"""The words of this project: stages, examples, activations, measurements, and who asks whom.

Axis names used in array annotations everywhere: `example token row layer d_model head class stage
fold resample permutation`. Nothing here imports torch, so that configs and the command line stay
quick; activations in memory are float32, which holds every bfloat16 value exactly.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from olmo_stages.errors import ConfigError, DataError, PairingError

Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
"""Where a layer is read. `attn_out` and `mlp_out` are the contributions to the residual stream."""

ProbeKind = Literal["logistic", "lda", "mean_difference"]
PooledPosition = Literal[
    "last",
    "mean",
    "first_content",
    "last_content",
    "last_prompt",
    "last_user",
    "first_response",
    "response_mean",
    "think_mean",
    "answer_mean",
]
"""The positions that give one row an example."""

Position = Literal[PooledPosition, "tokens"]
"""Which tokens of an example are read; olmo_stages.data.positions says what each one means."""

MEANS: tuple[PooledPosition, ...] = ("mean", "response_mean", "think_mean", "answer_mean")
"""The positions that average several tokens of an example."""

Format = Literal["auto", "raw", "scaffold", "chat_fixed", "chat_native"]
"""How an example becomes a prompt; olmo_stages.data.formats says what each one does."""

EMBEDDING_LAYER = -1
"""Index of the token embeddings; layer i >= 0 is the output of block i."""


@dataclass(frozen=True)
class Stage:
    """One checkpoint of a lineage.

    Args:
        name: stage name, e.g. `think_sft`.
        size: `tiny`, `7b`, ...; `custom` for a user's own checkpoint.
        source: `miniature`, a hub repo id, or a local directory in Hugging Face format.
        revision: branch, tag or commit on the hub; step name of the miniature family.
        parent: the stage it was trained from; None for a root.
        random_init: seed of a random initialisation of the same shape instead of the trained
            weights, the control that shows what the architecture alone gives; None = trained.
        members: the checkpoints that it is the weighted average of; `source` then only tells of
            them.
    """

    name: str
    size: str
    source: str
    revision: str = "main"
    parent: "Stage | None" = None
    random_init: int | None = None
    members: "tuple[Member, ...]" = ()

    @property
    def label(self) -> str:
        """Short unique name for tables and folders, e.g. `think_sft@step_20` or `base (random)`."""
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return self.name + revision + ("" if self.random_init is None else " (random)")

    def lineage(self) -> "tuple[Stage, ...]":
        """From the root to this stage."""
        return (*(self.parent.lineage() if self.parent else ()), self)


@dataclass(frozen=True)
class Member:
    """One checkpoint of a weighted average.

    Args:
        stage: the checkpoint.
        weight: its share; those of all members sum to 1.
        gives_tokenizer: whether the average takes its tokenizer, where the members' differ.
    """

    stage: Stage
    weight: float
    gives_tokenizer: bool = False


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One text or chat.

    Args:
        id: unique within its data set; pairs the example across stages and keys its fold.
        group: what must stay together in a split (the entity, template or source document).
        label: 1 if the trait is present, else 0; None in data without labels. `labels_of` refuses
            None, which a comparison would silently take for "not 1".
        text: plain text; exactly one of `text` and `messages` is given.
        messages: chat turns.
        trait: what the label is about.
        polarity: kind of statement, e.g. `affirmative` or `negated`; a probe may be trained on one
            kind and tested on the other.
        pair: joins an example of label 1 with its counterpart of label 0, which differs from it in
            nothing but the trait; empty = it has none.
    """

    id: str
    group: str
    label: int | None
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    trait: str = ""
    polarity: str = ""
    pair: str = ""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise DataError(f"example {self.id!r}: give either a text or messages, exactly one")
        contents = [self.text] if self.messages is None else [m.content for m in self.messages]
        if not contents or not all(content and content.strip() for content in contents):
            raise DataError(f"example {self.id!r}: empty text; remove the row or fill it in")
        if self.label not in {0, 1, None}:
            raise DataError(f"example {self.id!r}: label {self.label!r} is neither 0 nor 1")


def labels_of(examples: Sequence[Example]) -> Int[np.ndarray, " example"]:
    """The labels of examples, 0 or 1.

    Raises:
        DataError: an example has none.
    """
    found = [example.label for example in examples]
    if None in found:
        raise DataError(
            f"example {examples[found.index(None)].id!r} has no label, and labels are needed here; "
            "give labelled data"
        )
    return np.array(found, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Activations:
    """One vector per layer and row: an example, or, at position `tokens`, a token.

    Args:
        stage: where they come from.
        site: where each layer was read.
        position: which tokens of each example.
        layers: block indices of the first axis of `values`; -1 = embeddings.
        layer_types: `embedding`, `sliding_attention` or `full_attention`, one per layer.
        ids: example ids, in the order of the rows.
        values: activations in the model's own scale; a row is an example, or a token if `owners`
            is given.
        token_ids: the prompt's token ids per example, after truncation.
        n_truncated: how many examples were cut from the left to fit the context.
        model_digest: identity of the weights.
        key: identity of this entry in the store.
        dtype: precision of the forward pass; differences below it are rounding.
        owners: at position `tokens`, for each row the index of its example in `ids`, ascending.
        token_index: at position `tokens`, for each row the index of its token in `token_ids`.
        left_out: how many tokens of all examples the position leaves out, by reason: `sink`
            (sequence position 0), `special`, `template` (text around the content), and, where a
            position reads a part of the content only, `other` (the rest of it).
        n_at_sink: how many examples are read at the attention sink itself.
        n_joined: of how many examples prompt and response were tokenised apart, because a token
            of the whole would straddle the two.
        mixed: whether the user chose to compare stages whose prompts differ.
    """

    stage: Stage
    site: Site
    position: Position
    layers: tuple[int, ...]
    layer_types: tuple[str, ...]
    ids: tuple[str, ...]
    values: Float[np.ndarray, "layer row d_model"]
    token_ids: tuple[tuple[int, ...], ...]
    n_truncated: int
    model_digest: str
    key: str
    dtype: str = "float32"
    owners: Int[np.ndarray, " row"] | None = None
    token_index: Int[np.ndarray, " row"] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    n_at_sink: int = 0
    n_joined: int = 0
    mixed: bool = False

    def __post_init__(self) -> None:
        n_rows = len(self.ids) if self.owners is None else len(self.owners)
        expected = (len(self.layers), n_rows)
        if self.values.shape[:2] != expected or len(self.layer_types) != len(self.layers):
            what = "examples" if self.owners is None else "tokens"
            raise PairingError(
                f"activations of {self.stage.label}: values {self.values.shape} do not fit "
                f"{expected[0]} layers x {expected[1]} {what}"
            )
        if len(self.token_ids) != len(self.ids):
            raise PairingError(
                f"activations of {self.stage.label}: {len(self.token_ids)} token sequences for "
                f"{len(self.ids)} examples"
            )


@dataclass(frozen=True, eq=False)
class Reading:
    """The tokens of one example as a stage reads them: what each says, and what it is a part of.

    Args:
        id: id of the example.
        token_ids: after truncation; those of the stage's `Activations`, index by index.
        texts: what each token adds to the text of the prompt, with the white space before it where
            that is in no token of its own; see `olmo_stages.data.readings`.
        parts: what each token is a part of: the role of its turn (`user`, `system`, `assistant` for
            earlier turns, ...) or `text` where there are no turns; of a response at the end
            `think`, `answer`, and `response` for what is in neither (tags, or all of it where there
            is no trace); `special`; or `template` for any other text around the contents.
    """

    id: str
    token_ids: tuple[int, ...]
    texts: tuple[str, ...]
    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = {len(self.token_ids), len(self.texts), len(self.parts)}
        if len(counts) > 1:
            raise PairingError(
                f"example {self.id!r}: {len(self.token_ids)} tokens, {len(self.texts)} texts and "
                f"{len(self.parts)} parts; one of each a token is needed"
            )


@dataclass(frozen=True)
class Wanted:
    """Activations that an analysis is going to ask for, told beforehand.

    Args:
        stage: whose.
        captures: pairs of site and position, which one forward pass gives.
        layers: block indices; -1 = embeddings; None = all blocks.
    """

    stage: Stage
    captures: tuple[tuple[Site, Position], ...]
    layers: tuple[int, ...] | None = None


def wanted_by(
    stages: Iterable[Stage | None], site: str, position: str, layers: Sequence[int] | None
) -> tuple[Wanted, ...]:
    """The same site, position and layers of several stages; None is no stage."""
    pair = cast("tuple[Site, Position]", (site, position))
    chosen = None if layers is None else tuple(layers)
    return tuple(Wanted(it, (pair,), chosen) for it in stages if it is not None)


@runtime_checkable
class ActivationSource(Protocol):
    """What an analysis asks for activations; hands out the same examples in the same order."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples of every `Activations`, in its order."""
        ...

    def __call__(
        self,
        stage: Stage,
        *,
        site: Site = "resid_post",
        position: Position = "last",
        layers: tuple[int, ...] | None = None,
    ) -> Activations:
        """Activations of `stage`; `layers=None` means all blocks; -1 asks for the embeddings."""
        ...

    def stream(
        self,
        stage: Stage,
        *,
        site: Site = "resid_post",
        position: Position = "last",
        layers: tuple[int, ...] | None = None,
    ) -> Iterator[Activations]:
        """The same, one layer at a time, so that one layer is in memory."""
        ...

    def prefetch(
        self,
        stage: Stage,
        captures: Sequence[tuple[Site, Position]],
        layers: tuple[int, ...] | None = None,
    ) -> None:
        """Have several sites and positions at hand after one forward pass; None = all layers."""
        ...

    def readings(self, stage: Stage) -> tuple[Reading, ...]:
        """The tokens of every example as `stage` reads them, without a forward pass."""
        ...


@dataclass(frozen=True)
class Measurement:
    """One number, with what is needed to believe it.

    Args:
        metric: what was measured, e.g. `auroc`.
        value: the number.
        stage: label of the stage it is about.
        reference: label of the other side, where there is one.
        layer: block index, -1 = embeddings, None = not about one layer.
        layer_type: `embedding`, `sliding_attention`, `full_attention` or empty.
        reference_layer: layer of the other side, where the number is about a pair of layers.
        reference_layer_type: its type.
        variant: which version of the metric: `probe`, `baseline:length`, `transfer:own`, ...
        trait: which trait it is about, where data may hold several.
        ci_low: lower end of the interval.
        ci_high: upper end of the interval.
        null: median of the null distribution.
        p: permutation p of this row alone.
        p_max: p against the null of the maximum over layers (family-wise).
        q: false discovery rate over layers (Benjamini-Hochberg).
        n: number of examples.
        n_groups: number of independent groups, the unit that was resampled.
        seed: seed of every random choice behind the number.
        note: what a reader must know, e.g. that a baseline explains it.
    """

    metric: str
    value: float
    stage: str
    reference: str = ""
    layer: int | None = None
    layer_type: str = ""
    reference_layer: int | None = None
    reference_layer_type: str = ""
    variant: str = ""
    trait: str = ""
    ci_low: float | None = None
    ci_high: float | None = None
    null: float | None = None
    p: float | None = None
    p_max: float | None = None
    q: float | None = None
    n: int = 0
    n_groups: int = 0
    seed: int = 0
    note: str = ""

    @property
    def pairs_layers(self) -> bool:
        """Whether it is about a pair of layers, and so no point of a curve over layers."""
        named = self.metric.endswith("_map") or self.metric.startswith("best_match")
        return named or self.reference_layer not in {None, self.layer}


Table = Mapping[str, Sequence[str] | np.ndarray]
"""Columns by name."""

Headline = Mapping[str, str | float | int | Measurement | None]
"""Few values by name."""


@dataclass(frozen=True, eq=False)
class Result:
    """What an analysis returns.

    Args:
        measurements: tidy rows, one number each.
        tensors: arrays worth keeping, by name (probe directions, thresholds).
        figures: plotly figures as JSON text, by name.
        headline: the few values of the sweep's comparison table, in column order. A number that is
            one of the measurements is given as that measurement: it is shown with its interval.
        warnings: what a reader must know, one sentence each.
        tables: what has too many rows for measurements (scores of tokens): a `Table` by name, its
            columns of one length, of texts, whole numbers or floats.
    """

    measurements: tuple[Measurement, ...]
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    headline: Headline = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    # Any is a Table: one that lies in a file would be read by the check of a narrower type.
    tables: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Analysis(Protocol):
    """A frozen dataclass whose fields are its options and whose call does the work.

    It is refused on data without labels unless it has an attribute `needs_labels` that is False.
    A method `reads(stage, reference, seed)` that returns all it is going to ask for, as `Wanted`,
    lets jobs share forward passes from the start and a dry run count them; without it that is known
    as far as options called `site`, `position` and `layers` tell of the stage.
    """

    @property
    def name(self) -> str:
        """Stem of its module, its YAML and its metric prefix."""
        ...

    def __call__(
        self, stage: Stage, reference: Stage | None, activations: ActivationSource, seed: int
    ) -> Result:
        """Measure `stage`, against `reference` where the analysis compares."""
        ...


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished job, as the end of a sweep sees it.

    Args:
        stage: label of its stage.
        reference: label of the other side, or empty.
        result: what it found.
    """

    stage: str
    reference: str
    result: Result


@dataclass(frozen=True)
class Change:
    """Which number of an analysis tells how far a stage is from another, as `CHANGE` of its module.

    The lineage of a report carries it on its edges. Where the names of the rows depend on options,
    the module has a function `change` instead, from its rows to a `Change` or None. It is looked
    for among the rows about all layers of the job of the stage whose reference is the parent, then
    among those of `across` about the two stages (`olmo_stages.edges`).

    Args:
        name: short name, e.g. `CKA`.
        says: what the number is, in a phrase.
        metric: of the rows of a job.
        variant: of the rows of a job.
        metric_across: of the rows of `across`; empty = there are none.
        variant_across: of the rows of `across`.
        unchanged: its value for two equal models.
        resampled: what its interval is over, e.g. `95 % bootstrap interval over groups`.
        resampled_across: the same of the rows of `across`; empty = the same.
        null: what `null` and `p` of these rows say of a change; empty = nothing, as those of two
            unrelated models do, and an edge has neither.
        trait: of the rows; None = whatever it is, so that they may be about one only.
        reverse: what it is with the two stages exchanged: the `same`, `negated`, or nothing that
            could be told from it.
    """

    name: str
    says: str
    metric: str
    variant: str
    metric_across: str = ""
    variant_across: str = ""
    unchanged: float | int = 0.0
    resampled: str = ""
    trait: str | None = None
    reverse: Literal["", "same", "negated"] = ""
    resampled_across: str = ""
    null: str = ""

    def of(self, row: Measurement) -> "Change":
        """The same, with what the interval of a row that `olmo_stages.edges` found is over."""
        is_own = (row.metric, row.variant) == (self.metric, self.variant)
        if is_own or not self.resampled_across:
            return self
        return replace(self, resampled=self.resampled_across, resampled_across="")

    @property
    def is_similarity(self) -> bool:
        """Whether `unchanged` is what two equal models come to, and all others fall short of it."""
        return self.reverse == "same" and self.unchanged != 0

    @property
    def intervals(self) -> str:
        """What the intervals of all its rows are over."""
        across = self.resampled_across
        return f"{self.resampled}; from all stages together: {across}" if across else self.resampled


@runtime_checkable
class Across(Protocol):
    """What the module of an analysis may define as `across`: all jobs of a sweep seen together."""

    def __call__(self, jobs: Sequence[Finished]) -> Result | None:
        """Put jobs of the same data, options and seed together, in the order of the lineage."""
        ...


def check_choice(what: str, value: str, choices: "tuple[str, ...]") -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ConfigError: names the value and the alternatives.
    """
    if value not in choices:
        raise ConfigError(f"{what} {value!r} does not exist; choose from {', '.join(choices)}")


def check_pooled(what: str, position: str) -> None:
    """Refuse a position that does not exist, or that gives a row a token, not one an example.

    Raises:
        ConfigError: names the position and the alternatives.
    """
    check_choice(what, position, get_args(Position))
    if position not in get_args(PooledPosition):
        raise ConfigError(
            f"{what} {position!r} gives a row a token, but one row an example is needed; "
            f"choose from {', '.join(get_args(PooledPosition))}"
        )
