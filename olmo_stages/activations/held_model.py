"""The model in memory: one at a time, with the batches that fit beside it."""

import gc
from typing import Any

from olmo_stages.activations.request import Work
from olmo_stages.errors import ConfigError
from olmo_stages.looking import make
from olmo_stages.models.compute import Compute
from olmo_stages.progress import say


class HeldModel:
    """Loads the model of a stage, and lets go of the one before.

    Args:
        compute: where and how it runs.

    Attributes:
        loaded: a `Loaded`, whose type would import torch; None = no model is in memory.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._budget: Any = None
        self.loaded: Any = None

    def of(self, work: Work) -> tuple[Any, Any]:
        """The model of a stage and the token budget of its batches, which lasts as long as it.

        Raises:
            ConfigError: it is to be read block by block, never whole.
            ModelError: the checkpoint cannot be used.
        """
        if self._compute.streamed:
            raise ConfigError(
                "compute=streamed reads texts and cannot write responses; let them be written once "
                "with compute=auto, compute=int8 or compute=int4, which keeps them in the store"
            )
        if self.loaded is None or self.loaded.stage != work.stage:
            self._load(work)
            self._budget = self._new_budget(work)
        return self.loaded, self._budget

    def for_writing(self, work: Work) -> tuple[Any, Any]:
        """The same with a budget of its own, since tokens that are written need more memory.

        Raises:
            ModelError: the checkpoint cannot be used.
        """
        return self.of(work)[0], self._new_budget(work)

    def _load(self, work: Work) -> None:
        make(f"activations of {work.stage.label}")
        import torch

        from olmo_stages.models.loading import load, places

        # Before the next one is loaded, so that two are never in memory.
        self.loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._compute.threads is not None:
            torch.set_num_threads(self._compute.threads)
        where = {
            "dtype": work.identity.dtype,
            "device": self._compute.resolve_device(),
            "quantisation": self._compute.quantisation,
        }
        device_map = self._compute.device_map
        if device_map is None:
            device_map = places(work.stage, work.checkpoint, say=say, **where)
        self.loaded = load(work.stage, work.checkpoint, device_map=device_map, **where)

    def _new_budget(self, work: Work) -> Any:  # noqa: ANN401 (a TokenBudget, likewise)
        from olmo_stages.models.memory import TokenBudget

        label = work.stage.label
        return TokenBudget(self._compute.token_budget, lambda line: say(f"{label}: {line}"))
