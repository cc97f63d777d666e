"""The data sets that conf/data/*.yaml can name: built in, from a file, from the hub.

Options that a user can mistype are annotated `str` and checked by hand: the type hook would refuse
a wrong value before it can be answered with the alternatives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from olmo_stages.checks import checked
from olmo_stages.data import mapping, readers, recognition
from olmo_stages.data.contrast import arithmetic, manners, sentiment, truth
from olmo_stages.data.contrast import miniature as small
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import as_format
from olmo_stages.data.labels import Labels, Raw
from olmo_stages.data.mapping import Columns
from olmo_stages.data.responses import Generation, responding
from olmo_stages.errors import ConfigError
from olmo_stages.types import Example, check_choice

ENGLISH: Mapping[str, Callable[[], tuple[Example, ...]]] = {
    "truth": truth.examples,
    "sentiment": sentiment.examples,
    "manners": manners.examples,
    "arithmetic": arithmetic.examples,
}
MINIATURE: Mapping[str, Callable[[], tuple[Example, ...]]] = {
    "truth": small.truth,
    "sentiment": small.sentiment,
    "manners": small.manners,
    "arithmetic": small.arithmetic,
}


def check_vocabulary(vocabulary: str) -> None:
    """Refuse a vocabulary that does not exist.

    Raises:
        ConfigError: names the alternatives.
    """
    check_choice("data.vocabulary", vocabulary, ("auto", "english", "miniature"))


def is_small(vocabulary: str, *, miniature: bool) -> bool:
    """Whether to use the small world's words: they are asked for, or the model knows no others."""
    return (miniature and vocabulary == "auto") or vocabulary == "miniature"


@checked
@dataclass(frozen=True)
class BuiltIn:
    """A contrast set written by this project.

    Args:
        name: `truth`, `sentiment`, `manners` or `arithmetic`.
        vocabulary: plain English, the miniature world's words, or whichever suits the model.
        format: how examples become prompts.
        mix_formats: allow prompts that differ between the stages of a comparison.
        respond: who completes the prompts: `own`, `STAGE[@REVISION]`, or None = nobody.
        generation: how responses are written.

    Raises:
        ConfigError: an unknown name or format.
    """

    name: str
    vocabulary: str = "auto"
    format: str = "auto"
    mix_formats: bool = False
    respond: str | None = None
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        check_choice("data", self.name, tuple(ENGLISH))
        check_vocabulary(self.vocabulary)
        as_format(self.format)

    def load(self, *, miniature: bool) -> Dataset:
        """Return the examples; `miniature` says whether the model knows only the small world."""
        small = is_small(self.vocabulary, miniature=miniature)
        return Dataset(
            f"{self.name}_miniature" if small else self.name,
            (MINIATURE if small else ENGLISH)[self.name](),
            as_format(self.format),
            mix_formats=self.mix_formats,
            respond=responding(self.respond, self.generation),
        )


@dataclass(frozen=True)
class Own:
    """What data of one's own have in common, from a file or from the hub.

    Args:
        path: where they are; None is an error only when they are loaded.
        name: name for tables and folders; None = taken from the path.
        columns: which column is what.
        positive: the raw label that means 1, all others meaning 0.
        label_map: 0 or 1 for each raw label; instead of `positive`.
        unlabelled: read texts without labels, for the analyses that need none; a column `label` is
            left alone.
        trait: what the labels are about, where no column says it.
        limit: how many examples at most; whole groups are chosen by a hash of their names.
        limit_seed: another seed makes another choice.
        format: how examples become prompts.
        mix_formats: allow prompts that differ between the stages of a comparison, or between texts
            and chats.
        respond: who completes the chats: `own`, `STAGE[@REVISION]`, or None = nobody.
        generation: how responses are written.

    Raises:
        ConfigError: an unknown format, or options that contradict one another.
    """

    path: str | None = None
    name: str | None = None
    columns: Columns = field(default_factory=Columns)
    positive: Raw | None = None
    label_map: Mapping[Raw, int] | None = None
    unlabelled: bool = False
    trait: str = ""
    limit: int | None = None
    limit_seed: int = 0
    format: str = "auto"
    mix_formats: bool = False
    respond: str | None = None
    generation: Generation = field(default_factory=Generation)

    def __post_init__(self) -> None:
        as_format(self.format)
        Labels(self.positive, self.label_map)
        self._check_unlabelled()
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"data.limit={self.limit} leaves no examples; give 1 or more")

    def _check_unlabelled(self) -> None:
        about_labels = {
            "data.columns.label": self.columns.label,
            "data.columns.positive": self.columns.positive,
            "data.columns.negative": self.columns.negative,
            "data.positive": self.positive,
            "data.label_map": self.label_map,
        }
        given = [option for option, value in about_labels.items() if value is not None]
        if self.unlabelled and given:
            raise ConfigError(
                f"{given[0]} says what the labels are, and data.unlabelled=true that there are "
                "none; leave one of them out"
            )

    def _dataset(self, table: readers.Table, name: str) -> Dataset:
        labels = None if self.unlabelled else Labels(self.positive, self.label_map)
        known = recognition.recognise(table, self.columns, self.format)
        if self.unlabelled:
            known = _without_labels(known)
        found = mapping.examples(known.table, known.columns, labels, self.trait)
        examples, notes = known.finish(found)
        chosen = mapping.limited(examples, self.limit, self.limit_seed)
        return Dataset(
            self.name or name,
            chosen,
            as_format(self.format),
            mix_formats=self.mix_formats,
            notes=notes,
            respond=responding(self.respond, self.generation),
            labelled=not self.unlabelled,
        )


def _without_labels(known: recognition.Recognised) -> recognition.Recognised:
    """How a table is read whose labels, if it has any, are left alone."""
    notes = known.notes
    if "label" in known.table.columns:
        notes += (f"{known.table.source}: column 'label' is ignored (data.unlabelled=true).",)
    return replace(known, notes=notes, has_counterparts=False)


@checked
@dataclass(frozen=True)
class FromFile(Own):
    """A jsonl, json, csv, tsv or parquet file.

    Args:
        separator: of csv columns; None = found out from the header.

    Raises:
        ConfigError: the separator is not one character.
    """

    separator: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator is not None and len(self.separator) != 1:
            raise ConfigError(
                f"data.separator={self.separator} is not one character; give one, e.g. ';', "
                "or leave it out to have it found"
            )

    def load(self, *, miniature: bool = False) -> Dataset:
        """Read the file; the data are the same whatever the model.

        Raises:
            ConfigError: no path was given.
            DataError: the file cannot be used as it is.
        """
        del miniature
        if self.path is None:
            raise ConfigError("data=file needs a file: data.path=my.csv (or jsonl, json, parquet)")
        return self._dataset(readers.read_file(self.path, self.separator), Path(self.path).stem)


@checked
@dataclass(frozen=True)
class FromHub(Own):
    """A data set of the Hugging Face hub, or a local folder of one.

    Args:
        split: which split; may be None where there is only one.
        subset: which configuration of the data set.
        revision: branch, tag or commit on the hub.
    """

    split: str | None = None
    subset: str | None = None
    revision: str | None = None

    def load(self, *, miniature: bool = False) -> Dataset:
        """Fetch the data; they are the same whatever the model.

        Raises:
            ConfigError: no path was given.
            DataError: the data set cannot be reached or used as it is.
        """
        del miniature
        if self.path is None:
            raise ConfigError("data=hub needs a data set: data.path=owner/name or a local folder")
        table = readers.read_hub(
            self.path, split=self.split, subset=self.subset, revision=self.revision
        )
        parts = [Path(self.path).name, self.subset, self.split]
        return self._dataset(table, "_".join(part for part in parts if part))
