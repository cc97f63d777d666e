"""A directory with a PEFT adapter: what it holds and what it was trained on. Imports no torch."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path
from typing import Any

from olmo_stages.errors import ModelError
from olmo_stages.models import derived, digests
from olmo_stages.stages import MINIATURE, releases
from olmo_stages.types import Stage

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""A repository of the hub; none starts with a dot, as `./run` and `../run` do."""

_VOCABULARY = re.compile(r"tokenizer\.json|vocab\..*|.*\.model")


@dataclass(frozen=True)
class Adapter:
    """An adapter directory.

    Args:
        path: the directory.
        config: content of its adapter_config.json.
    """

    path: Path
    config: Mapping[str, Any]

    @property
    def base(self) -> str | None:
        """Path or hub id of the model that it was trained on, as it says."""
        return self.config.get("base_model_name_or_path") or None

    @property
    def revision(self) -> str | None:
        """Revision of that model, if it says."""
        return self.config.get("revision") or None


def holds_adapter(path: Path) -> bool:
    """Whether a directory holds an adapter, not a model.

    Raises:
        ModelError: it holds both, of which transformers would load the one or the other depending
            on what else is installed.
    """
    if not (path / CONFIG).is_file():
        return False
    models = [name for name in (digests.SINGLE, digests.INDEX) if (path / name).is_file()]
    if models:
        raise ModelError(
            f"{path}: holds an adapter ({CONFIG}) and a model ({models[0]}); move one of them to a "
            "directory of its own"
        )
    return True


def read_adapter(path: Path) -> Adapter:
    """Read what an adapter says of itself.

    Raises:
        ModelError: it cannot be read, or its weights are missing or pickled.
    """
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        adapter = Adapter(path, dict(config))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path / CONFIG}: cannot be read ({error}); save it again") from error
    if not (path / WEIGHTS).is_file():
        pickled = any(path.glob("adapter_model*.bin"))
        why = " (pickled .bin weights are never loaded)" if pickled else ""
        raise ModelError(
            f"{path}: no {WEIGHTS}{why}; save the adapter with model.save_pretrained(DIR)"
        )
    return adapter


def base_stage(stage: Stage, adapter: Adapter) -> Stage:
    """The stage into whose weights an adapter is merged: its parent, else what it says itself.

    Args:
        stage: the stage of the adapter.
        adapter: the adapter.

    Raises:
        ModelError: there is none, or the parent is not what the adapter was trained on.
    """
    if stage.parent is not None:
        _check_parent(stage.parent, adapter)
        return stage.parent
    where = f"adapter {adapter.path}"
    if adapter.base is None:
        raise ModelError(
            f"{where} does not say what it was trained on; give it with model.parent=STAGE"
        )
    path = Path(adapter.base).expanduser()
    if path.is_dir() and path.resolve() != adapter.path.resolve():
        return Stage(path.name, "custom", str(path))
    if path.is_absolute() or not HUB_ID.fullmatch(adapter.base):
        raise ModelError(
            f"{where} was trained on {adapter.base}, which is not a directory here; give it with "
            f"model.parent=STAGE and its size=..., or correct base_model_name_or_path in {CONFIG}"
        )
    name = adapter.base.rpartition("/")[2]
    return Stage(name, "custom", adapter.base, revision=adapter.revision or "main")


def check_base(stage: Stage, adapter: Adapter, path: Path, cache: Path) -> None:
    """Compare the parent's weights with those of the directory that an adapter was trained on.

    Args:
        stage: the stage of the adapter.
        adapter: the adapter.
        path: where its base was found.
        cache: folder that remembers the digests of large files.

    Raises:
        ModelError: they differ.
    """
    trained_on = Path(adapter.base or "").expanduser()
    if stage.parent is None or adapter.base is None or not trained_on.is_dir():
        return
    if trained_on.resolve() == path.resolve():
        return
    if digests.weights_digest(trained_on, cache) != digests.weights_digest(path, cache):
        raise ModelError(
            f"adapter {adapter.path} was trained on {adapter.base}, whose weights or config are "
            f"not those of model.parent={stage.parent.label} ({stage.parent.size}); give the stage "
            "it was trained from, or model.parent=null to take that directory"
        )


def small_files(adapter: Adapter, base: Path) -> dict[str, Path]:
    """Config of the base, and the tokenizer that belongs to the adapter, by file name.

    An adapter that was saved with a vocabulary has a tokenizer of its own; one that was saved with
    a chat template alone changes that of its base.
    """
    own = digests.tokenizer_files(adapter.path)
    whole = any(_VOCABULARY.fullmatch(file.name) for file in own)
    tokenizer = own if whole else (*digests.tokenizer_files(base), *own)
    files = (base / "config.json", base / "generation_config.json", *tokenizer)
    return {file.name: file for file in files if file.is_file()}


def ensure_untrained(adapter: Adapter, base: Path, cache: Path) -> Path:
    """Config and tokenizer of a merged adapter without weights, for a random initialisation.

    Args:
        adapter: the adapter.
        base: directory of its base; needs no weights.
        cache: the cache folder.

    Raises:
        StoreError: it cannot be written.
    """
    small = small_files(adapter, base)
    key = digests.digest({name: digests.file_digest(file) for name, file in small.items()})
    record = {"untrained": str(adapter.path)}
    return derived.ensure(
        key, cache, lambda folder: derived.copy_small(small.values(), folder), record
    )


def _check_parent(parent: Stage, adapter: Adapter) -> None:
    """Compare the name of the parent with the one an adapter says.

    Raises:
        ModelError: they name different models.
    """
    said = adapter.base
    if said is None or Path(said).expanduser().is_dir():  # check_base compares the weights
        return
    where = f"adapter {adapter.path} was trained on {said}"
    if Path(said).is_absolute() or not HUB_ID.fullmatch(said):
        _warn(f"{where}, which is not here; it is merged into {parent.label} ({parent.size})")
        return
    if said.casefold() != parent.source.casefold():
        raise ModelError(
            f"{where}, but model.parent={parent.label} is {parent.source} (size={parent.size}); "
            f"{_remedy(said)}"
        )
    if adapter.revision not in {None, parent.revision}:
        raise ModelError(
            f"{where} at revision {adapter.revision}, but model.parent={parent.label} is at "
            f"{parent.revision}; give model.parent={parent.name}@{adapter.revision}"
        )


def _remedy(source: str) -> str:
    for it in releases():
        if it.source.casefold() == source.casefold() and it.source != MINIATURE:
            return f"give model.parent={it.name} size={it.size}"
    return f"give model.parent=null, or correct base_model_name_or_path in {CONFIG}"


@remember  # a job locates its checkpoints several times
def _warn(text: str) -> None:
    logging.getLogger(__name__).warning("%s", text)
