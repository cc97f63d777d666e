"""What a loaded checkpoint must pass before a number is taken from it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import digests

_FLOATS = {"F64", "F32", "BF16", "F16"}

# These give every layer of an OLMo 3 the YaRN embedding of its full-attention layers, silently.
_WRONG_ROPE = ((5, 0), (5, 13))


def check_transformers(version: str) -> None:
    """Refuse the versions of transformers that compute OLMo 3 wrongly.

    They give all layers one rotary embedding. That is wrong where the kinds of layer differ: with
    YaRN, which all of OLMo 3 has from the long-context stage on. Without it (stage1 and stage2
    revisions, OLMo 2, other families) they compute the same numbers, and `load` lets them.

    Source: huggingface/transformers#46911, allenai/OLMo-core#685.

    Raises:
        ModelError: transformers is between 5.0.0 and 5.12.1.
    """
    major, minor = (int(number) for number in re.findall(r"\d+", version)[:2])
    if _WRONG_ROPE[0] <= (major, minor) < _WRONG_ROPE[1]:
        raise ModelError(
            f"transformers {version} computes OLMo 3 wrongly (YaRN in the sliding-window layers); "
            "install transformers>=5.13"
        )


def check_keys(where: str, info: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose weights are not exactly those of the model.

    A head that is missing although it is not tied would be made at random. No activation depends on
    it, but a checkpoint without it was not saved whole, so it is refused too.

    Args:
        where: the checkpoint, for the message.
        info: `output_loading_info` of transformers, which counts no tied weight as missing.

    Raises:
        ModelError: missing, unexpected or mismatched weights, by name.
    """
    missing = sorted(info["missing_keys"])
    unexpected = sorted(info["unexpected_keys"])
    mismatched = sorted(
        str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]
    )
    for kind, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("misshapen", mismatched),
    ):
        if names:
            count = "1 weight is" if len(names) == 1 else f"{len(names)} weights are"
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise ModelError(
                f"{where}: {count} {kind} ({shown}); the checkpoint is incomplete or of another "
                f"architecture: {_remedy(names)}"
            )


def _remedy(names: list[str]) -> str:
    if names == ["lm_head.weight"]:
        return (
            "save the whole model with its head, or write tie_word_embeddings: true if it is tied"
        )
    return "download or save it again, with the config.json that belongs to it"


def check_head(where: str, model: Any) -> None:  # noqa: ANN401 (any model of transformers)
    """Refuse a model whose config ties the vocabulary head to embeddings that it differs from.

    Activations are read before the head, and `embed_tokens` is what the file holds either way, so
    no activation would be wrong. But config and weights are then not of the same model, and what
    else the config says cannot be believed. A tied head that the file leaves out, or holds once
    more with the same values, is how tied models are saved.

    Raises:
        ModelError: says so.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if tied and head is not None and head.weight is not embedding.weight:
        raise ModelError(
            f"{where}: config.json says tie_word_embeddings, but the file holds a vocabulary head "
            "that differs from the embeddings; write false in config.json, or take the config.json "
            "that was saved with these weights"
        )


class Values:
    """Looks at the values of weights one by one, and refuses what no training leaves behind.

    The smallest and the largest value are looked at, which are nan if any value is, so that no
    second tensor of the weight's size is made.

    Args:
        where: the checkpoint, for messages.
        dtype: in which the weights must be finite.
    """

    def __init__(self, where: str, dtype: torch.dtype) -> None:
        self.where, self.dtype = where, dtype
        self._zero: list[str] = []
        self._n_matrices = 0

    def look(self, name: str, weight: torch.Tensor) -> None:
        """Look at one weight.

        Raises:
            ModelError: it is not finite.
        """
        if not weight.is_floating_point() or not weight.numel():
            return
        low, high = (value.to(self.dtype) for value in weight.aminmax())
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            raise ModelError(
                f"{self.where}: weight {name} is not finite in {self.dtype}; download the "
                "checkpoint again or use compute.dtype=float32"
            )
        if weight.ndim == 2:
            self.note(name, is_zero=not bool(low) and not bool(high))

    def note(self, name: str, *, is_zero: bool) -> None:
        """Count a matrix that was looked at, here or by another process."""
        self._n_matrices += 1
        if is_zero:
            self._zero.append(name)

    @property
    def zeros(self) -> tuple[str, ...]:
        """Names of the matrices so far that are zero."""
        return tuple(self._zero)

    def check_zeros(self) -> None:
        """Refuse a checkpoint that was saved before its weights were gathered, or never filled.

        One matrix of zeros may be an ablation.

        Raises:
            ModelError: the embeddings are zero, or at least half of all matrices.
        """
        embedding = [name for name in self._zero if "embed" in name]
        if embedding or 2 * len(self._zero) >= max(self._n_matrices, 1):
            shown = (embedding or self._zero)[0]
            raise ModelError(
                f"{self.where}: all values of {len(self._zero)} of {self._n_matrices} matrices are "
                f"0, of {shown} for one; the weights were never filled in: download the "
                "checkpoint again, or save it with all its shards gathered"
            )


def check_values(where: str, model: torch.nn.Module, dtype: str) -> None:
    """Refuse weights that are not finite, and a model whose weights are zero.

    Raises:
        ModelError: names the first such weight.
    """
    values = Values(where, getattr(torch, dtype))
    for name, parameter in model.named_parameters():
        values.look(name, parameter)
    values.check_zeros()


def check_files(where: str, path: Path) -> None:
    """Refuse weights that are no numbers by themselves, or of which there are two.

    Such are quantised codes without scales, and shards of two savings under one index, of which
    the one read last would win.

    Raises:
        ModelError: names the dtypes, or the weight and its files.
    """
    found: set[str] = set()
    seen: dict[str, str] = {}
    for file in digests.weight_files(path):
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return  # a broken file, of which loading says more
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found |= {it["dtype"] for it in header.values()}
        for name in header:
            if name in seen:
                raise ModelError(
                    f"{where}: {name} is in {seen[name]} and in {file.name}; they are shards of "
                    "different models: download or save the checkpoint again in an empty folder"
                )
            seen[name] = file.name
    if odd := found - _FLOATS:
        raise ModelError(
            f"{where}: weights are stored as {', '.join(sorted(odd))}, which would be taken for "
            "the values themselves; save the model in bfloat16, and quantise with compute=int8"
        )
