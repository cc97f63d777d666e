"""`hydra/launcher=local`. Hydra imports this at every start, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra.plugins.launcher import Launcher


class LocalLauncher(Launcher):
    """Jobs on this machine, each in a process of its own.

    Args:
        options: of `olmo_stages.launching.local.Way`.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  (a launcher's options are checked there)
        from olmo_stages.launching.local import Way

        self.way = Way(**options)

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:  # noqa: ANN401
        """Take what Hydra gives."""
        from olmo_stages.launching.batch import Given

        self.given = Given(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run the jobs of a batch."""
        from olmo_stages.launching.batch import run_locally

        return run_locally(self.given, self.way, job_overrides, initial_job_idx)
