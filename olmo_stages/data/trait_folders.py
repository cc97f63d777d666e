"""Trait folders: `positive.txt` and `negative.txt`, a prompt a line, and maybe `definition.txt`."""

from dataclasses import dataclass
from pathlib import Path

from olmo_stages.errors import DataError
from olmo_stages.types import Example

POSITIVE, NEGATIVE, DEFINITION = "positive.txt", "negative.txt", "definition.txt"


@dataclass(frozen=True)
class Line:
    """A prompt and the number of its line."""

    number: int
    text: str


@dataclass(frozen=True)
class Trait:
    """What one folder holds.

    Args:
        name: of the folder.
        path: where it is.
        positive: prompts that have the trait.
        negative: prompts that do not.
        definition: what the trait is, on one line; empty = not said.
    """

    name: str
    path: Path
    positive: tuple[Line, ...]
    negative: tuple[Line, ...]
    definition: str = ""

    @property
    def counts(self) -> str:
        """How many prompts there are."""
        return f"{len(self.positive)} positive and {len(self.negative)} negative prompts"


def read(path: str) -> tuple[Trait, ...]:
    """Read a trait folder, or a folder of trait folders.

    Returns:
        The traits, in the order of their names.

    Raises:
        DataError: the folder is missing or holds no traits, or a file cannot be read.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else f"does not exist (looked from {Path.cwd()})"
        raise DataError(f"{path} {what}; data=folder needs a folder with {POSITIVE}, {NEGATIVE}")
    folders = [folder] if _is_trait(folder) else sorted(filter(_is_trait, folder.iterdir()))
    if not folders:
        raise DataError(f"neither {path} nor a folder in it holds {POSITIVE} and {NEGATIVE}")
    return tuple(_read_folder(it) for it in folders)


def examples(trait: Trait, *, paired: bool | None) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """Return the labelled prompts of a trait, and notes.

    Args:
        trait: the folder.
        paired: whether the prompts of a line are counterparts and a group; None = if there are as
            many positive as negative ones. Without pairs each prompt is a group of its own.

    Raises:
        DataError: prompts are to be paired but their numbers differ, or as many stand on other
            lines, so that pairing them would shift some.
    """
    same_number = len(trait.positive) == len(trait.negative)
    if paired and not same_number:
        raise DataError(
            f"{trait.path}: {trait.counts} cannot be paired line by line; add the missing ones or "
            "leave out data.paired"
        )
    if pairs := same_number if paired is None else paired:
        _check_lines(trait)
    how = "paired line by line" if pairs else "unpaired"
    notes = (f"trait {trait.name}: {trait.counts}, {how}.",)
    if trait.definition:
        notes += (f"trait {trait.name} is defined as: {trait.definition}",)
    sides = ((1, "positive", trait.positive), (0, "negative", trait.negative))
    found = [
        Example(
            id=f"{trait.name}/{side}/{line.number}",
            group=f"line {line.number}" if pairs else f"{side} line {line.number}",
            label=label,
            text=line.text,
            trait=trait.name,
            pair=f"line {line.number}" if pairs else "",
        )
        for label, side, lines in sides
        for line in lines
    ]
    return tuple(found), notes


def _check_lines(trait: Trait) -> None:
    for one, other in zip(trait.positive, trait.negative, strict=True):
        if one.number != other.number:
            first = min(one.number, other.number)
            empty = POSITIVE if one.number > first else NEGATIVE
            raise DataError(
                f"{trait.path}: line {first} is empty in {empty} only, so that pairing line by "
                "line would shift what follows; remove the empty line, or set data.paired=false"
            )


def _is_trait(folder: Path) -> bool:
    # One of the files is enough: that the other is missing is then an error.
    return any((folder / name).exists() for name in (POSITIVE, NEGATIVE))


def _read_folder(folder: Path) -> Trait:
    for name in (POSITIVE, NEGATIVE):
        if not (folder / name).exists():
            raise DataError(f"{folder} has no {name}; a trait folder has {POSITIVE} and {NEGATIVE}")
    positive, negative = (_lines(folder / name) for name in (POSITIVE, NEGATIVE))
    definition = ""
    if (folder / DEFINITION).exists():
        definition = " ".join(_text(folder / DEFINITION).split())
    return Trait(folder.resolve().name, folder, positive, negative, definition)


def _lines(file: Path) -> tuple[Line, ...]:
    # Not splitlines, which would also cut at separators that may stand within a prompt.
    lines = enumerate(_text(file).split("\n"), start=1)
    found = tuple(Line(number, text) for number, text in lines if text.strip())
    if not found:
        raise DataError(f"{file} holds no prompts; write one a line")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")  # which reads any end of a line as \n
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
