"""A stage responds to the prompts of a data set; the store keeps what it wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from olmo_stages.activations import written
from olmo_stages.activations.entry import Entry, read_entry
from olmo_stages.activations.request import Work
from olmo_stages.activations.store import Store
from olmo_stages.activations.written import Shards
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import SPEAKER, render
from olmo_stages.data.generated import decode
from olmo_stages.data.responses import Generation, Response, ending, opens_trace
from olmo_stages.data.spans import Prompt, tokenize
from olmo_stages.errors import DataError
from olmo_stages.models.stops import ends_of_text, stop_tokens
from olmo_stages.progress import progress
from olmo_stages.types import Stage

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
        on_wait: called when another process is writing the same responses.
    """

    def __init__(
        self,
        dataset: Dataset,
        generation: Generation,
        store: Store,
        load: Callable[[Work], tuple[Any, Any]],
        on_wait: Callable[[Stage], None],
    ) -> None:
        self._dataset = replace(dataset, respond=None)
        self._generation = generation
        self._store = store
        self._load = load
        self._on_wait = on_wait

    def __call__(self, work: Work) -> dict[str, Response]:
        """What a stage writes to every prompt, by id.

        Raises:
            DataError: a prompt that cannot be rendered or leaves no room for a response.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged or cannot be written.
        """
        shards = self._shards(work)
        folder, entry = shards.folder, read_entry(shards.folder)
        if entry is None:
            with self._store.lock(folder, lambda: self._on_wait(work.stage)):
                entry = read_entry(folder) or self._write(work, shards)
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

    def _write(self, work: Work, shards: Shards) -> Entry:
        from olmo_stages.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(work.checkpoint)
        prompted = self._prompts(work, tokenizer)
        # Longest first: memory runs out at once or never.
        prompted.sort(key=lambda it: -len(it.prompt.token_ids))
        names: list[str] = []
        writing = _Writing(work, tokenizer, self._generation, self._load)
        with progress(f"{work.stage.label}: responses to prompts", len(prompted)) as advance:
            for part, start in enumerate(range(0, len(prompted), written.SHARD_RESPONSES)):
                chosen = prompted[start : start + written.SHARD_RESPONSES]
                name = shards.finished(part, [it.prompt.id for it in chosen])
                if name is None:
                    name = shards.add(part, writing(chosen, advance))
                names.append(name)
        return shards.publish(work.stage, [it.id for it in self._dataset.examples], names)

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


class _Writing:
    """Writes the responses of one stage; its model is loaded when the first one is due."""

    def __init__(
        self,
        work: Work,
        tokenizer: Any,  # noqa: ANN401 (of transformers)
        generation: Generation,
        load: Callable[[Work], tuple[Any, Any]],
    ) -> None:
        self._work = work
        self._tokenizer = tokenizer
        self._generation = generation
        self._load = load
        self._ready: tuple[Any, Any] | None = None

    def __call__(
        self, prompted: Sequence[_Prompted], advance: Callable[[], None]
    ) -> dict[str, Response]:
        from olmo_stages.models.generation import Asked, Writing, write

        if self._ready is None:
            self._ready = self._load(self._work)
        loaded, budget = self._ready
        writing = Writing(
            stop_tokens(self._work.checkpoint.path, self._tokenizer),
            max(self._tokenizer.get_vocab().values()) + 1,
            float(self._generation.temperature),
            self._generation.seed,
        )
        if self._work.dataset.format == "scaffold":
            writing = replace(writing, ends=partial(next_speaker, self._tokenizer))

        def on_batch(n_examples: int) -> None:
            for _ in range(n_examples):
                advance()

        found = write(
            loaded,
            [Asked(it.prompt.id, it.prompt.token_ids, it.room) for it in prompted],
            writing,
            token_budget=budget,
            on_batch=on_batch,
        )
        return {
            it.prompt.id: Response(
                one.token_ids, decode(self._tokenizer, one.token_ids), one.is_cut, it.opened
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
