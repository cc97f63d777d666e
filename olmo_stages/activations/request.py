"""What is asked of a stage, checked and identified before anything is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

from olmo_stages.activations import prompts
from olmo_stages.activations.identity import PassIdentity
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.positions import POSITIONS
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.models import checkpoints, digests, families
from olmo_stages.models.captures import Capture
from olmo_stages.models.checkpoints import Checkpoint
from olmo_stages.models.compute import Compute
from olmo_stages.models.malformed import malformed
from olmo_stages.types import (
    EMBEDDING_LAYER,
    Analysis,
    Position,
    Site,
    Stage,
    Wanted,
    check_choice,
)

SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True)
class Work:
    """What is known of a stage and a data set without loading the model.

    Args:
        stage: the stage.
        checkpoint: where its weights lie.
        identity: of the forward pass.
        n_layers: number of blocks.
        dataset: what it reads: the examples, with responses where there are any.
        d_model: width of the stream; 0 = not known.
    """

    stage: Stage
    checkpoint: Checkpoint
    identity: PassIdentity
    n_layers: int
    dataset: Dataset
    d_model: int = 0

    def reading(self, dataset: Dataset) -> "Work":
        """The same stage reading other data, in the same format."""
        return replace(self, dataset=dataset, identity=replace(self.identity, data=dataset.digest))


@dataclass(frozen=True)
class Asked:
    """A question about activations, checked.

    Args:
        work: the stage's.
        capture: site and position.
        layers: those of the answer, in its order.
        captured: those that a forward pass would keep.
    """

    work: Work
    capture: Capture
    layers: tuple[int, ...]
    captured: tuple[int, ...]


def describe(
    stage: Stage,
    dataset: Dataset,
    compute: Compute,
    cache: Path,
    *,
    max_length: int | None,
) -> Work:
    """Find a stage's checkpoint and identify its forward pass over a data set.

    Args:
        stage: the stage.
        dataset: the examples.
        compute: decides dtype and quantisation.
        cache: folder for the miniature family and for digests.
        max_length: tokens after which a prompt is cut; None = the model's context.

    Returns:
        What extraction and look-up need.

    Raises:
        ConfigError: `max_length` leaves no token, a format that must be chosen by name, or a
            quantisation whose library is not installed.
        ModelError: there is no such checkpoint, or its config is incomplete.
    """
    if max_length is not None and max_length < 1:
        raise ConfigError(f"max_length {max_length} leaves no token; give at least 1")
    quantisation = compute.resolve_quantisation()  # before a download
    checkpoint = checkpoints.locate(stage, cache)
    with malformed(str(checkpoint.path)):
        families.check_config(checkpoint.path, compute.quantisation)
    config = digests.read_config(checkpoint.path)
    config = config.get("text_config", config)
    context = _first(checkpoint.path, config, "max_position_embeddings", "n_positions")
    identity = PassIdentity(
        weights=checkpoints.model_digest(stage, checkpoint, cache),
        random_init=stage.random_init,
        dtype=compute.resolve_dtype(),
        quantisation=quantisation,
        attention=checkpoints.ATTENTION,
        tokenizer=digests.tokenizer_digest(checkpoint.path),
        format=prompts.identify(stage, dataset, checkpoint.path),
        data=dataset.digest,
        max_length=context if max_length is None else min(max_length, context),
    )
    n_layers = _first(checkpoint.path, config, "num_hidden_layers", "n_layer")
    d_model = config.get("hidden_size") or config.get("n_embd") or 0
    return Work(stage, checkpoint, identity, n_layers, dataset, d_model)


def check_capture(site: Site, position: Position) -> Capture:
    """Return site and position as one.

    Raises:
        ConfigError: one of them does not exist; names the alternatives.
    """
    check_choice("site", site, SITES)
    check_choice("position", position, POSITIONS)
    return Capture(site, position)


def check_layers(work: Work, layers: Sequence[int]) -> None:
    """Refuse layers that the model does not have.

    Raises:
        ConfigError: no layer, or one out of range; names the range.
    """
    wrong = [layer for layer in layers if not EMBEDDING_LAYER <= layer < work.n_layers]
    if wrong or not layers:
        raise ConfigError(
            f"layers {list(layers)} of {work.stage.label}: choose one or more of "
            f"{EMBEDDING_LAYER} (embeddings) to {work.n_layers - 1}"
        )


def ask(work: Work, capture: Capture, layers: tuple[int, ...] | None) -> Asked:
    """Check what is asked; None asks for all blocks, and then a pass keeps the embeddings too.

    Raises:
        ConfigError: a layer that the model does not have.
    """
    blocks = tuple(range(work.n_layers))
    if layers is None:
        return Asked(work, capture, blocks, (EMBEDDING_LAYER, *blocks))
    check_layers(work, layers)
    return Asked(work, capture, layers, layers)


def declares(analysis: Analysis) -> bool:
    """Whether an analysis tells all that it is going to ask for."""
    return callable(getattr(analysis, "reads", None))


def wanted(
    analysis: Analysis, stage: Stage, reference: Stage | None, seed: int
) -> tuple[Wanted, ...]:
    """What an analysis is going to ask for, as far as it tells or its options show.

    Nothing that it might not ask for: of an analysis that does not tell, no more than the stage
    itself, where its options name site and position.

    Args:
        analysis: the analysis.
        stage: the stage that it measures.
        reference: the other side, if there is one.
        seed: its seed.

    Returns:
        In the order in which it asks.
    """
    if declares(analysis):
        return tuple(getattr(analysis, "reads")(stage, reference, seed))  # noqa: B009
    options = asdict(analysis) if is_dataclass(analysis) else {}
    sites = _named(options, ("site", "sites"), get_args(Site))
    positions = _named(options, ("position", "positions"), POSITIONS)
    layers = options.get("layers")
    plain = layers is None or (
        isinstance(layers, list | tuple) and all(isinstance(it, int) for it in layers)
    )
    if not sites or not positions or not plain:
        return ()
    pairs: tuple[tuple[Site, Position], ...] = tuple((s, p) for s in sites for p in positions)
    return (Wanted(stage, pairs, None if layers is None else tuple(layers)),)


def _named(
    options: Mapping[str, Any], names: tuple[str, ...], known: tuple[str, ...]
) -> tuple[Any, ...]:
    """What options of these names are set to, where all of it is known."""
    values = [options.get(name) for name in names]
    flat = [it for value in values for it in ([value] if isinstance(value, str) else value or ())]
    return tuple(dict.fromkeys(flat)) if all(it in known for it in flat) else ()


def _first(path: Path, config: dict[str, Any], *names: str) -> int:
    for name in names:
        if config.get(name) is not None:
            return config[name]
    raise ModelError(f"{path}/config.json: none of {', '.join(names)} is given; add it")
