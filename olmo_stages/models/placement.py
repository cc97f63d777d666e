"""Models that do not lie on one device in full precision: quantised, or spread over devices."""

import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from olmo_stages.errors import ModelError
from olmo_stages.models import digests
from olmo_stages.models.guards import Values


def options(
    path: Path,
    dtype: str,
    device: str,
    quantisation: str,
    device_map: str | Mapping[str, int | str] | None,
) -> dict[str, Any]:
    """What `from_pretrained` is told of quantisation and devices.

    Args:
        path: checkpoint directory.
        dtype: of what is not quantised (embeddings, norms, head), and of the arithmetic.
        device: `cpu` or `cuda`.
        quantisation: `none`, `int8` or `int4`.
        device_map: `auto`, the place of each part of the model, or None.

    Returns:
        Nothing for a model in full precision on one device.
    """
    if quantisation == "none" and device_map is None:
        return {}
    where = {"": torch.cuda.current_device() if device == "cuda" else "cpu"}
    found: dict[str, Any] = {"device_map": device_map or where}
    # What is saved quantised says so itself.
    if quantisation != "none" and not digests.read_config(path).get("quantization_config"):
        found["quantization_config"] = _bitsandbytes(quantisation, dtype)
    return found


def _bitsandbytes(quantisation: str, dtype: str) -> Any:  # noqa: ANN401 (a config of transformers)
    from transformers import BitsAndBytesConfig

    if quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=6.0)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def settle(model: torch.nn.Module) -> None:
    """Let 4-bit weights on the CPU be unpacked in one way on every processor.

    bitsandbytes repacks them for processors with AVX-512, which fails for matrices that are no
    multiple of its blocks and rounds in another way.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (not in its type)


def where(model: Any) -> dict[str, str]:  # noqa: ANN401 (any model of transformers)
    """What lies on each device, for the record.

    Returns:
        By device, e.g. `cuda:0`, its name and, of a model that is spread out, how many of its parts
        are there.
    """
    spread = getattr(model, "hf_device_map", None)
    if spread is None:
        devices = Counter(str(parameter.device) for parameter in model.parameters())
        return {device: name(device) for device in devices}
    names = [f"cuda:{it}" if isinstance(it, int) else str(it) for it in spread.values()]
    parts = Counter(names)
    return {
        device: f"{name(device)}, {count} of {len(names)} parts of the model"
        for device, count in parts.items()
    }


def name(device: str) -> str:
    """Name of a device such as `cuda:0` or `cpu`, for the record."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return platform.machine() if device == "cpu" else device


@contextmanager
def running(where: str, quantisation: str) -> Iterator[None]:
    """Say in one line that bitsandbytes cannot compute a model on this device.

    Raises:
        ModelError: it cannot.
    """  # noqa: DOC501 (what else goes wrong passes through)
    try:
        yield
    except ModelError:
        raise
    except (AssertionError, RuntimeError, NotImplementedError, ImportError) as error:
        if quantisation == "none":
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{where}: compute={quantisation} does not run on this device ({reason}); use "
            "compute=auto, another GPU, or a newer one: pip install -U bitsandbytes"
        ) from error


def check_values(where: str, path: Path, dtype: str) -> None:
    """Refuse weight files with values that are not finite or zero, before quantisation hides them.

    One tensor at a time is read, since a quantised model no longer has the values, and a model
    that is spread out keeps some of them off its devices.

    Raises:
        ModelError: names the first such weight.
    """
    from safetensors import safe_open

    values = Values(where, getattr(torch, dtype))
    for file in digests.weight_files(path):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (no mapping)
                values.look(name, weights.get_tensor(name))
    values.check_zeros()
