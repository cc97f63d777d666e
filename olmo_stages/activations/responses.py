"""Chats completed by stages: what each stage of a comparison reads, and what was lost by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import OWN, Kept, Respond, Response, keep
from olmo_stages.errors import DataError, PairingError
from olmo_stages.types import Example, Position, Stage


@dataclass(frozen=True)
class Completion:
    """Who responds in a comparison, and who reads what was written.

    Args:
        stages: those that are compared; in mode `own` each of them responds.
        responder: the stage whose responses all read; None = each its own.
        positions: what is going to be read of the responses.
    """

    stages: tuple[Stage, ...] = ()
    responder: Stage | None = None
    positions: tuple[Position, ...] = ()

    def writer(self, stage: Stage) -> Stage:
        """Whose responses a stage reads; a random initialisation reads the trained stage's."""
        return self.responder or replace(stage, random_init=None)


class Completed:
    """A data set with responses, once for each stage of a comparison: the same examples for all.

    Nothing is written before it is asked for.

    Args:
        dataset: the prompts.
        respond: how they are completed.
        completion: who writes and who reads.
        write: gives, for each of several stages, its responses to all prompts, by id.
    """

    def __init__(
        self,
        dataset: Dataset,
        respond: Respond,
        completion: Completion,
        write: Callable[[Sequence[Stage]], Mapping[Stage, Mapping[str, Response]]],
    ) -> None:
        self._dataset = dataset
        self._respond = respond
        self._completion = completion
        self._write = write
        self._found: Mapping[Stage, Mapping[str, Response]] = {}
        self._kept: Kept | None = None

    @property
    def kept(self) -> Kept:
        """The examples that every stage can be read on.

        Raises:
            DataError: too few are left.
            ModelError: a stage cannot respond.
            StoreError: the store is damaged or cannot be written.
        """
        if self._kept is None:
            writers = dict.fromkeys(map(self._completion.writer, self._completion.stages))
            if self._completion.responder is not None:
                writers = {self._completion.responder: None}
            self._found = self._write(list(writers))
            named = {
                _name(stage, list(writers)): responses for stage, responses in self._found.items()
            }
            self._kept = keep(self._dataset.examples, named, self._completion.positions)
        return self._kept

    def dataset(self, stage: Stage) -> Dataset:
        """What a stage reads.

        Raises:
            DataError: too few responses can be read.
            ModelError: a stage cannot respond.
            PairingError: the stage is none of the comparison's, so that nobody knows whether its
                own responses can be read.
            StoreError: the store is damaged or cannot be written.
        """
        examples = self.kept.examples
        writer = self._completion.writer(stage)
        if writer not in self._found:
            names = ", ".join(it.label for it in self._found) or "none"
            raise PairingError(
                f"data.respond=own: {stage.label} is not one of the stages that are compared "
                f"({names}), so its responses are not known"
            )
        responses = {it.id: self._found[writer][it.id] for it in examples}
        return self._of(examples, responses)

    @property
    def digest(self) -> str:
        """Digest of what all stages share: the examples and, replayed, the responses to them.

        Raises:
            DataError: too few responses can be read.
        """
        if self._completion.responder is not None:
            return self.dataset(self._completion.responder).digest
        return self._of(self.kept.examples, None).digest

    def identity(self) -> dict[str, Any]:
        """Mode and options, as JSON data."""
        return {"mode": self._respond.mode, "generation": asdict(self._respond.generation)}

    def describe(self) -> dict[str, Any]:
        """Mode, options and what was kept, as JSON data for the record of a result."""
        return self.identity() | {"stages": [tally.describe() for tally in self.kept.tallies]}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of results must know, one sentence each."""
        what = (
            "each stage reads what it wrote itself, so that stages differ in words and not only in "
            "activations"
            if self._respond.by == OWN
            else "every stage reads the same tokens"
        )
        mode = f"responses: {self._respond.mode} ({self._respond.generation}); {what}"
        return (mode, *map(str, self.kept.tallies))

    @property
    def mode(self) -> str:
        """`own` or `replay of STAGE`."""
        return self._respond.mode

    def _of(self, examples: Sequence[Example], responses: Mapping[str, Response] | None) -> Dataset:
        """The data set of these examples.

        Raises:
            DataError: too few are left; gives the counts.
        """
        try:
            return replace(self._dataset, examples=tuple(examples), responses=responses)
        except DataError as error:
            reason = str(error)
        # Not from within `except`: the command line tells the first error of a chain.
        counts = ". ".join(map(str, self.kept.tallies))
        raise DataError(f"with the responses that can be read: {reason} ({counts})")


def _name(stage: Stage, among: Sequence[Stage]) -> str:
    """Label of a stage, with its size where two share the label."""
    shared = sum(it.label == stage.label for it in among) > 1
    return f"{stage.label} ({stage.size}, {stage.source})" if shared else stage.label
