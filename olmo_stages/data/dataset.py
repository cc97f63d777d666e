"""A data set that has passed the checks every analysis relies on."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olmo_stages.data.responses import Respond, Response, check_unanswered
from olmo_stages.errors import DataError
from olmo_stages.types import Example, Format, labels_of


@dataclass(frozen=True)
class Dataset:
    """Examples, checked, in a fixed order.

    Args:
        name: name for tables and folders.
        examples: the examples.
        format: how they become prompts.
        mix_formats: whether prompts may differ in more than the examples: between the stages of a
            comparison (`chat_native`), or between texts and chats (`auto`). It changes no prompt.
        notes: what a reader of the results must know about the data, one sentence each: as what a
            file was read, what was left out. No part of the content.
        respond: who completes the examples before they are read; None = nobody.
        responses: what was written to each example, by its id; None = nothing (yet).
        labelled: whether every example has a label, or none has.

    Raises:
        ConfigError: texts that are read raw are to be completed.
        DataError: no examples, duplicate ids, labels that lack or are too many, texts and chats
            that `auto` would put into different formats, chats that are answered already are to be
            completed, or within a trait: the same text in two groups, and where there are labels
            the same text with two of them, one class only, a class that lies in one group and so
            cannot be split, or a pair that is not one example of either label in one group.
    """

    name: str
    examples: tuple[Example, ...]
    format: Format = "auto"
    mix_formats: bool = False
    notes: tuple[str, ...] = ()
    respond: Respond | None = None
    responses: Mapping[str, Response] | None = None
    labelled: bool = True

    def __post_init__(self) -> None:
        if not self.examples:
            raise DataError(f"data {self.name!r} holds no examples")
        _check_characters(self.name, self.examples)
        _check_ids(self.name, self.examples)
        _check_labels(self.name, self.examples, labelled=self.labelled)
        for trait, examples in by_trait(self.examples).items():
            name = f"{self.name}: {trait}" if trait and len(self.traits) > 1 else self.name
            _check_texts(name, examples)
            if self.labelled:
                _check_classes(name, examples)
                _check_pairs(name, examples)
        if self.format == "auto" and not self.mix_formats:
            _check_kinds(self.name, self.examples)
        if self.respond is not None:
            check_unanswered(self.name, self.examples, self.format)

    @property
    def digest(self) -> str:
        """SHA-256 over the content in order: ids, groups, labels, traits, texts, responses, ..."""
        sha = hashlib.sha256()
        for e in self.examples:
            row = [e.id, e.group, e.label, e.trait, e.polarity, e.pair, *content(e)]
            if self.responses is not None:
                row += ["response", *self.responses[e.id].token_ids]
            sha.update(json.dumps(row).encode("utf-8") + b"\n")
        return sha.hexdigest()

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits that the labels are about, in the order of their first examples."""
        return tuple(dict.fromkeys(example.trait for example in self.examples))

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.examples)

    @property
    def n_groups(self) -> int:
        """Number of independent groups."""
        return len({example.group for example in self.examples})


def by_trait(examples: Sequence[Example]) -> dict[str, tuple[Example, ...]]:
    """Return the examples of each trait, all in their order."""
    found: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        found[example.trait].append(example)
    return {trait: tuple(members) for trait, members in found.items()}


def content(example: Example) -> list[str]:
    """Return what the model reads of an example, as a list that tells texts from chats."""
    if example.messages is None:
        return ["text", str(example.text)]
    return ["messages", *(part for m in example.messages for part in (m.role, m.content))]


def content_id(example_content: list[str]) -> str:
    """Return an id made from content alone, for examples that come without one."""
    return hashlib.sha256(json.dumps(example_content).encode("utf-8")).hexdigest()[:16]


def _check_characters(name: str, examples: tuple[Example, ...]) -> None:
    # JSON may hold half of a character ("\\ud83d"), which no tokenizer and no file takes.
    for number, e in enumerate(examples, start=1):
        for part in (e.id, e.group, e.trait, e.polarity, e.pair, *content(e)):
            try:
                part.encode("utf-8")
            except UnicodeEncodeError as error:
                raise DataError(
                    f"data {name!r}: example {number} holds {part[error.start]!r}, half of a "
                    "character; correct the text"
                ) from error


def _check_ids(name: str, examples: tuple[Example, ...]) -> None:
    first: dict[str, tuple[int, Example]] = {}
    for number, example in enumerate(examples, start=1):
        earlier, other = first.setdefault(example.id, (number, example))
        if earlier == number:
            continue
        if content(other) == content(example):
            raise DataError(
                f"data {name!r}: examples {earlier} and {number} are the same "
                f"({content(example)[-1]!r:.60}); remove one"
            )
        raise DataError(
            f"data {name!r}: examples {earlier} and {number} have the same id {example.id!r}; ids "
            "must be unique, because they pair an example across stages"
        )


def _check_labels(name: str, examples: tuple[Example, ...], *, labelled: bool) -> None:
    for example in examples:
        if labelled and example.label is None:
            raise DataError(
                f"data {name!r}: example {example.id!r} has no label; give it one, or leave out "
                "all labels and say so (labelled=False)"
            )
        if not labelled and example.label is not None:
            raise DataError(
                f"data {name!r}: example {example.id!r} has label {example.label} in data without "
                "labels; leave it out, or give all examples one"
            )


def _check_texts(name: str, examples: tuple[Example, ...]) -> None:
    first: dict[tuple[str, ...], Example] = {}
    for example in examples:
        other = first.setdefault(tuple(content(example)), example)
        if other.label != example.label:
            raise DataError(
                f"data {name!r}: examples {other.id!r} and {example.id!r} hold the same text with "
                "different labels; remove one"
            )
        if other.group != example.group:
            raise DataError(
                f"data {name!r}: examples {other.id!r} and {example.id!r} hold the same text in "
                "different groups, so that it could be trained and tested on, and counts as "
                "independent of itself; remove one or give both the same group"
            )


def _check_classes(name: str, examples: tuple[Example, ...]) -> None:
    groups: dict[int | None, set[str]] = defaultdict(set)
    for example in examples:
        groups[example.label].add(example.group)
    for label in (0, 1):
        if not groups[label]:
            raise DataError(
                f"data {name!r}: all {len(examples)} examples have label {1 - label}; "
                f"add examples of label {label} or check the label map"
            )
        if len(groups[label]) == 1:
            (group,) = groups[label]
            raise DataError(
                f"data {name!r}: all examples of label {label} are in group {group!r}, so that no "
                "split can test on them; use smaller groups or add examples"
            )


def _check_pairs(name: str, examples: tuple[Example, ...]) -> None:
    pairs: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.pair:
            pairs[example.pair].append(example)
    for pair, members in pairs.items():
        if sorted(labels_of(members).tolist()) != [0, 1]:
            n = [sum(example.label == label for example in members) for label in (1, 0)]
            raise DataError(
                f"data {name!r}: pair {pair!r:.60} has {n[0]} examples of label 1 and {n[1]} of "
                "label 0; a pair is one of each, and an example without counterpart has no pair"
            )
        one, other = members
        if one.group != other.group:
            raise DataError(
                f"data {name!r}: the two sides of pair {pair!r:.60} are in the groups "
                f"{one.group!r:.60} and {other.group!r:.60}; give both the same"
            )


def _check_kinds(name: str, examples: tuple[Example, ...]) -> None:
    n_chats = sum(example.messages is not None for example in examples)
    if 0 < n_chats < len(examples):
        raise DataError(
            f"data {name!r}: data.format=auto would leave {len(examples) - n_chats} texts raw and "
            f"put {n_chats} chats into a template; use data.format=chat_fixed or scaffold for "
            "both, or data.mix_formats=true"
        )
