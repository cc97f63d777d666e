"""Names of what a forward pass reads. Does not import torch."""

from typing import NamedTuple

from olmo_stages.types import Position, Site


class Capture(NamedTuple):
    """What is read in every layer asked for."""

    site: Site
    position: Position


class Key(NamedTuple):
    """Name of the activations of one capture in one layer."""

    site: Site
    position: Position
    layer: int

    @property
    def tensor_name(self) -> str:
        """Its name in a safetensors file."""
        return f"{self.site}/{self.position}/layer.{self.layer:02d}"
