"""`dry_run=true`, as Hydra hears of it: before it makes a folder."""

from typing import Any

from hydra.experimental.callback import Callback


class DryRun(Callback):
    """Shows what would run and leaves, where that is asked for."""

    def on_run_start(self, config: Any, **kwargs: object) -> None:  # noqa: ANN401  (DictConfig)
        """Leave before a single job."""
        del kwargs
        _leave(config, multirun=False)

    def on_multirun_start(self, config: Any, **kwargs: object) -> None:  # noqa: ANN401  (DictConfig)
        """Leave before a sweep."""
        del kwargs
        _leave(config, multirun=True)


def _leave(config: Any, *, multirun: bool) -> None:  # noqa: ANN401  (DictConfig)
    if config.dry_run:
        from olmo_stages.launching.rehearsal import leave  # late: every start imports this module

        leave(config, multirun=multirun)
