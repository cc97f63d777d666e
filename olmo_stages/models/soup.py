"""Weighted averages of checkpoints, tensor by tensor."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import derived, digests, families
from olmo_stages.models.malformed import malformed
from olmo_stages.models.tensors import Tensors, n_bytes, write_weights

VERSION = 1
"""Raise it when the same members and weights give other weights."""

_BLOCK = 2**24
_NOTHING = 1e-12
# They say how to generate; no activation depends on them.
_OF_GENERATION = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Ingredient:
    """A member of a soup, found on this machine.

    Args:
        name: what messages call it.
        path: its checkpoint directory.
        digest: identity of its weights.
        weight: its share.
        gives_tokenizer: whether the soup takes its tokenizer.
    """

    name: str
    path: Path
    digest: str
    weight: float
    gives_tokenizer: bool = False


def soup_key(ingredients: Sequence[Ingredient]) -> str:
    """Identity of a soup: the identities of its members' weights, and their shares.

    The order of the members is no part of it, nor how a checkpoint is named: the shares of two
    members with the same weights are added, and a soup of one has the identity of that member.
    """
    distinct = _distinct(ingredients)
    if len(distinct) == 1:
        return distinct[0].digest
    shares = [[it.digest, it.weight.hex()] for it in distinct]
    return digests.digest({"soup": VERSION, "members": shares})


def ensure_soup(ingredients: Sequence[Ingredient], cache: Path) -> tuple[Path, str]:
    """The checkpoint directory of a soup, cooked where it is not in the cache.

    Args:
        ingredients: its members.
        cache: the cache folder.

    Returns:
        The directory and the identity of its weights. A soup of one is that member.

    Raises:
        ModelError: members that cannot be averaged; names the first difference.
        StoreError: the disk is full.
    """
    distinct = _distinct(ingredients)
    tokenizer = _tokenizer(ingredients)
    key, cut = soup_key(ingredients), digests.tokenizer_digest(tokenizer)
    if len(distinct) == 1 and cut == digests.tokenizer_digest(distinct[0].path):
        return distinct[0].path, key
    _check_configs(distinct)
    folder_key = digests.digest([key, cut])

    def write(folder: Path) -> None:
        first = distinct[0].path
        small = [first / "config.json", first / "generation_config.json"]
        derived.copy_small([*small, *digests.tokenizer_files(tokenizer)], folder)
        _write(folder, distinct)

    told = [{"name": it.name, "digest": it.digest, "weight": it.weight} for it in ingredients]
    record = {"soup": VERSION, "members": told}
    return derived.ensure(folder_key, cache, write, record), key


def _distinct(ingredients: Iterable[Ingredient]) -> list[Ingredient]:
    """Each set of weights once, by its digest: rounding must not hang on the order of members."""
    found: dict[str, Ingredient] = {}
    for it in sorted(ingredients, key=lambda it: (it.digest, it.weight)):
        before = found.get(it.digest)
        weight = it.weight + (before.weight if before else 0.0)
        found[it.digest] = Ingredient(it.name, it.path, it.digest, weight)
    return [it for it in found.values() if abs(it.weight) > _NOTHING]


def _write(folder: Path, ingredients: Sequence[Ingredient]) -> None:
    members = [Tensors(it.path) for it in ingredients]
    for ingredient, member in zip(ingredients[1:], members[1:], strict=True):
        _check_layouts(ingredients[0], members[0], ingredient, member)
    shares = [it.weight for it in ingredients]
    sizes = {name: n_bytes(layout) for name, layout in members[0].layouts.items()}

    def make(name: str) -> torch.Tensor:
        if members[0].layouts[name].floating is not None:
            return average(name, members, shares)
        values = members[0].read(name)
        for ingredient, member in zip(ingredients[1:], members[1:], strict=True):
            if not torch.equal(values, member.read(name)):
                raise ModelError(
                    f"soup: {name} holds whole numbers that differ between {ingredients[0].name} "
                    f"and {ingredient.name}, and cannot be averaged; leave one of them out"
                )
        return values

    write_weights(folder, sizes, make, f"average of {len(members)} checkpoints")


def average(name: str, members: Sequence[Tensors], shares: Sequence[float]) -> torch.Tensor:
    """A weighted average, accumulated in float64 and rounded once to the dtype of the first.

    Args:
        name: name of the tensor.
        members: checkpoints that hold it in the same shape.
        shares: their weights.
    """
    layout = members[0].layouts[name]
    assert layout.floating is not None
    if not layout.shape:
        return _mean([member.read(name) for member in members], shares).to(layout.floating)
    mean = torch.empty(layout.shape, dtype=layout.floating)
    n_rows = max(1, _BLOCK // max(1, mean[0].numel())) if len(mean) else 1
    for start in range(0, len(mean), n_rows):
        rows = slice(start, start + n_rows)
        mean[rows] = _mean([member.read(name, rows) for member in members], shares)
    return mean


def _mean(parts: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    total = torch.zeros(parts[0].shape, dtype=torch.float64)
    for part, share in zip(parts, shares, strict=True):
        total.add_(part.to(torch.float64), alpha=share)
    return total


def _tokenizer(ingredients: Sequence[Ingredient]) -> Path:
    """The directory whose tokenizer files the soup takes.

    Raises:
        ModelError: the members' differ and none was chosen, or they have different vocabularies.
    """
    first = ingredients[0]
    vocabularies = {it.name: _vocabulary(it.path) for it in ingredients}
    found = {it.name: digests.tokenizer_digest(it.path) for it in ingredients}
    for it in ingredients[1:]:
        if vocabularies[it.name] != vocabularies[first.name]:
            raise ModelError(
                f"soup: the tokenizers of {first.name} and {it.name} have different vocabularies, "
                "so that their embeddings cannot be averaged; leave one of them out"
            )
    chosen = [it.path for it in ingredients if it.gives_tokenizer]
    if chosen:
        return chosen[0]
    for it in ingredients[1:]:
        if found[it.name] != found[first.name]:
            raise ModelError(
                f"soup: the tokenizer files of {first.name} and {it.name} differ (chat template, "
                "say); choose the member that gives them with model.tokenizer=MEMBER"
            )
    return min(it.path for it in ingredients)


def _vocabulary(path: Path) -> str | None:
    """Digest of the pieces and merges of tokenizer.json, as of any version; None without one.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        content = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        model = content.get("model") or {}
        # Older versions write a merge as "a b", newer ones as ["a", "b"].
        merges = [it.split(" ") if isinstance(it, str) else it for it in model.get("merges") or ()]
        return digests.digest([model.get("type"), model.get("vocab"), merges])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{path / 'tokenizer.json'}: cannot be read ({type(error).__name__}); save it again"
        ) from error


def _check_configs(ingredients: Sequence[Ingredient]) -> None:
    first = ingredients[0]
    wanted = _architecture(first.path)
    for it in ingredients[1:]:
        found = _architecture(it.path)
        for key in sorted({*wanted, *found}):
            if wanted.get(key) != found.get(key):
                raise ModelError(
                    f"soup: config.json of {first.name} has {key} {_short(wanted, key)}, of "
                    f"{it.name} {_short(found, key)}; only checkpoints of one architecture can be "
                    "averaged"
                )


def _architecture(path: Path) -> dict[str, Any]:
    with malformed(str(path)):
        # As transformers reads it: one architecture is spelt in several ways.
        config = families.native_config(path).to_dict()
    dropped = {*digests.BOOKKEEPING, *_OF_GENERATION, "architectures"}
    if config.get("rope_parameters"):
        dropped |= {"rope_scaling", "rope_theta"}  # the same, spelt as before
    return {key: value for key, value in config.items() if key not in dropped}


def _short(config: Mapping[str, Any], key: str) -> str:
    said = json.dumps(config[key]) if key in config else "none"
    return said if len(said) <= 60 else f"{said[:57]}..."


def _check_layouts(first: Ingredient, wanted: Tensors, other: Ingredient, found: Tensors) -> None:
    for name in sorted({*wanted.layouts, *found.layouts}):
        sides = [members.layouts.get(name) for members in (wanted, found)]
        said = ["nothing" if it is None else f"{it.dtype} {list(it.shape)}" for it in sides]
        if said[0] != said[1]:
            raise ModelError(
                f"soup: {name} is {said[0]} in {first.name} and {said[1]} in {other.name}; only "
                "checkpoints with the same weights, shapes and dtypes can be averaged"
            )
