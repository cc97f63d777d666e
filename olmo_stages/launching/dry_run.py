"""`dry_run=true`, as Hydra hears of it: before it makes a folder."""

import re
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
    # Of several values Hydra sets none yet, and some jobs would run.
    several = any(re.match(r"\+*dry_run=.*[,(]", it) for it in config.hydra.overrides.task)
    if config.dry_run or several:
        from olmo_stages.launching.rehearsal import leave  # late: every start imports this module

        leave(config, multirun=multirun)
