"""The process of one job, forked from the launching one."""

import atexit
import contextlib
import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from olmo_stages.launching.devices import limit_threads
from olmo_stages.launching.explanation import KNOWN, explain
from olmo_stages.launching.output import Tolerant
from olmo_stages.launching.screen import say
from olmo_stages.provenance import now
from olmo_stages.stopping import Stopped

Told = Mapping[str, str]
"""How a job ended, in its own words: `state` and `error` of its `Status`."""

STOPPED = "told to stop; goes on when started again"
"""Why a job has no result that was told to stop."""

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
"""Signals that a launching process takes, and its jobs must not inherit the handlers of."""

_LONGEST = 600  # characters; what a pipe takes is read at once if it is below 4096 bytes


@dataclass(frozen=True)
class Around:
    """What a job's process has of its own.

    Args:
        log: where its output goes; None = where that of the launching process goes.
        environment: variables.
        threads: of the CPU; None = all.
    """

    log: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


@dataclass(frozen=True)
class Line:
    """Ends of pipes.

    Args:
        word: where the job says how it ended.
        life: readable once the launching process has ended.
        others: ends that are the launching process's, and that this one must not keep open.
    """

    word: int
    life: int
    others: tuple[int, ...]


def run(work: Callable[[], Told], around: Around, line: Line) -> NoReturn:
    """Be the process of one job, right after the fork: never returns.

    Whatever this process inherited is left alone: it ends without what the launching process wanted
    to do at its own end, but with what the job wants (wandb ends its service then).
    """
    code = 1
    try:
        _settle(around, line)
        told = _told(work)
        os.write(line.word, json.dumps(told, ensure_ascii=False).encode(errors="replace"))
        code = 0
        _close()
    except BaseException:  # noqa: BLE001  (nobody above may see it: that is the launching process)
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        os._exit(code)


def _settle(around: Around, line: Line) -> None:
    atexit._clear()
    for end in line.others:
        os.close(end)
    # Ctrl-C reaches all processes of a terminal; the launching one tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for it in SIGNALS - {signal.SIGINT}:
        signal.signal(it, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_outlive, args=(line.life,), daemon=True).start()
    _redirect(around.log)
    os.environ.update(around.environment)
    if around.threads is not None:
        limit_threads(around.threads)


def _outlive(life: int) -> None:
    """Stop when the launching process is gone: nobody would look after this one."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _redirect(log: Path | None) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if log is None:
        return
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(Tolerant(it, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        for it in (1, 2)
    )
    print(f"--- {now().isoformat(timespec='seconds')}, process {os.getpid()}")  # noqa: T201


def _told(work: Callable[[], Told]) -> Told:
    try:
        told = work()
    except Stopped:
        told = {"state": "stopped", "error": STOPPED}
    except BaseException as error:  # noqa: BLE001  (sys.exit and MemoryError are ends like others)
        why = explain(error)
        say(why if isinstance(error, KNOWN) else traceback.format_exc())
        told = {"state": "failed", "error": why}
    return {"state": told["state"], "error": told["error"][:_LONGEST]}


def _close() -> None:
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it is gone, or it is closed
            stream.flush()
