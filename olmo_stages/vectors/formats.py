"""Trait vectors in the formats of other tools, read from their sources; nothing is pickled.

Both tools add a vector to the output of a block and count blocks from 0, as this project does, so
that layer i stays layer i:

- GGUF: llama.cpp adds `direction.i` to the residual stream that leaves block i (`build_cvec` after
  the last addition of a block). It keeps no direction for block 0 and refuses a file that has one.
  repeng keeps `direction.i` as `directions[i]`, and adds it to the output of `model.layers[i]`.
- steering-vectors adds `layer_activations[i]` to the output of the i-th decoder block.

Source:
    llama.cpp: common/common.cpp (common_control_vector_load_one), src/llama-adapter.cpp and
    src/models/olmo2.cpp, which is OLMo 3's graph too; repeng 0.4.0: extract.py, control.py;
    steering-vectors 0.12.2: steering_vector.py.
"""

import json
from os import PathLike
from pathlib import Path

import safetensors.numpy

from olmo_stages.atomic import TEMPORARY, scratch, write_file, writing
from olmo_stages.errors import ConfigError
from olmo_stages.vectors.files import TraitVector

_ARCHITECTURE = "controlvector"
_PREFIX = "olmo_stages."
_UNKNOWN_MODEL = "unknown"


def first_block_of(format: str) -> int:
    """The first block whose output a format has a place for."""
    return 1 if format == "gguf" else 0


def save_gguf(vector: TraitVector, path: str | PathLike[str]) -> None:
    """Write a control vector as llama.cpp and repeng read it.

    Tensors `direction.LAYER`, float32 [d_model], label 1 being the positive direction. Where it
    comes from stands beside them under `olmo_stages.*`, as text; `controlvector.model_hint` is the
    model_type of the Hugging Face config, as repeng writes it.

    Raises:
        ConfigError: it was not read at resid_post, or has a layer that llama.cpp refuses.
        StoreError: the disk is full or the place cannot be written.
    """
    from gguf import GGUFWriter  # late: only this function needs it

    _check_blocks(vector, "gguf")
    with scratch() as folder, writing(folder, TEMPORARY):
        # The writer leaves half a file where it is stopped, so it writes beside the target.
        whole = folder / "vector.gguf"
        writer = GGUFWriter(whole, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", vector.told("family") or _UNKNOWN_MODEL)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vector.layers))
        for key, text in _texts(vector).items():
            writer.add_string(_PREFIX + key, text)
        for layer in vector.layers:
            writer.add_tensor(f"direction.{layer}", vector.vectors[layer])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        write_file(Path(path), whole.read_bytes())


def save_steering(vector: TraitVector, path: str | PathLike[str]) -> None:
    """Write what the class SteeringVector of the package steering-vectors takes.

    A safetensors file with one float32 tensor [d_model] a layer, named by the layer's number:

        from safetensors.torch import load_file
        from steering_vectors import SteeringVector
        vector = SteeringVector({int(layer): v for layer, v in load_file(path).items()})

    Raises:
        ConfigError: it was not read at resid_post, or is of the embeddings.
        StoreError: the disk is full or the place cannot be written.
    """
    _check_blocks(vector, "steering-vectors")
    tensors = {str(layer): vector.vectors[layer] for layer in vector.layers}
    write_file(Path(path), safetensors.numpy.save(tensors, metadata=_metadata(vector)))


def _metadata(vector: TraitVector) -> dict[str, str]:
    """One key: the order in which safetensors writes several is not fixed."""
    return {"olmo_stages": json.dumps(_texts(vector), sort_keys=True, ensure_ascii=False)}


def _texts(vector: TraitVector) -> dict[str, str]:
    """What it is and where it comes from, as text."""
    own = {name: str(getattr(vector, name)) for name in ("trait", "site", "position", "kind")}
    told = {key: vector.told(key) for key in vector.provenance}
    return {**told, **own, "scale": vector.scale}


def _check_blocks(vector: TraitVector, format: str) -> None:
    """Refuse what has no place in the format.

    Raises:
        ConfigError: names the site or the layers.
    """
    if vector.site != "resid_post":
        raise ConfigError(
            f"format={format} adds to the output of a block, but the vector of trait "
            f"{vector.trait!r} was read at {vector.site}; measure it with analysis.site=resid_post "
            "or export it with --format safetensors"
        )
    first = first_block_of(format)
    if outside := [layer for layer in vector.layers if layer < first]:
        raise ConfigError(
            f"format={format} has no place for layers {outside}; leave them out, its first is "
            f"{first}"
        )
