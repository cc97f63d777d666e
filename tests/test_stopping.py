"""Signals are sent to other processes, as Slurm does."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from olmo_stages import stopping
from olmo_stages.stopping import Stopped, listening, unit

# By its file: the package's own start takes longer than all that is tested here.
_BEGIN = f"""
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("stopping", {stopping.__file__!r})
stopping = sys.modules["stopping"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stopping)
stopping._AGAIN_S, stopping._TWICE_S = 0.1, 0.5
"""


@dataclass
class Ended:
    code: int
    seconds: float
    said: str


def _run(body: str, *signals: tuple[float, signal.Signals], before: str = "") -> Ended:
    """Run a program, send it signals, each so many seconds after the last; `ready` starts it."""
    code = _BEGIN + textwrap.dedent(before) + "\n" + textwrap.dedent(body)
    program = subprocess.Popen(
        [sys.executable, "-uc", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n", program.communicate()[0]
    start = time.monotonic()
    for wait, which in signals:
        time.sleep(wait)
        program.send_signal(which)
    said = program.communicate(timeout=30)[0]
    return Ended(program.returncode, time.monotonic() - start, said)


TERM, USR2 = signal.SIGTERM, signal.SIGUSR2


@pytest.mark.parametrize(("which", "code"), [(TERM, 143), (USR2, 140)])
def test_outside_of_a_unit_a_job_stops_at_once(which: signal.Signals, code: int) -> None:
    ended = _run(
        """
        with stopping.listening():
            print("ready")
            time.sleep(30)
        print("went on")
        """,
        (0, which),
    )
    assert (ended.code, ended.said) == (code, "")
    assert ended.seconds < 5


def test_without_listening_a_signal_kills_as_ever() -> None:
    ended = _run("print('ready'); time.sleep(30)", (0, TERM))
    assert ended.code == -signal.SIGTERM


def test_a_unit_is_finished_and_no_other_begins() -> None:
    ended = _run(
        """
        with stopping.listening():
            for i in range(9):
                with stopping.unit():
                    print("ready" if i == 0 else f"begin {i}")
                    time.sleep(0.5)
                    print(f"end {i}")
        """,
        (0.2, TERM),
    )
    assert (ended.code, ended.said) == (143, "end 0\n")


def test_the_grace_of_a_unit_ends() -> None:
    ended = _run(
        """
        with stopping.listening(grace_s=0.5):
            with stopping.unit():
                print("ready")
                try:
                    time.sleep(30)
                finally:
                    print("cleaned up")
        """,
        (0, TERM),
    )
    assert (ended.code, ended.said) == (143, "cleaned up\n")
    assert 0.4 < ended.seconds < 5


def test_a_unit_may_ask_for_a_grace_of_its_own_and_the_outermost_counts() -> None:
    ended = _run(
        """
        with stopping.listening(grace_s=0.0):
            with stopping.unit(grace_s=25.0), stopping.unit(grace_s=0.0):
                print("ready")
                time.sleep(0.4)
                print("finished")
            print("went on")
        """,
        (0, TERM),
    )
    assert (ended.code, ended.said) == (143, "finished\n")


def test_ahead_of_a_time_limit_there_is_more_time() -> None:
    body = """
        with stopping.listening(grace_s=0.0, notice_s=25.0):
            with stopping.unit():
                print("ready")
                time.sleep(0.4)
                print("finished")
        """
    assert _run(body, (0, USR2)).said == "finished\n"
    assert _run(body, (0, TERM)).said == ""


def test_an_urgent_signal_shortens_the_grace_and_both_are_answered_by_queueing_again() -> None:
    ended = _run(
        """
        with stopping.listening(grace_s=0.2, notice_s=25.0):
            with stopping.unit():
                print("ready")
                time.sleep(20)
        """,
        (0, USR2),
        (0.1, TERM),
    )
    assert ended.code == 140
    assert ended.seconds < 5


def test_a_signal_that_is_sent_again_ends_the_unit() -> None:
    body = """
        with stopping.listening():
            with stopping.unit():
                print("ready")
                time.sleep(1)
                print("finished")
        """
    assert _run(body, (0, TERM), (0.6, TERM)).said == ""
    # Delivered twice, as Slurm may, it is the same notice.
    assert _run(body, (0, TERM), (0.2, TERM)).said == "finished\n"


def test_cleaning_up_is_not_disturbed() -> None:
    ended = _run(
        """
        from contextlib import contextmanager
        @contextmanager
        def held():
            try:
                yield
            finally:
                time.sleep(0.8)
                print("released")
        with stopping.listening():
            try:
                with held():
                    print("ready")
                    time.sleep(20)
            except SystemExit:
                time.sleep(0.4)
                print("noted")
                raise
        """,
        (0, TERM),
        (0.3, TERM),
        (0.6, USR2),
    )
    assert (ended.code, ended.said) == (140, "released\nnoted\n")


def test_what_swallows_the_exception_does_not_keep_a_job_going() -> None:
    ended = _run(
        """
        def library():
            try:
                print("ready")
                time.sleep(20)
            except BaseException:
                pass
        with stopping.listening():
            library()
            print("swallowed")
            time.sleep(20)
            print("went on")
        """,
        (0, TERM),
    )
    assert (ended.code, ended.said) == (143, "swallowed\n")


def test_a_job_that_fails_after_the_signal_was_stopped() -> None:
    ended = _run(
        """
        with stopping.listening():
            try:
                with stopping.unit():
                    print("ready")
                    time.sleep(0.5)
                    raise ValueError("the other half of a broken import")
            except ValueError:
                pass
        print("went on")
        """,
        (0, TERM),
    )
    assert (ended.code, ended.said) == (143, "")


def test_it_is_noted_when_heard_even_if_the_job_gets_no_further() -> None:
    ended = _run(
        """
        def note():
            print("noted")
            raise OSError("no space left")
        with stopping.listening(note):
            with stopping.unit():
                print("ready")
                time.sleep(20)
        """,
        (0, TERM),
        (0.3, signal.SIGKILL),
    )
    assert (ended.code, ended.said) == (-signal.SIGKILL, "noted\n")


def test_what_is_noted_is_not_disturbed_by_the_next_signal() -> None:
    ended = _run(
        """
        def note():
            time.sleep(0.5)
            print("noted")
        with stopping.listening(note):
            print("ready")
            time.sleep(20)
        """,
        (0, TERM),
        (0.3, TERM),
    )
    assert (ended.code, ended.said) == (143, "noted\n")


def test_whoever_handled_the_notice_before_is_told_last_and_may_end_the_process() -> None:
    submitit = """
        def requeue(number, frame):
            print("queued again", signal.Signals(number).name)
            sys.exit(-1)
        signal.signal(signal.SIGUSR2, requeue)
        signal.signal(signal.SIGTERM, lambda *_: print("bypassed"))
        """
    body = """
        with stopping.listening():
            try:
                print("ready")
                time.sleep(20)
            finally:
                print("released")
        """
    ended = _run(body, (0, USR2), before=submitit)
    assert (ended.code, ended.said) == (255, "released\nqueued again SIGUSR2\n")
    # SIGTERM asks for no queueing: whoever preempts a job queues it again.
    ended = _run(body, (0, TERM), before=submitit)
    assert (ended.code, ended.said) == (143, "released\n")


def test_a_forked_process_dies_of_a_signal_as_ever() -> None:
    ended = _run(
        """
        with stopping.listening(lambda: print("noted")):
            child = os.fork()
            if child == 0:
                print("ready")
                time.sleep(20)
                os._exit(0)
            time.sleep(0.5)
            os.kill(child, signal.SIGTERM)
            print(os.waitpid(child, 0)[1])
        """
    )
    assert (ended.code, ended.said) == (0, f"{int(TERM)}\n")


def test_while_torch_is_imported_a_job_stops() -> None:
    seconds = [0.3, 0.8]
    for wait in seconds:
        ended = _run(
            """
            with stopping.listening(lambda: print("noted")):
                print("ready")
                import torch, transformers
                time.sleep(60)
            """,
            (wait, TERM),
        )
        assert ended.code == 143, ended.said
        assert "noted\n" in ended.said


def test_in_a_thread_nothing_is_raised_and_a_unit_is_nothing() -> None:
    ended = _run(
        """
        import threading
        done = []
        def work():
            with stopping.listening(), stopping.unit():
                time.sleep(1)
                done.append(1)
        with stopping.listening():
            thread = threading.Thread(target=work)
            thread.start()
            try:
                print("ready")
                time.sleep(20)
            finally:
                thread.join()
                print(done)
        """,
        (0, TERM),
    )
    assert (ended.code, ended.said) == (143, "[1]\n")


def test_the_signals_are_given_back() -> None:
    before: Sequence[object] = [signal.getsignal(it) for it in (TERM, USR2, signal.SIGALRM)]
    with listening():
        assert signal.getsignal(TERM) != before[0]
    assert [signal.getsignal(it) for it in (TERM, USR2, signal.SIGALRM)] == before


def test_inner_listening_tells_the_outer_one() -> None:
    with (
        pytest.raises(Stopped, match=re.escape("143")) as stopped,
        listening() as outer,
        listening() as inner,
    ):
        os.kill(os.getpid(), TERM)
    assert stopped.value.code == 143
    assert (inner.heard, outer.heard) == ([TERM], [])


def test_nobody_listens_and_a_unit_is_nothing() -> None:
    with unit():
        pass
