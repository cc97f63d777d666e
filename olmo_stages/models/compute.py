"""Where and how the forward pass runs."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from olmo_stages.checks import checked
from olmo_stages.errors import ConfigError
from olmo_stages.types import check_choice

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SCHEMES: Mapping[str, str] = {
    "none": "none",
    "int8": "bitsandbytes-int8-threshold6",
    "int4": "bitsandbytes-nf4-double",
}
"""How the weights are quantised, as the identity of activations spells it, by what is asked for."""
FULL_PRECISION = SCHEMES["none"]


@checked
@dataclass(frozen=True)
class Compute:
    """Execution settings; dtype and quantisation are part of an activation's identity.

    Args:
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        dtype: `auto` (bfloat16 on a GPU, float32 on the CPU), `float32`, `bfloat16` or `float16`.
        token_budget: tokens in one batch, padding included; a longer example is a batch alone.
        threads: CPU threads of torch; None = torch's own choice.
        quantisation: of the weights: `none`, `int8` or `int4`, by bitsandbytes.
        device_map: None = the model lies on one device or, where one GPU does not hold its
            weights, on as few as do; `auto` = accelerate spreads it over all GPUs and the CPU.
        streamed: read the weights block by block, once, with all batches passing through each;
            for models that do not fit into memory. Changes no number.
    """

    device: str
    dtype: str
    token_budget: int
    threads: int | None
    quantisation: str = "none"
    device_map: str | None = None
    streamed: bool = False

    def __post_init__(self) -> None:
        check_choice("compute.device", self.device, DEVICES)
        check_choice("compute.dtype", self.dtype, DTYPES)
        check_choice("compute.quantisation", self.quantisation, tuple(SCHEMES))
        if self.device_map is not None:
            check_choice("compute.device_map", self.device_map, ("auto",))
            if self.device == "cpu":
                raise ConfigError(
                    "compute.device=cpu and compute.device_map=auto contradict each other: the map "
                    "takes every GPU it finds; leave one of them out"
                )
        if self.streamed and (self.device_map is not None or self.quantisation != "none"):
            other = f"compute.quantisation={self.quantisation}"
            if self.device_map is not None:
                other = f"compute.device_map={self.device_map}"
            raise ConfigError(
                f"compute.streamed=true and {other} exclude each other: whole blocks in full "
                "precision are streamed through one device; leave one of them out"
            )
        if self.token_budget < 1:
            raise ConfigError(
                f"compute.token_budget {self.token_budget} holds no token; give at least 1"
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(
                f"compute.threads {self.threads} is below 1; use null for the default"
            )

    def resolve_device(self) -> str:
        """Return `cpu` or `cuda`.

        Raises:
            ConfigError: `cuda` was asked for on a machine that has none.
        """
        if self.device == "cpu":
            return "cpu"
        if may_see_gpus():
            import torch  # late, so that configs are built without it

            if torch.cuda.is_available():
                return "cuda"
        if self.device == "cuda":
            raise ConfigError(
                "compute.device 'cuda': torch sees no GPU here; use compute.device=cpu"
            )
        return "cpu"

    def on(self, device: str) -> "Compute":
        """The same settings for a machine that is not this one, with nothing left to look up there.

        Args:
            device: `cuda` where that machine has a GPU, else `cpu`.
        """
        if self.dtype != "auto":
            return self
        has_gpu = device == "cuda" and self.device != "cpu"
        return replace(self, dtype="bfloat16" if has_gpu else "float32")

    def resolve_quantisation(self) -> str:
        """Return the quantisation of the weights as the identity of activations spells it.

        Raises:
            ConfigError: it needs bitsandbytes, which is not installed.
        """
        if self.quantisation != "none" and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                f"compute={self.quantisation} needs bitsandbytes, which is not installed: "
                "pip install 'olmo-stages[quantised]'"
            )
        return SCHEMES[self.quantisation]

    def resolve_dtype(self) -> str:
        """Return the dtype of the weights, never `auto`."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if self.resolve_device() == "cuda" else "float32"


def may_see_gpus() -> bool:
    """Whether torch must be asked, whose import takes longer than all else of a finished job."""
    return "torch" in sys.modules or not version("torch").endswith("+cpu")


def of_quantised(scheme: str) -> str:
    """What a result of quantised weights tells its reader."""
    return (
        f"weights are quantised ({scheme}), on both sides of a comparison: set no number of this "
        "result beside one of full-precision weights"
    )
