"""`hydra/launcher=slurm`. Hydra imports this at every start, so it imports little."""

from collections.abc import Sequence
from typing import Any

from hydra.plugins.launcher import Launcher


class SlurmLauncher(Launcher):
    """Jobs of a sweep as arrays of Slurm.

    Args:
        params: the keys of conf/hydra/launcher/slurm.yaml.
    """

    def __init__(self, **params: Any) -> None:  # noqa: ANN401
        self.params = params

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:  # noqa: ANN401
        """Take what Hydra gives."""
        from olmo_stages.launching.batch import Given

        self.given = Given(hydra_context, task_function, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Submit the jobs of a batch and wait for them."""
        from olmo_stages.launching.slurm.launcher import launch

        return launch(self.given, self.params, job_overrides, initial_job_idx)
