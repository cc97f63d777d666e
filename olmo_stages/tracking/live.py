"""Runs of jobs that are at work: whoever follows W&B sees them, and sees them stop and continue.

Nothing is measured yet, so nothing is sent but what the job is. W&B's service may die meanwhile, or
its server: the result is recorded all the same, by another service.
"""

import logging
from typing import Any

from olmo_stages.stopping import Stopped
from olmo_stages.tracking.containment import brief, comes_from_wandb, end_service
from olmo_stages.tracking.deadline import within

LEAVING_S = 5.0
"""Seconds for telling that a job stopped or failed; whoever takes the machine away waits 30."""

_INTERRUPTED = 255  # what W&B calls killed

_logger = logging.getLogger(__name__)
_runs: dict[str, Any] = {}


def keep(run_id: str, run: Any) -> None:  # noqa: ANN401  (a wandb run)
    """Keep the run of a job until its result is there."""
    _runs[run_id] = run


def take(run_id: str) -> Any:  # noqa: ANN401  (a wandb run)
    """Return the run of a job and forget it; None if there is none."""
    return _runs.pop(run_id, None)


def alive(run: Any, config: dict[str, Any]) -> bool:  # noqa: ANN401  (a wandb run)
    """Tell a run the whole configuration; whether it could be told."""
    try:
        run.config.update(config, allow_val_change=True)
    except Exception as error:
        if not comes_from_wandb(error):
            raise
        _logger.debug("W&B: %s", brief(error))
        end_service()
        return False
    return True


def leave(run: Any, error: BaseException) -> None:  # noqa: ANN401  (a wandb run)
    """End the run of a job that came to no result, within seconds; it may be continued.

    Args:
        run: of the job.
        error: why. After `Stopped` W&B shows it as preempted.
    """
    try:
        within(LEAVING_S, lambda: _end(run, error))
    except Exception as trouble:
        if not comes_from_wandb(trouble):
            raise
        _logger.debug("W&B: %s", brief(trouble))
        try:
            within(LEAVING_S, end_service)
        except TimeoutError as slow:
            _logger.debug("W&B: %s", brief(slow))


def _end(run: Any, error: BaseException) -> None:  # noqa: ANN401  (a wandb run)
    if isinstance(error, Stopped):
        run.mark_preempting()
    run.finish(exit_code=_code(error))


def _code(error: BaseException) -> int:
    if isinstance(error, Stopped):
        return 128 + error.signal
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
