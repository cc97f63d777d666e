"""An analysis that ends as it is told, for sweeps as a user runs them."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from olmo_stages.types import Measurement, Result


@dataclass(frozen=True)
class Deadly:
    end: str
    name: ClassVar[str] = "deadly"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def __call__(self, stage, reference, activations, seed):
        del reference, seed
        norm = float(np.linalg.norm(activations(stage).values, axis=2).mean())
        if Path("trap").exists():
            if self.end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.end == "exits":
                sys.exit(3)
        return Result((Measurement("norm", norm, stage.label),), headline={"norm": norm})
