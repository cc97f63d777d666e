"""The processes of the jobs of a sweep, as the launching process sees them."""

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from olmo_stages.errors import StoreError
from olmo_stages.launching import child, current
from olmo_stages.launching.child import SIGNALS, STOPPED, Around, Line, Told
from olmo_stages.launching.devices import Gpus, threads_of_each
from olmo_stages.launching.ending import DONE, leave_word
from olmo_stages.launching.explanation import one_line
from olmo_stages.launching.preparing import COMPUTING, import_for_all
from olmo_stages.launching.screen import Board, labels
from olmo_stages.statuses import LOGS, Status, log_of, read_statuses, write_status
from olmo_stages.stopping import GRACE_S, NOTICE_S

_POLL_S = 0.05
_PARTING_S = 60.0  # between a job's last word and the end of its process
_MARGIN_S = 10.0  # beyond the grace of a shard
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass(frozen=True)
class LocalJob:
    """A job that is to be run.

    Args:
        name: unique in its sweep.
        overrides: what the sweep sets for it.
        work: runs it in its own process, and says how it ended.
        anew: it computes, be it done or not.
    """

    name: str
    overrides: Sequence[str]
    work: Callable[[], Told]
    anew: bool = False


@dataclass
class _Running:
    job: LocalJob
    pid: int
    word: int
    gpus: Sequence[str] | None
    started: float = field(default_factory=time.time)
    is_noted: bool = True
    told: Told | None = None
    told_at: float = float("inf")


class Fleet:
    """The processes of jobs.

    Args:
        jobs: what is to be run.
        sweep: folder of the sweep.
        n_jobs: so many at a time.
        gpus: what they share.
    """

    def __init__(self, jobs: Sequence[LocalJob], sweep: Path, n_jobs: int, gpus: Gpus) -> None:
        self._pending = list(jobs)
        self._running: list[_Running] = []
        self._sweep = sweep
        self._n_jobs = n_jobs
        self._gpus = gpus
        self._labels = labels([it.name for it in jobs])
        self._board = Board(len(jobs), is_quiet=n_jobs == 1)
        self._n_answered = 0
        self._deadline = float("inf")
        self._life = os.pipe()

    def run(self, heard: Sequence[signal.Signals]) -> None:
        """Run all, or as many as there are before a signal is heard."""
        try:
            while self._running or (self._pending and not heard):
                while not heard and self._pending and len(self._running) < self._n_jobs:
                    job = self._next()
                    if job is None:
                        break
                    self._start(job)
                self._answer(heard)
                self._look()
                running = [self._labels[it.job.name] for it in self._running]
                self._board.show(running, is_stopping=bool(heard))
                time.sleep(_POLL_S)
        finally:
            self._board.clear()
            for end in self._life:  # jobs that are still there stop now
                os.close(end)

    def _next(self) -> LocalJob | None:
        """What to start next: rather what nobody else is at work on, as another launch may be."""
        here = {it.job.name for it in self._running}
        free = [it for it in self._pending if it.name not in here]
        if not free:
            return None
        alone = (it for it in free if not read_statuses(self._sweep, [it.name])[0].goes_on)
        chosen = next(alone, free[0])
        self._pending.remove(chosen)
        return chosen

    def _start(self, job: LocalJob) -> None:
        (noted,) = read_statuses(self._sweep, [job.name])
        if job.anew or noted.state not in DONE:
            import_for_all(COMPUTING)
        is_noted = False
        with suppress(StoreError):  # the job says the same
            write_status(self._sweep, Status(job.name, "running", overrides=job.overrides))
            is_noted = True
        gpus = self._gpus.take()
        try:
            pid, word = self._fork(job, self._around(job, gpus))
        except OSError as error:
            self._gpus.give_back(gpus)
            failed = Status(job.name, "failed", error=f"not started: {one_line(error)}")
            self._note(failed, was_noted=is_noted)
            return
        self._running.append(_Running(job, pid, word, gpus, is_noted=is_noted))

    def _around(self, job: LocalJob, gpus: Sequence[str] | None) -> Around:
        environment = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        log = None
        if self._n_jobs > 1:
            (self._sweep / LOGS).mkdir(parents=True, exist_ok=True)
            log = log_of(self._sweep, job.name)
        return Around(log, environment, threads_of_each(self._n_jobs))

    def _fork(self, job: LocalJob, around: Around) -> tuple[int, int]:
        """Start a process; its number, and where its word will be read.

        Raises:
            OSError: the machine has no room for another.
        """
        read, write = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()  # what is in it would be printed twice
        # A signal that comes before the child has its own handlers waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with warnings.catch_warnings():
                # Of threads that numpy and pyarrow have, and end or lock themselves at a fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                child.run(job.work, around, Line(write, self._life[0], (read, self._life[1])))
        except OSError:
            os.close(read)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.close(write)
        os.set_blocking(read, False)
        return pid, read

    def _answer(self, heard: Sequence[signal.Signals]) -> None:
        """Tell the jobs what this process is told; end those that do not listen."""
        for it in heard[self._n_answered :]:
            insists = it == signal.SIGINT and signal.SIGINT in heard[: self._n_answered]
            if self._n_answered == 0:
                grace = NOTICE_S if it == signal.SIGUSR2 else GRACE_S
                self._deadline = time.monotonic() + grace + _MARGIN_S
                if self._running:
                    more = "; Ctrl-C again ends them at once" if it == signal.SIGINT else ""
                    self._board.line(f"{it.name}: jobs stop at the end of a shard{more}")
            self._n_answered += 1
            told = signal.SIGTERM if it == signal.SIGINT else it
            self._send(_SIGKILL if insists else told)
        if time.monotonic() > self._deadline:
            self._send(_SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        for it in self._running:
            os.kill(it.pid, number)  # it is a zombie at least, as long as nobody waited for it

    def _look(self) -> None:
        """Take note of what has ended."""
        for it in list(self._running):
            self._listen(it)
            if time.monotonic() > it.told_at + _PARTING_S:
                os.kill(it.pid, _SIGKILL)
            try:
                pid, code = os.waitpid(it.pid, os.WNOHANG)
            except ChildProcessError:  # whoever started us has children end without being asked
                pid, code = it.pid, 0
            if pid:
                self._listen(it)
                self._running.remove(it)
                os.close(it.word)
                self._gpus.give_back(it.gpus)
                self._ended(it, os.waitstatus_to_exitcode(code))

    def _listen(self, it: _Running) -> None:
        """Read the word of a job, if it has spoken; never waits, whoever else has the pipe open."""
        if it.told is None:
            with suppress(BlockingIOError, ValueError):
                it.told = json.loads(os.read(it.word, 1 << 16))
                it.told_at = time.monotonic()

    def _ended(self, it: _Running, code: int) -> None:
        told = it.told or _silent(code, is_stopping=self._n_answered > 0)
        seconds = time.time() - it.started
        status = Status(
            it.job.name,
            told["state"],  # pyright: ignore[reportArgumentType]  (the type hook looks)
            error=told["error"],
            seconds=seconds,
            overrides=it.job.overrides,
        )
        (noted,) = read_statuses(self._sweep, [it.job.name])
        by_another = it.is_noted and noted.state in DONE
        if by_another or (it.told is not None and noted.state == status.state):
            self._count(noted)
        else:
            self._note(status, was_noted=it.is_noted, is_said=it.told is not None)

    def _note(self, status: Status, *, was_noted: bool, is_said: bool = False) -> None:
        """Write down how a job ended that could not do so itself, and say so."""
        if self._n_jobs == 1 and not is_said:
            self._board.line(f"job {self._labels[status.job]} {status.state}: {status.error}")
        try:
            leave_word(self._sweep, status, was_noted=was_noted)
            (status,) = read_statuses(self._sweep, [status.job])  # with what the job is about
        except StoreError as error:
            if not is_said:
                self._board.line(str(error))
        self._count(status)

    def _count(self, status: Status) -> None:
        current.launch.ended[status.job] = status
        log = log_of(self._sweep, status.job) if self._n_jobs > 1 else None
        self._board.ended(self._labels[status.job], status, log)


def _silent(code: int, *, is_stopping: bool) -> Told:
    """How a job ended that did not say so."""
    if is_stopping:
        return {"state": "stopped", "error": STOPPED}
    if code >= 0:
        return {
            "state": "failed",
            "error": f"its process ended with exit code {code} before it was done",
        }
    number = -code
    if number == _SIGKILL:
        return {"state": "killed", "error": f"killed: signal {number} (out of memory?)"}
    return {"state": "killed", "error": f"killed: signal {number} ({signal.strsignal(number)})"}
