"""Waiting for jobs that Slurm runs: a line for each that ended, and why the others wait."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from olmo_stages.errors import StoreError
from olmo_stages.launching.ending import DONE
from olmo_stages.launching.screen import Board, labels
from olmo_stages.launching.slurm import cluster, submitted
from olmo_stages.launching.slurm.cluster import End, Entry
from olmo_stages.launching.slurm.ends import waits_for_ever, words_for
from olmo_stages.statuses import Status, read_statuses, said, write_status

_FINAL = DONE | {"failed"}
_STARTED = frozenset({"running", "stopped"})
# Told from outside: nothing the job could still say matters.
_SETTLED = frozenset({
    "CANCELLED",
    "NODE_FAIL",
    "BOOT_FAIL",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "TIMEOUT",
})
_SETTLE_S = 10.0  # a shared file system shows a file this late
_LAG_S = 60.0  # Slurm's accounting is this late
_CACHED_S = 600.0  # a site's own squeue may show what was, while accounting knows a job as alive
_LINGER_S = 120.0  # a job that is done may take this long to leave
_NEWS_S = 60.0
_SLOWDOWN = 20
_A_SECOND = 100  # statuses are read so fast, at most


@dataclass(frozen=True)
class Waited:
    """A job that is waited for.

    Args:
        job: name.
        slurm: its id there.
        name: what Slurm calls it.
        asked: what it asked for, for people.
        overrides: what the sweep set for it.
    """

    job: str
    slurm: str
    name: str
    asked: str
    overrides: tuple[str, ...] = ()


class Watch:
    """Jobs that are waited for, until all have ended.

    Args:
        sweep: folder of the sweep.
        waited: the jobs.
        poll_s: longest pause between two questions to Slurm.
    """

    def __init__(self, sweep: Path, waited: Iterable[Waited], poll_s: float) -> None:
        self.sweep = sweep
        self.open = {it.job: it for it in waited}
        self.ended: dict[str, Status] = {}
        self._labels = labels([*self.open])
        self._board = Board(len(self.open), is_quiet=False)
        self._poll_s = poll_s
        self._start = time.monotonic()
        self._since: dict[tuple[str, str], float] = {}
        self._asked_at = float("-inf")
        self._answered_at = self._start
        self._final: set[str] = set()
        self._news = ""
        self._told: set[str] = set()
        self._news_at = float("-inf")

    def run(self) -> dict[str, Status]:
        """Wait for all.

        Returns:
            How each ended.
        """
        while True:
            self._look()
            if not self.open:
                return self.ended
            time.sleep(max(min(1.0, self._poll_s / 2), len(self.open) / _A_SECOND))

    def _look(self) -> None:
        statuses = {job: said(self.sweep, job) for job in self.open}
        final = {job for job, it in statuses.items() if it is not None and it.state in _FINAL}
        now = time.monotonic()
        pause = min(self._poll_s, max(1.0, (now - self._start) / _SLOWDOWN))
        if final - self._final:
            pause = min(pause, 1.0)
        if now - self._asked_at < pause:
            return
        self._asked_at, self._final = now, final
        entries = cluster.entries(it.slurm for it in self.open.values())
        if entries is None:
            self._say_silent(now)
            return
        self._answered_at = now
        there = {
            job: entries[it.slurm]
            for job, it in self.open.items()
            if it.slurm in entries and entries[it.slurm].name == it.name
        }
        self._end(statuses, there, final)
        self._say_waiting({job: it for job, it in there.items() if job in self.open})

    def _end(
        self, statuses: Mapping[str, Status | None], there: Mapping[str, Entry], final: set[str]
    ) -> None:
        """Settle what has ended."""
        for job in [*self.open]:
            is_there, is_final = job in there, job in final
            gone_s = self._lasting(job, "gone", is_it=not is_there)
            done_s = self._lasting(job, "done", is_it=is_final)
            if is_final and (gone_s is not None or (done_s or 0) > _LINGER_S):
                self._settle(job, statuses[job])
        silent = [it for job, it in self.open.items() if job not in there and job not in final]
        ends = cluster.ends(it.slurm for it in silent) if silent else {}
        for waited in silent:
            gone_s = self._lasting(waited.job, "gone", is_it=True) or 0.0
            end = ends.get(waited.slurm)
            if _is_sure(end, gone_s):
                # It may have said so between the first question and the last.
                self._settle(waited.job, said(self.sweep, waited.job), end)

    def _lasting(self, job: str, what: str, *, is_it: bool) -> float | None:
        """Seconds since something has been so; None while it is not."""
        if not is_it:
            self._since.pop((job, what), None)
            return None
        return time.monotonic() - self._since.setdefault((job, what), time.monotonic())

    def _settle(self, job: str, status: Status | None, end: End | None = None) -> None:
        """Note how a job ended, and say so."""
        waited = self.open.pop(job)
        status = status or Status(job, "queued", overrides=list(waited.overrides))
        log = submitted.log(self.sweep, waited.slurm)
        was_stopped = status.state == "stopped" and (end is None or end.state not in _SETTLED)
        if status.state not in _FINAL and not was_stopped:
            over = None if end is None or not end.is_over else end
            word = words_for(over, waited.asked, log, status.state in _STARTED)
            status = replace(status, state=word.state, error=word.reason, slurm=waited.slurm)
            try:
                write_status(self.sweep, status)
            except StoreError as error:
                self._board.line(str(error))
        (noted,) = read_statuses(self.sweep, [job])  # with what the job is about
        self.ended[job] = status = noted if noted.state == status.state else status
        self._board.ended(self._labels[job], status, log if log.exists() else None)

    def _say_waiting(self, there: Mapping[str, Entry]) -> None:
        """Say how many run and why the others wait, when that changes, at most once a minute."""
        waiting = {job: it for job, it in there.items() if it.state == "PENDING"}
        self._say_stuck(waiting)
        reasons = Counter(it.reason for it in waiting.values())
        parts = [f"{len(there) - len(waiting)} running"] if len(there) > len(waiting) else []
        parts += [f"{count} waiting ({reason})" for reason, count in reasons.most_common()]
        parts = [it.replace(" (None)", "") for it in parts]  # it has not been looked at yet
        news, now = ", ".join(parts), time.monotonic()
        if news and news != self._news and now - self._news_at >= _NEWS_S:
            self._board.line(f"in Slurm: {news}")
            self._news, self._news_at = news, now

    def _say_stuck(self, waiting: Mapping[str, Entry]) -> None:
        """Say, once for each reason, what to do about jobs that will never start by themselves."""
        for job, it in waiting.items():
            remedy = waits_for_ever(it.reason, self.open[job].asked)
            if remedy is None or it.reason in self._told:
                continue
            self._told.add(it.reason)
            ids = [
                self.open[key].slurm for key, other in waiting.items() if other.reason == it.reason
            ]
            self._board.line(
                f"job {self._labels[job]} will not start as it is ({it.reason}): it {remedy}; then "
                f"scancel {' '.join(ids)} and give the command again"
            )

    def _say_silent(self, now: float) -> None:
        if now - self._answered_at > _NEWS_S and "silent" not in self._told:
            self._told.add("silent")
            self._board.line(
                "Slurm does not answer; its jobs go on, and it is asked again and again"
            )


def _is_sure(end: End | None, gone_s: float) -> bool:
    """Whether what Slurm says of a job that left without a word is its last one."""
    if end is None or not end.is_over:
        return gone_s > (_LAG_S if end is None else _CACHED_S)
    return end.state in _SETTLED or gone_s > _SETTLE_S
