"""The errors a user can meet. Each is also the standard error it specialises.

None has a constructor of its own: a Slurm worker pickles exceptions, and one with several
constructor arguments cannot be unpickled. The message carries the offending value and the remedy.
"""


class OlmoStagesError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(OlmoStagesError, ValueError):
    """An unknown stage, size, analysis or option, or options that do not fit together."""


class DataError(OlmoStagesError, ValueError):
    """Data that cannot be used as given: a missing column, one class only, an empty text."""


class PairingError(OlmoStagesError, ValueError):
    """Two sides that were to be compared do not hold the same examples or token ids."""


class ModelError(OlmoStagesError, RuntimeError):
    """A checkpoint that cannot be loaded or does not have the structure that is needed."""


class NonFiniteError(ModelError):
    """Activations that are not finite."""


class StoreError(OlmoStagesError, OSError):
    """An entry of the activation store that is damaged, locked or cannot be written."""


class NotHere(OlmoStagesError, LookupError):
    """Something that would have to be made or downloaded first, where somebody only looks."""
