"""A program that runs jobs as `hydra/launcher=local` does, without Hydra and models.

Started as `python fleet.py FOLDER N_JOBS NAME...`; a name says what its job does.
"""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from olmo_stages.launching import current, fleet, local
from olmo_stages.launching.child import STOPPED
from olmo_stages.launching.ending import leave_word
from olmo_stages.statuses import Status, write_status
from olmo_stages.stopping import listening, unit

SWEEP = Path(sys.argv[1])


def say(text):
    sys.stdout.write(f"{text}\n")


def raising(error):
    raise error


def is_alone():
    """Jobs at the same time, each of which waits until it has seen the other."""
    (SWEEP / f"seen.{os.getpid()}").touch()
    deadline = time.monotonic() + 20
    while len([*SWEEP.glob("seen.*")]) < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("alone")
        time.sleep(0.02)


def leaves_a_process():
    code = "import time; time.sleep(60)"
    left = subprocess.Popen([sys.executable, "-c", code], close_fds=False)
    (SWEEP / "left").write_text(str(left.pid))


def forks_a_process():
    if (pid := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    (SWEEP / "forked").write_text(str(pid))


def says_what_it_has():
    variables = [os.environ.get(f"{it}") for it in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    say("gpus {} threads {}".format(*variables))
    time.sleep(0.3)


def is_overtaken():
    """As when another launch does the same job, and this one dies of it."""
    write_status(SWEEP, Status("overtaken", "ok"))
    os.kill(os.getpid(), signal.SIGKILL)


def writes(name):
    with (SWEEP / "ran").open("a") as file:
        file.write(f"{name}\n")


def shard_by_shard():
    """A long job: shards of half a second, each whole or not at all."""
    (SWEEP / f"at_work.{os.getpid()}").touch()
    for shard in range(60):
        with unit():
            time.sleep(0.5)
            (SWEEP / f"shard.{os.getpid()}.{shard}").touch()


def deaf():
    """As a long call into a library: it hears of signals when it returns."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    (SWEEP / f"at_work.{os.getpid()}").touch()
    time.sleep(60)


DEEDS = {
    "fine": lambda: say("all is well"),
    "raises": lambda: raising(KeyError("caption")),
    "exits": lambda: sys.exit(7),
    "leaves": lambda: os._exit(7),
    "leaves_well": lambda: os._exit(0),
    "memory": lambda: raising(MemoryError()),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfaults": lambda: ctypes.string_at(0),
    "terminated": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "interrupts": lambda: raising(KeyboardInterrupt()),
    "left": leaves_a_process,
    "forked": forks_a_process,
    "met": is_alone,
    "asks": lambda: input("Do you agree? "),
    "has": says_what_it_has,
    "overtaken": is_overtaken,
    "hangs_at_exit": lambda: atexit.register(time.sleep, 60),
    "leaves_a_thread": lambda: threading.Thread(target=time.sleep, args=(60,)).start(),
    "shards": shard_by_shard,
    "deaf": deaf,
}


def leave(status):
    leave_word(SWEEP, status, was_noted=True)


def work(name):
    """What a job does, with the notes that the product's own job takes."""
    writes(name)
    write_status(SWEEP, Status(name, "running"))
    status = Status(name, "ok")
    if name.startswith("unheard"):
        DEEDS[name.removeprefix("unheard-").partition("-")[0]]()
        return {"state": "ok", "error": ""}
    try:
        with listening(lambda: leave(Status(name, "stopped", error=STOPPED))):
            DEEDS[name.partition("-")[0]]()
    except Exception as error:  # noqa: BLE001
        status = Status(name, "failed", error=repr(error))
    leave(status)
    return {"state": status.state, "error": status.error}


def main():
    local.ALL = fleet.COMPUTING = ()
    fleet._PARTING_S = 0.5
    way = local.Way(int(sys.argv[2]))
    jobs = [fleet.LocalJob(it, [], lambda it=it: work(it)) for it in sys.argv[3:]]
    try:
        local.run(jobs, SWEEP, way)
    finally:
        for name, status in current.launch.ended.items():
            say(f"ended {name} {status.state}")


if __name__ == "__main__":
    main()
