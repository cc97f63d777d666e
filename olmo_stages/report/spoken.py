"""What an analysis says of itself, and where its code is.

Its module says it. What jobs of it were put together remembers it too, since an analysis takes
seconds to import, and one of a user's own is not known to every process that makes a report.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from olmo_stages.edges import changes
from olmo_stages.errors import ConfigError
from olmo_stages.types import Change, Measurement

_OURS = re.compile(r"olmo_stages\.analyses\.\w+")


@dataclass(frozen=True, eq=False)
class Spoken:
    """What an analysis says of itself and of its rows.

    Args:
        about: what it measures, in a sentence or two; may be empty.
        changes: what it puts on an edge of the lineage.
        wrong: why what it says of edges cannot be used; else empty.
        notes: what the notes of its headlines mean, by note, as `NOTES` of its module.
    """

    about: str = ""
    changes: tuple[Change, ...] = ()
    wrong: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it, for `of_record`."""
        return asdict(self)


def of_record(kept: object) -> Spoken | None:
    """Read back what `Spoken.record` gave; None where it is something else."""
    if not isinstance(kept, Mapping):
        return None
    try:
        given = tuple(Change(**it) for it in kept["changes"])
        notes = _texts(kept["notes"])
        return Spoken(str(kept["about"]), given, str(kept["wrong"]), notes)
    except (KeyError, TypeError):  # of another version
        return None


def of_module(target: str, rows: Sequence[Measurement]) -> Spoken:
    """What the module of an analysis says; nothing where this process does not know it.

    Args:
        target: dotted name of the analysis's class.
        rows: of its jobs and of all of them together.
    """
    module = module_of(target)
    if module is None:
        return Spoken()
    about = _about(module, target.rpartition(".")[2])
    try:
        notes = _texts(getattr(module, "NOTES", {}))
    except TypeError:
        return Spoken(about, wrong=f"{module.__name__} says NOTES that are no texts by note")
    try:
        return Spoken(about, changes(module, rows), notes=notes)
    except ConfigError as error:
        return Spoken(about, wrong=str(error), notes=notes)


def module_of(target: str) -> ModuleType | None:
    """The module of an analysis; None for a user's own that this process does not know.

    A record names it, and a record may come from anywhere: only this package's own is imported.
    """
    name = target.rpartition(".")[0]
    return importlib.import_module(name) if _is_ours(name) else sys.modules.get(name)


def is_known(target: str) -> bool:
    """Whether `module_of` finds something; nothing is imported for it."""
    name = target.rpartition(".")[0]
    return name in sys.modules or _is_ours(name)


def code_of(target: str) -> Path | None:
    """File of an analysis's code, which is not imported for it.

    Returns:
        None where this process does not know it, or where it has none, e.g. in a notebook.
    """
    name = target.rpartition(".")[0]
    if (module := sys.modules.get(name)) is not None:
        found = getattr(module, "__file__", None)
    else:
        spec = importlib.util.find_spec(name) if _is_ours(name) else None
        found = None if spec is None else spec.origin
    return Path(found) if found else None


def _is_ours(name: str) -> bool:
    return bool(_OURS.fullmatch(name)) and importlib.util.find_spec(name) is not None


def _texts(given: object) -> Mapping[str, str]:
    """Texts by text.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(given, Mapping) or any(not isinstance(it, str) for it in given.values()):
        raise TypeError("texts by text are needed")
    return {str(name): it for name, it in given.items()}


def _about(module: ModuleType, kind: str) -> str:
    """The first paragraph of what documents it, without its name."""
    text = module.__doc__ or getattr(getattr(module, kind, None), "__doc__", None) or ""
    first = " ".join(text.strip().partition("\n\n")[0].split())
    first = re.sub(r"^analysis=\S+: *", "", first)
    return first[:1].upper() + first[1:]
