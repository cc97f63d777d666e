"""Where and how the forward pass runs."""

from dataclasses import dataclass

from olmo_stages.errors import ConfigError
from olmo_stages.types import check_choice

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Compute:
    """Execution settings; only the dtype is part of an activation's identity.

    Args:
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        dtype: `auto` (bfloat16 on a GPU, float32 on the CPU), `float32`, `bfloat16` or `float16`.
        token_budget: tokens in one batch, padding included; a longer example is a batch alone.
        threads: CPU threads of torch; None = torch's own choice.
    """

    device: str
    dtype: str
    token_budget: int
    threads: int | None

    def __post_init__(self) -> None:
        check_choice("compute.device", self.device, DEVICES)
        check_choice("compute.dtype", self.dtype, DTYPES)
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
        import torch  # late, so that configs are built without it

        if torch.cuda.is_available():
            return "cuda"
        if self.device == "cuda":
            raise ConfigError(
                "compute.device 'cuda': torch sees no GPU here; use compute.device=cpu"
            )
        return "cpu"

    def resolve_dtype(self) -> str:
        """Return the dtype of the weights, never `auto`."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if self.resolve_device() == "cuda" else "float32"
