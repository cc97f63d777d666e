"""Stopping when told to: between two shards rather than in the middle of one.

Whoever takes a machine away says so first, with SIGUSR2 ahead of a time limit or SIGTERM at a
preemption, and kills some time later. Both mean: stop where nothing is lost, leave no trace of
having ended well, be started again.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

GRACE_S = 20.0
"""Seconds a unit may go on after SIGTERM; Slurm kills 30 s after it, unless KillWait says else."""

NOTICE_S = 60.0
"""Seconds a unit may go on after SIGUSR2, which comes ahead of a time limit."""

_AGAIN_S = 1.0
_TWICE_S = 3.0  # within it the same signal is the same notice, which Slurm delivers twice
_DEEPEST = 100  # exceptions in a chain, which may be a ring
_SIGNALS = (signal.SIGTERM, signal.SIGUSR2)


class Stopped(SystemExit):
    """This process was told to stop.

    Uncaught, it ends the process quietly with 128 and the signal's number, as shells count.

    Args:
        by: the signal that is answered.
    """

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(128 + by)
        self.signal = by


@dataclass
class Listener:
    """What was heard, and whether it may be acted on.

    Args:
        grace_s: by signal, how long a unit may go on after it.
        on_signal: called once, when the first signal is heard.
    """

    grace_s: Mapping[signal.Signals, float]
    on_signal: Callable[[], None]
    heard: list[signal.Signals] = field(default_factory=list)
    _pid: int = field(default_factory=os.getpid)
    _depth: int = 0
    _unit_grace_s: float | None = None
    _last: float = 0.0
    _deadline: float = float("inf")
    _is_noting: bool = False
    _is_over: bool = False

    @property
    def here(self) -> bool:
        """Whether this is the thread and the process that listen."""
        return os.getpid() == self._pid and threading.current_thread() is threading.main_thread()

    @property
    def answers(self) -> signal.Signals:
        """The signal that the end of the process answers: SIGUSR2 wherever it was among them.

        Its sender expects the job to queue again by itself; SIGTERM's expects nothing.
        """
        return signal.SIGUSR2 if signal.SIGUSR2 in self.heard else self.heard[0]

    def enter(self, grace_s: float | None) -> None:
        """Begin a unit; of nested ones the outermost counts."""
        if self._depth == 0:
            self._unit_grace_s = grace_s
        self._depth += 1

    def leave(self) -> None:
        """End a unit."""
        self._depth -= 1

    def close(self) -> None:
        """Raise nothing any more; what is still heard is answered too."""
        self._is_over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            Stopped: at once outside of a unit, and in one whose grace is over.
        """
        del frame
        if os.getpid() != self._pid:  # forked since: not the process that answers for the job
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif number != signal.SIGALRM:
            self._note(signal.Signals(number))
        self.obey()

    def obey(self) -> None:
        """Stop, if told to and unless a unit may still go on.

        Raises:
            Stopped: if so.
        """
        in_unit = self._depth > 0 and time.monotonic() < self._deadline
        waits = in_unit or self._is_noting or self._is_over
        if self.heard and not waits and not _is_unwinding():
            raise Stopped(self.answers)

    def _note(self, heard: signal.Signals) -> None:
        now, first = time.monotonic(), not self.heard
        # A person who sends another does not want to wait.
        insists = heard in self.heard and now - self._last > _TWICE_S
        grace = self.grace_s[heard] if self._unit_grace_s is None else self._unit_grace_s
        self._deadline = now if insists else min(self._deadline, now + grace)
        self._last = now
        self.heard.append(heard)
        if first and not self._is_over:
            # Ends the grace, and tells again should a library have swallowed the exception.
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
        if first:
            self._is_noting = True
            try:
                with suppress(OSError):
                    self.on_signal()
            finally:
                self._is_noting = False


_listeners: list[Listener] = []


@contextmanager
def listening(
    on_signal: Callable[[], None] = lambda: None,
    *,
    grace_s: float = GRACE_S,
    notice_s: float = NOTICE_S,
) -> Iterator[Listener]:
    """Stop on SIGTERM and SIGUSR2 while the block runs; elsewhere than in a main thread, do not.

    However the block ends once a signal was heard, well or not: whoever handled SIGUSR2 before
    (submitit, which queues the job again) is told now, and `Stopped` is raised. The block catches
    nothing but what it wants to note or clean up.

    Args:
        on_signal: called once, at the first signal, wherever the program is: it notes that this
            job was stopped, even if it is killed before it gets any further. What it raises of
            `OSError` is ignored.
        grace_s: seconds that a unit may go on after SIGTERM.
        notice_s: seconds that a unit may go on after SIGUSR2.

    Raises:
        Stopped: a signal was heard.
    """
    listener = Listener({signal.SIGTERM: grace_s, signal.SIGUSR2: notice_s}, on_signal)
    if not listener.here:
        yield listener
        return
    before = {it: signal.getsignal(it) for it in (*_SIGNALS, signal.SIGALRM)}
    _listeners.append(listener)
    try:
        for it in before:
            signal.signal(it, listener.hear)
        yield listener
    finally:
        _end(listener, before)


@contextmanager
def unit(grace_s: float | None = None) -> Iterator[None]:
    """Work that is lost unless it is finished: a signal is kept until its end.

    Cheap, and nothing at all where nobody listens. In another thread than the main one nothing
    interrupts it anyway. Python handles a signal between two steps, so one call into a library
    delays the end of the grace by as long as it takes.

    Args:
        grace_s: at most so long after the signal, then it is raised all the same; None = as
            `listening` says. Of nested units the outermost counts.

    Raises:
        Stopped: a signal was heard.
    """
    listener = _listeners[-1] if _listeners else None
    if listener is None or not listener.here:
        yield
        return
    listener.enter(grace_s)
    try:
        yield
    finally:
        listener.leave()
    listener.obey()


def told() -> Stopped | None:
    """What to raise in a unit that is where nothing is lost; None = nobody told it to stop."""
    listener = _listeners[-1] if _listeners else None
    if listener is None or not listener.here or not listener.heard:
        return None
    return Stopped(listener.answers)


def _end(listener: Listener, before: Mapping[signal.Signals, Any]) -> None:
    """Give the signals back, and answer.

    Raises:
        Stopped: a signal was heard.
    """
    listener.close()
    for it, handler in before.items():
        # None is a handler that was not set from Python.
        signal.signal(it, signal.SIG_DFL if handler is None else handler)
    _listeners.remove(listener)
    if not listener.heard:
        return
    answers = listener.answers
    if answers == signal.SIGUSR2 and callable(earlier := before[answers]):
        earlier(answers, None)
    raise Stopped(answers)


def _is_unwinding() -> bool:
    """Whether some `except` or `finally` is at work on `Stopped`, which must not be disturbed."""
    error = sys.exc_info()[1]
    for _ in range(_DEEPEST):
        if error is None or isinstance(error, Stopped):
            break
        error = error.__context__
    return isinstance(error, Stopped)
