"""What a stage wrote to the prompts of a data set, as an entry of the store: text and token ids.

It lies beside the activations, in shards of lines of JSON and a manifest that is written last; an
interrupted writer's shards are used by the next one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from olmo_stages.activations import files
from olmo_stages.activations.entry import FORMAT_VERSION, Entry, publish
from olmo_stages.activations.identity import PassIdentity, digest
from olmo_stages.data.dataset import Dataset, content
from olmo_stages.data.responses import Generation, Response
from olmo_stages.errors import StoreError
from olmo_stages.types import Stage

WRITTEN_VERSION = 1
"""Raise it when the same inputs give other responses: prompts, stops, the choice of tokens."""

SHARD_RESPONSES = 64
"""Responses of one shard, what an interruption costs at most; independent of batch size."""

FOLDER = "responses"


@dataclass(frozen=True)
class WrittenIdentity:
    """Everything that changes a response.

    Args:
        model: identity of the model, its tokenizer and the format; no data.
        prompts: digest of ids and contents of the examples, in order.
        ends: tokens that the checkpoint calls end of text.
        generation: how tokens are chosen.
        version: of the code that writes.
    """

    model: Mapping[str, Any]
    prompts: str
    ends: tuple[int, ...]
    generation: Generation
    version: int = WRITTEN_VERSION

    @property
    def key(self) -> str:
        """Digest of all fields."""
        return digest(asdict(self))


def identify(
    identity: PassIdentity, dataset: Dataset, ends: tuple[int, ...], generation: Generation
) -> WrittenIdentity:
    """What identifies the responses of a stage; labels, groups and names are no part of it.

    Args:
        identity: of the stage reading the prompts.
        dataset: the prompts.
        ends: tokens that the checkpoint calls end of text.
        generation: how tokens are chosen.
    """
    # How activations are pooled changes no response.
    model = {k: v for k, v in asdict(identity).items() if k not in {"data", "extractor"}}
    prompts = digest([[example.id, *content(example)] for example in dataset.examples])
    return WrittenIdentity(model, prompts, ends, generation)


def read(entry: Entry) -> dict[str, Response]:
    """Read the responses of an entry, by the id of their example.

    Raises:
        StoreError: a file is damaged or missing.
    """
    found: dict[str, Response] = {}
    for name in entry.file_names:
        found |= _parsed(files.read_whole(entry.folder / name))
    if set(found) != set(entry.ids):
        raise StoreError(
            f"{entry.folder} holds {len(found)} responses where its manifest has "
            f"{len(entry.ids)}; delete the folder to have them written again"
        )
    return found


@dataclass(frozen=True)
class Shards:
    """Writes one entry of responses, shard by shard, manifest last.

    Args:
        folder: where the entry goes.
        identity: of the responses.
    """

    folder: Path
    identity: WrittenIdentity

    def fits(self, name: str, ids: Sequence[str]) -> bool:
        """Whether a file of the entry is whole and holds the responses to these prompts."""
        if not name.endswith(f".{files.LINES}"):
            return False
        try:
            return list(_parsed(files.read_whole(self.folder / name))) == list(ids)
        except StoreError:
            return False

    def add(self, part: int, found: Mapping[str, Response]) -> str:
        """Write one shard and return its name.

        Raises:
            StoreError: it cannot be written.
        """
        lines = [json.dumps({"id": name, **asdict(it)}) for name, it in found.items()]
        content = "".join(f"{line}\n" for line in lines).encode()
        return files.write_digested(self.folder, _stem(part), content, files.LINES)

    def publish(self, stage: Stage, ids: Sequence[str], shards: Sequence[str]) -> Entry:
        """Write the manifest, which makes the entry readable.

        Args:
            stage: who wrote, for people who look into the store.
            ids: of all examples.
            shards: names of the shards, in order.

        Returns:
            The entry.

        Raises:
            StoreError: it cannot be written, or a shard was removed meanwhile.
        """
        manifest = {
            "format_version": FORMAT_VERSION,
            "kind": FOLDER,
            "written": asdict(self.identity),
            "stage": {"label": stage.label, "size": stage.size, "source": stage.source},
            "captures": [],
            "layers": [],
            "layer_types": [],
            "ids": list(ids),
        }
        return publish(self.folder, manifest, shards)


def _parsed(content: bytes) -> dict[str, Response]:
    rows = [json.loads(line) for line in content.splitlines()]
    return {
        row["id"]: Response(tuple(row["token_ids"]), row["text"], row["is_cut"], row["opened"])
        for row in rows
    }


def _stem(part: int) -> str:
    return f"part-{part:05d}"
