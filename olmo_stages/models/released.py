"""Whether config.json is that of the release that a stage is named after. Imports no torch.

A checkpoint may load whole and still be another model than its name says: another window, another
norm, another rotary embedding fit the same weights. What is known of the released families is
compared with the file, in the values that transformers would compute with.

Source:
    Olmo 3 technical report (arXiv:2512.13961), table 33 and section 3.6; OLMo-core's model
    configurations; OLMo's configs/official-* for OLMo 2.
"""

from pathlib import Path

from olmo_stages import miniature
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.miniature.world import vocabulary
from olmo_stages.models import borrowed, digests
from olmo_stages.models.config_differences import Difference, Known, differences
from olmo_stages.revisions import names
from olmo_stages.shapes import WIDTHS, Shape, Widths
from olmo_stages.stages import MINIATURE, Release, conf_folder, release
from olmo_stages.types import Stage

_SHOWN = 4
# Some of these were released under the working name of OLMo 3; which ones differs by report.
_RETROFIT = "rl_zero"


def release_of(stage: Stage) -> Release | None:
    """The release that a stage is named after; None for a stage of a user's own."""
    packaged = conf_folder() / "model" / f"{stage.name}.yaml"
    if stage.size == "custom" or stage.members or not packaged.is_file():
        return None
    try:
        return release(stage.name, stage.size)
    except ConfigError:
        return None


def check_release(stage: Stage, path: Path) -> None:
    """Refuse a checkpoint under the name of a release whose config.json is not the released one.

    Args:
        stage: of the registry; others are not checked.
        path: its checkpoint directory.

    Raises:
        ModelError: names the fields, what was found and what was released.
    """
    told = release_of(stage)
    if told is None or told.source == MINIATURE:
        return
    known = _known(told, stage.revision)
    if known is None:
        return
    found = differences(str(path), digests.read_config(path), known)
    if not all(it.changes for it in found):
        parent = stage.name if stage.revision == names.MAIN else f"{stage.name}@{stage.revision}"
        raise ModelError(
            f"stage {stage.label} ({stage.source}, size={stage.size}): config.json of {path} has "
            f"{_list(found, 'released')}; take the released config.json, or load a model of your "
            f"own as such: model=custom model.path={path} model.parent={parent} size={stage.size}"
        )


def caveats(stage: Stage, path: Path) -> tuple[str, ...]:
    """What a reader must know of a checkpoint, one sentence each.

    Args:
        stage: the checkpoint.
        path: its directory, from `locate`.

    Returns:
        Where its config.json is not as is known of the release, in what changes little; that its
        shape is not its parent's, where it is a user's own; and whose tokenizer it has, where that
        is another stage's.
    """
    giver = borrowed.giver_of(path)
    said = f"{stage.label} was released without a tokenizer and is read with that of {giver}"
    return (
        *_oddities(stage, path),
        *_departures(stage, path),
        *([said] if giver else []),
    )


def _oddities(stage: Stage, path: Path) -> tuple[str, ...]:
    told = release_of(stage)
    known = None if told is None or told.source == MINIATURE else _known(told, stage.revision)
    if known is None:
        return ()
    return tuple(
        f"config.json of {stage.label} ({stage.size}) has {_list((it,), 'expected')}, which "
        f"changes {it.changes} alone"
        for it in differences(str(path), digests.read_config(path), known)
    )


def _departures(stage: Stage, path: Path) -> tuple[str, ...]:
    if stage.size != "custom" or stage.parent is None or stage.members:
        return ()
    parent = next((it for it in reversed(stage.lineage()[:-1]) if release_of(it)), None)
    told = None if parent is None else release_of(parent)
    known = None if told is None or parent is None else _known(told, parent.revision)
    if parent is None or known is None:
        return ()
    every = differences(str(path), digests.read_config(path), known)
    found = tuple(it for it in every if not it.changes)
    if not found:
        return ()
    return (
        f"config.json of {stage.label} is not that of {parent.label} ({parent.size}), from which "
        f"it comes: {_list(found, 'there')}; a difference between them is not of training alone",
    )


def _list(found: tuple[Difference, ...], whose: str) -> str:
    said = [f"{it.field} {it.found} ({whose}: {it.wanted})" for it in found[:_SHOWN]]
    more = len(found) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")


def _known(told: Release, revision: str) -> Known | None:
    if told.shape is None:
        return None
    if told.source == MINIATURE:
        return _miniature(told.shape) if told.family == "olmo3" else None
    widths = WIDTHS.get((told.family, told.size))
    if widths is None:
        return None
    return Known(
        told.family,
        told.shape,
        widths,
        _contexts(told, told.shape, revision),
        was_retrofit=told.name.startswith(_RETROFIT),
    )


def _contexts(told: Release, shape: Shape, revision: str) -> tuple[int, ...]:
    """Contexts that a revision may have: the first two phases of Base came before the long one."""
    before = shape.pretraining_context
    if before is None or told.parent is not None or revision == names.MAIN:
        return (shape.context,)
    parsed = names.parse(revision)
    phase = None if parsed is None else parsed.phase
    if phase is None:  # a commit, or a branch beside the line of training
        return (before, shape.context)
    return (before,) if phase < 3 else (shape.context,)


def _miniature(shape: Shape) -> Known:
    built = miniature.Recipe().architecture
    n_words = len(vocabulary())
    return Known(
        family="olmo3",
        shape=shape,
        widths=Widths(built.d_model, built.d_ff, built.n_heads, built.n_heads, n_words),
        contexts=(shape.context,),
        window=built.window,
        theta=10000.0,
        vocabularies=(n_words,),
    )
