"""A stage responds to the prompts of a data set; the store keeps what it wrote."""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from olmo_stages.activations import written
from olmo_stages.activations.entry import Entry, read_entry
from olmo_stages.activations.request import Work
from olmo_stages.activations.sharing import Crew
from olmo_stages.activations.store import Store
from olmo_stages.activations.written import Shards
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import SPEAKER, render
from olmo_stages.data.generated import decode
from olmo_stages.data.responses import Generation, Response, ending, opens_trace
from olmo_stages.data.spans import Prompt, tokenize
from olmo_stages.errors import DataError
from olmo_stages.models.stops import ends_of_text, stop_tokens

_LAST = 16
"""Tokens of a response among which the name of the next speaker is looked for."""


@dataclass(frozen=True)
class _Prompted:
    """A prompt, how many tokens it leaves room for, and whether it opens a trace itself."""

    prompt: Prompt
    room: int
    opened: bool


class Responder:
    """Lets stages respond to the prompts of a data set, each once: the store keeps what they wrote.

    Args:
        dataset: the prompts.
        generation: how tokens are chosen.
        store: where responses are kept.
        load: gives the model of a stage and the budget of its batches.
    """

    def __init__(
        self,
        dataset: Dataset,
        generation: Generation,
        store: Store,
        load: Callable[[Work], tuple[Any, Any]],
    ) -> None:
        self._dataset = replace(dataset, respond=None)
        self._generation = generation
        self._store = store
        self._load = load

    def crew(self, work: Work) -> Crew:
        """This process's part in what a stage writes to all prompts.

        Raises:
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged.
        """
        shards = self._shards(work)
        return Crew(self._store, shards.folder, lambda: self._begin(work, shards))

    def read(self, entry: Entry) -> dict[str, Response]:
        """What was written, by id.

        Raises:
            StoreError: the entry is damaged.
        """
        entry.touch()
        return written.read(entry)

    def key(self, work: Work) -> str:
        """What identifies that which a stage writes."""
        return self._shards(work).identity.key

    def found(self, work: Work) -> dict[str, Response] | None:
        """What a stage wrote, if it did; nothing is written now.

        Raises:
            StoreError: the store is damaged.
        """
        entry = read_entry(self._shards(work).folder)
        return None if entry is None else written.read(entry)

    def _shards(self, work: Work) -> Shards:
        ends = ends_of_text(work.checkpoint.path)
        identity = written.identify(work.identity, self._dataset, ends, self._generation)
        return Shards(self._store.folder(identity.key, written.FOLDER), identity)

    def _begin(self, work: Work, shards: Shards) -> "_Writing":
        from olmo_stages.models.tokenizer import load_tokenizer

        importlib.import_module("torch")  # before any lease is held: it takes a while
        tokenizer = load_tokenizer(work.checkpoint)
        prompted = self._prompts(work, tokenizer)
        # Longest first: memory runs out at once or never.
        prompted.sort(key=lambda it: -len(it.prompt.token_ids))
        asking = _Asking(
            tokenizer, prompted, [it.id for it in self._dataset.examples], self._generation
        )
        return _Writing(work, asking, shards, self._load)

    def _prompts(
        self,
        work: Work,
        tokenizer: Any,  # noqa: ANN401 (of transformers)
    ) -> list[_Prompted]:
        """The prompts of all examples.

        Raises:
            DataError: a prompt that cannot be rendered or leaves no room for a response.
        """
        context, most = work.identity.max_length, self._generation.max_new_tokens
        found: list[_Prompted] = []
        for example in self._dataset.examples:
            rendered = render(example, self._dataset.format, tokenizer)
            prompt = tokenize(rendered, tokenizer, context)
            end = ending(example, self._dataset.format, tokenizer)
            n_end = len(tokenizer(end, add_special_tokens=False)["input_ids"])
            room = min(most, context - len(prompt.token_ids) - n_end)
            if prompt.n_dropped or room < 1:
                n = len(prompt.token_ids) + prompt.n_dropped
                raise DataError(
                    f"data.respond: example {example.id!r} has a prompt of {n} tokens, which "
                    f"leaves no room for a response in the {context} of {work.stage.label}; leave "
                    "it out"
                )
            found.append(_Prompted(prompt, room, opens_trace(rendered)))
        return found


@dataclass(frozen=True)
class _Asking:
    """What a stage is asked.

    Args:
        tokenizer: its own.
        prompted: the prompts, in the order of the shards.
        ids: of the examples, in the data set's order.
        generation: how tokens are chosen.
    """

    tokenizer: Any
    prompted: Sequence[_Prompted]
    ids: Sequence[str]
    generation: Generation


class _Writing:
    """Writes the responses of one stage; a `Task` of `sharing`."""

    at_once = 1
    shows_examples = True

    def __init__(
        self,
        work: Work,
        asking: _Asking,
        shards: Shards,
        load: Callable[[Work], tuple[Any, Any]],
    ) -> None:
        self.label = f"{work.stage.label}: responses to prompts"
        self.folder = shards.folder
        self._work = work
        self._asking = asking
        self._shards = shards
        self._load = load
        self._budget: Any = None
        starts = range(0, len(asking.prompted), written.SHARD_RESPONSES)
        self._cut = [asking.prompted[it : it + written.SHARD_RESPONSES] for it in starts]
        self.parts = tuple(tuple(it.prompt.id for it in part) for part in self._cut)

    def fits(self, name: str, part: int, *, whole: bool) -> bool:
        """Whether a file is this shard; it is small and always read whole."""
        del whole
        return self._shards.fits(name, self.parts[part])

    def ready(self) -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        _, budget = self._load(self._work)
        # What it has learned of the memory holds for the next shard too.
        self._budget = self._budget or budget

    def compute(
        self, parts: Sequence[int], advance: Callable[[], None]
    ) -> Iterator[tuple[int, dict[str, Response]]]:
        """Let the stage respond.

        Yields:
            The number of a shard and its responses.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        for part in parts:
            yield part, self._respond(self._cut[part], advance)

    def add(self, part: int, found: dict[str, Response]) -> str:
        """Write one shard.

        Returns:
            Name of its file.

        Raises:
            StoreError: it cannot be written.
        """
        return self._shards.add(part, found)

    def publish(self, names: Sequence[str]) -> Entry:
        """Write the manifest.

        Raises:
            StoreError: it cannot be written, or a shard was removed meanwhile.
        """
        return self._shards.publish(self._work.stage, self._asking.ids, names)

    def _respond(
        self, prompted: Sequence[_Prompted], advance: Callable[[], None]
    ) -> dict[str, Response]:
        from olmo_stages.models.generation import Asked, Writing, write

        # Not kept here, since another stage's may take its place in memory.
        loaded, _ = self._load(self._work)
        tokenizer, generation = self._asking.tokenizer, self._asking.generation
        writing = Writing(
            stop_tokens(self._work.checkpoint.path, tokenizer),
            max(tokenizer.get_vocab().values()) + 1,
            float(generation.temperature),
            generation.seed,
        )
        if self._work.dataset.format == "scaffold":
            writing = replace(writing, ends=partial(next_speaker, tokenizer))

        def on_batch(n_examples: int) -> None:
            for _ in range(n_examples):
                advance()

        found = write(
            loaded,
            [Asked(it.prompt.id, it.prompt.token_ids, it.room) for it in prompted],
            writing,
            token_budget=self._budget,
            on_batch=on_batch,
        )
        return {
            it.prompt.id: Response(
                one.token_ids, decode(tokenizer, one.token_ids), one.is_cut, it.opened
            )
            for it, one in zip(prompted, found, strict=True)
        }


def next_speaker(tokenizer: Any, token_ids: Sequence[int]) -> int | None:  # noqa: ANN401 (as above)
    """Where a response in plain text goes over to the next speaker, who is the model too.

    Args:
        tokenizer: the stage's.
        token_ids: what it has written so far.

    Returns:
        How many tokens come before; None while nobody else speaks.
    """
    if SPEAKER.search(decode(tokenizer, token_ids[-_LAST:])) is None:
        return None
    text = decode(tokenizer, token_ids)
    match = SPEAKER.search(text)
    if match is None:
        return None
    said = len(text[: match.start()].rstrip())
    n = len(token_ids)
    # The token with the line end may hold the last word too, and stays then.
    while n and len(decode(tokenizer, token_ids[:n]).rstrip()) > said:
        n -= 1
    return n
