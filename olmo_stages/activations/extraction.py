"""Activations on request: from the store, or by one forward pass into it."""

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from olmo_stages.activations import comparison, prompts, streaming
from olmo_stages.activations.entry import Entry, read_entry
from olmo_stages.activations.extracting import Extraction
from olmo_stages.activations.extras import with_extras
from olmo_stages.activations.held_model import HeldModel
from olmo_stages.activations.identity import PassIdentity
from olmo_stages.activations.passes import Need, Pass, need, passes
from olmo_stages.activations.reading import Reader
from olmo_stages.activations.request import (
    Asked,
    Work,
    ask,
    check_capture,
    check_layers,
    describe,
)
from olmo_stages.activations.responding import Responder
from olmo_stages.activations.responses import Completed, Completion
from olmo_stages.activations.sharing import Crew, finish
from olmo_stages.activations.store import Store, default_store
from olmo_stages.activations.using import Using
from olmo_stages.data.dataset import Dataset
from olmo_stages.data.formats import FORMATS
from olmo_stages.data.responses import Response
from olmo_stages.errors import ConfigError, PairingError
from olmo_stages.models import released
from olmo_stages.models.captures import Capture
from olmo_stages.models.compute import Compute
from olmo_stages.types import (
    EMBEDDING_LAYER,
    Activations,
    Example,
    Position,
    Reading,
    Site,
    Stage,
    Wanted,
    check_choice,
)

Others = Callable[[Collection[Stage]], Sequence[Wanted]]
"""What others are going to ask for of some stages."""


class Source:
    """Hands out activations of any stage for one data set; an `ActivationSource`.

    The model is loaded only when the store does not hold what is asked for, one at a time, and a
    forward pass keeps all layers, embeddings included, unless layers are named. Chats that are to
    be completed are completed first, by every stage that responds, and are then the same examples
    for all.

    Args:
        dataset: the examples; every answer holds them in this order.
        compute: where and how the forward pass runs.
        cache: folder for the miniature family, the store, and digests of large files.
        store: where activations are kept; None = `activations` in the cache folder.
        max_length: tokens after which a prompt is cut from the left; None = the model's context,
            which is never exceeded.
        completion: who responds and who reads it, where the data set's chats are to be completed.

    Attributes:
        forward_passes: batches that went through the model of each stage.
        completed: what was responded; None where the data are read as they are.
        ran_on: by label of each stage that was read, the devices of its forward pass and what was
            on each; empty for activations that an earlier version made.
    """

    def __init__(
        self,
        dataset: Dataset,
        compute: Compute,
        cache: Path,
        *,
        store: Store | None = None,
        max_length: int | None = None,
        completion: Completion | None = None,
    ) -> None:
        check_choice("format", dataset.format, FORMATS)
        self._dataset = dataset
        self._compute = compute
        self._store = store or default_store(cache)
        self._cache = cache
        self._max_length = max_length
        self._prompts: dict[Stage, Work] = {}
        self._works: dict[Stage, Work] = {}
        self._model = HeldModel(compute)
        self._expected: tuple[Wanted, ...] = ()
        self._others: Others = lambda _: ()
        self._using = Using(self._store)
        # For whoever neither closes it nor enters it.
        weakref.finalize(self, self._using.close)
        self.forward_passes: Counter[Stage] = Counter()
        self.ran_on: dict[str, dict[str, str]] = {}
        self.completed: Completed | None = None
        self._responder: Responder | None = None
        if dataset.respond is not None:
            self._responder = Responder(
                dataset, dataset.respond.generation, self._store, self._model.for_writing
            )
            completion = completion or Completion()
            self.completed = Completed(dataset, dataset.respond, completion, self._respond)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others remove what was read and written here."""
        self._using.close()

    def expect(self, wanted: Sequence[Wanted], others: Others = lambda _: ()) -> None:
        """Tell beforehand what is going to be asked for.

        The first request then completes all of it: first what no other process is computing, then
        what others are at, together with them, so that nobody waits while there is work to do.
        Without it, each request waits for its own.

        Args:
            wanted: exactly that; anything else would be computed in vain.
            others: what other jobs are going to ask for of the same data and these stages; asked
                for only if there is something to compute. A pass that is needed anyway keeps it
                too.
        """
        self._expected, self._others = tuple(wanted), others

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples, in the order of every answer: without those whose responses are lost."""
        return self._dataset.examples if self.completed is None else self.completed.kept.examples

    def __call__(
        self,
        stage: Stage,
        *,
        site: Site = "resid_post",
        position: Position = "last",
        layers: tuple[int, ...] | None = None,
    ) -> Activations:
        """Activations of one stage at one site and position.

        Args:
            stage: whose.
            site: where each layer is read; the embeddings (-1) are the same for every site.
            position: which tokens of each example.
            layers: block indices, in the order of the answer; -1 = embeddings; None = all blocks.

        Returns:
            float32 values, exactly as stored.

        Raises:
            ConfigError: no such site, position or layer.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged or cannot be written.
        """
        self._prepare()
        asked = self._ask(stage, site, position, layers)
        return self._answer(asked, self._reader(asked), asked.layers)

    def stream(
        self,
        stage: Stage,
        *,
        site: Site = "resid_post",
        position: Position = "last",
        layers: tuple[int, ...] | None = None,
    ) -> Iterator[Activations]:
        """The same, one layer at a time, so that one layer is in memory.

        What is not in the store is computed at once, all layers in one pass; then each layer is
        read when it is asked for. Should another process's cleaning remove the entry meanwhile, it
        is computed again.

        Args:
            stage: whose.
            site: where each layer is read.
            position: which tokens of each example.
            layers: block indices, in the order of the answers; None = all blocks.

        Returns:
            Activations of one layer each, with the values that a call would give.

        Raises:
            ConfigError: no such site, position or layer.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged (known before the first layer) or cannot be written.
        """
        self._prepare()
        asked = self._ask(stage, site, position, layers)
        reader = self._reader(asked)
        return (self._answer(asked, reader, (layer,)) for layer in asked.layers)

    def readings(self, stage: Stage) -> tuple[Reading, ...]:
        """The tokens of every example as a stage reads them, without a forward pass.

        Returns:
            In the order of the examples; token ids, texts and parts, index by index those of any
            `Activations` of the stage.

        Raises:
            ConfigError: options that leave no token.
            DataError: an example that cannot be rendered or is cut to nothing.
            ModelError: the checkpoint cannot be used.
        """
        work = self._work(stage)
        return prompts.read(work.dataset, work.checkpoint, work.identity.max_length)

    def identity(self, stage: Stage) -> PassIdentity:
        """What identifies the forward pass of a stage over the data, without running it.

        Raises:
            ConfigError: options that leave no token.
            ModelError: the checkpoint cannot be used.
        """
        return self._work(stage).identity

    def work(self, stage: Stage, *, prompts_alone: bool = False) -> Work:
        """What is known of a stage reading the data, without loading it.

        Args:
            stage: the stage.
            prompts_alone: as they are before anybody responds, and nobody does for it.

        Raises:
            ConfigError: options that leave no token.
            ModelError: the checkpoint cannot be used.
        """
        return self._prompting(stage) if prompts_alone else self._work(stage)

    def responses(self, stage: Stage) -> tuple[str, dict[str, Response] | None]:
        """What identifies that which a stage responds to the data, and what it wrote, if it did.

        Raises:
            ConfigError: nobody is asked to respond.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged.
        """
        if self._responder is None:
            raise ConfigError(f"data {self._dataset.name!r} are read as they are; set data.respond")
        work = self._prompting(stage)
        return self._responder.key(work), self._responder.found(work)

    def caveats(self, stage: Stage) -> tuple[str, ...]:
        """What a reader must know of a stage's checkpoint, one sentence each.

        Raises:
            ConfigError: options that leave no token.
            ModelError: the checkpoint cannot be used.
        """
        return released.caveats(stage, self._prompting(stage).checkpoint.path)

    def check_formats(self, stage: Stage, reference: Stage | None) -> comparison.Formats:
        """Refuse a comparison of stages that are given different prompts, unless asked for.

        Raises:
            ConfigError: the prompts differ and `data.mix_formats` is not set.
            DataError: an example that a chat template cannot render.
            ModelError: a stage without a usable chat template.
        """
        # Of the prompts alone: responses are the same for both, or differ by choice.
        other = None if reference is None else self._prompting(reference)
        return comparison.check(self._dataset, self._prompting(stage), other)

    def prefetch(
        self,
        stage: Stage,
        captures: Sequence[tuple[Site, Position]],
        layers: tuple[int, ...] | None = None,
    ) -> None:
        """Make sure that several sites and positions are in the store, with one forward pass.

        Args:
            stage: whose.
            captures: pairs of site and position.
            layers: block indices; None = all blocks and the embeddings.

        Raises:
            ConfigError: no such site, position or layer.
            ModelError: the checkpoint cannot be used.
            StoreError: the store is damaged or cannot be written.
        """
        self._prepare()
        work = self._work(stage)
        captured = tuple(range(EMBEDDING_LAYER, work.n_layers)) if layers is None else layers
        check_layers(work, captured)
        missing = [
            capture
            for capture in sorted({check_capture(*pair) for pair in captures})
            if self._find(work.identity, (capture,), captured) is None
        ]
        if missing:
            self._entry(work, tuple(missing), captured)

    def _respond(self, stages: Sequence[Stage]) -> dict[Stage, dict[str, Response]]:
        """What each stage responds to the data; written now where it was not yet."""
        responder = self._responder
        assert responder is not None
        crews = {stage: responder.crew(self._prompting(stage)) for stage in stages}
        for crew in crews.values():
            self._using(crew.folder)
        finish(list(crews.values()))
        return {stage: responder.read(crew.complete) for stage, crew in crews.items()}

    def _work(self, stage: Stage) -> Work:
        if self.completed is None:
            return self._prompting(stage)
        if stage not in self._works:
            self._works[stage] = self._prompting(stage).reading(self.completed.dataset(stage))
        return self._works[stage]

    def _prompting(self, stage: Stage) -> Work:
        """The stage reading the data as they are, not completed."""
        if stage not in self._prompts:
            self._prompts[stage] = describe(
                stage,
                self._dataset,
                self._compute,
                self._cache,
                max_length=self._max_length,
            )
        return self._prompts[stage]

    def _prepare(self) -> None:
        """Complete what is expected, what nobody else is at first."""
        expected, self._expected = self._expected, ()
        # Stage by stage, since one model is in memory at a time.
        stages = list(dict.fromkeys(it.stage for it in expected))
        needs = [
            need(self._work(it.stage), it)
            for it in sorted(expected, key=lambda it: stages.index(it.stage))
        ]

        def others(lacking: Collection[Stage]) -> list[Need]:
            found = (it for it in self._others(lacking) if it.stage in lacking)
            return [need(self._work(it.stage), it) for it in found]

        found = passes(needs, self._find, self._kept, others)
        finish([self._crew(it.work, it.captures, it.layers) for it in found])

    def _entry(self, work: Work, captures: Sequence[Capture], layers: Sequence[int]) -> Entry:
        crew = self._crew(work, captures, layers)
        finish([crew])
        return crew.complete

    def _crew(self, work: Work, captures: Sequence[Capture], layers: Sequence[int]) -> Crew:
        whole = self._kept(Pass(work, tuple(captures), tuple(layers)))
        writer = self._store.writer(work.identity, whole.captures, whole.layers)
        asked: set[Position] = {it.position for it in captures}

        def count(stage: Stage) -> None:
            self.forward_passes[stage] += 1

        def begin() -> Extraction:
            if self._compute.streamed:
                return streaming.Streamed(work, writer, self._store, self._compute, count, asked)
            return Extraction(work, writer, self._store, self._model, count, asked)

        self._using(writer.folder)
        there = read_entry(writer.folder)
        if there is not None and not there.covers(captures, layers):
            begin()  # says which examples lack what is asked for
        return Crew(self._store, writer.folder, begin)

    def _kept(self, asked: Pass) -> Pass:
        return with_extras(asked, self._compute.resolve_device())

    def _find(
        self, identity: PassIdentity, captures: Sequence[Capture], layers: Sequence[int]
    ) -> Entry | None:
        """A complete entry, which stays for as long as this object needs it."""
        # Looked for again where it may have been removed before it was held.
        while found := self._store.find(identity, captures, layers):
            if not self._using(found.folder):
                return found
        return None

    def _ask(
        self, stage: Stage, site: Site, position: Position, layers: tuple[int, ...] | None
    ) -> Asked:
        return ask(self._work(stage), check_capture(site, position), layers)

    def _reader(self, asked: Asked) -> Reader:
        def again() -> Entry:
            return self._entry(asked.work, (asked.capture,), asked.captured)

        # Looked for by what is asked, which may be less than what a pass would keep.
        found = self._find(asked.work.identity, (asked.capture,), asked.layers)
        return Reader(found or again(), asked.capture, again)

    def _answer(self, asked: Asked, reader: Reader, layers: tuple[int, ...]) -> Activations:
        opened, values = reader.read(layers)
        entry, capture, work = opened.entry, asked.capture, asked.work
        ids = tuple(example.id for example in work.dataset.examples)
        if entry.ids != ids:
            raise PairingError(
                f"{entry.folder} holds other examples than data {work.dataset.name!r} although "
                "their digests agree; delete the folder"
            )
        chosen = entry.manifest["positions"][capture.position]
        self.ran_on[work.stage.label] = entry.manifest.get("ran_on", {})
        return Activations(
            stage=work.stage,
            site=capture.site,
            position=capture.position,
            layers=layers,
            layer_types=tuple(entry.layer_types[layer] for layer in layers),
            ids=ids,
            values=values,
            token_ids=opened.token_ids,
            n_truncated=entry.manifest["n_truncated"],
            model_digest=work.identity.weights,
            key=entry.manifest["entry_key"],
            dtype=work.identity.dtype,
            owners=opened.owners,
            token_index=opened.token_index,
            left_out=chosen["left_out"],
            n_at_sink=chosen["n_at_sink"],
            n_joined=entry.manifest.get("n_joined", 0),
            mixed=self._dataset.mix_formats,
        )
