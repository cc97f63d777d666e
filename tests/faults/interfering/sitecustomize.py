"""What Python runs first in every process of the fault test, where OLMO_STAGES_FAULTS names it.

It notes what the process does (one line of JSON each), makes shards small and forward passes slow,
and lets the process kill itself at a point for which the test has put out an order: that is how
SIGKILL comes in the middle of a file or between two renames, which no other process could aim at.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

SETTINGS = json.loads(os.environ.get("OLMO_STAGES_FAULTS", "{}"))
KINDS = {"part-": "shard", "tokens.": "tokens", "made.": "made", "manifest.json": "manifest"}
_patched = set()


def note(event, **more):
    """Append a line to the log; O_APPEND makes it one piece."""
    line = json.dumps({"event": event, "pid": os.getpid(), "time": time.time(), **more})
    log = os.open(SETTINGS["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{line}\n".encode())
    os.close(log)


def point(name, before=lambda: None):
    """Die here if it was ordered, after `before`, or a moment later."""
    orders = Path(SETTINGS["orders"])
    for order in sorted(orders.glob(f"*.{name}")):
        try:
            # Whoever renames it first carries it out, and nobody else.
            taken = order.rename(orders / "taken" / f"{order.name}.{os.getpid()}")
        except OSError:
            continue
        delay = float(taken.read_text() or 0) / (10 if name == "leasing" else 1)
        if delay:
            threading.Thread(target=_die, args=(name, delay), daemon=True).start()
            return
        before()
        _die(name, 0.0)


def _die(name, delay):
    time.sleep(delay)
    note("killed", point=name)
    os.kill(os.getpid(), signal.SIGKILL)


def kind_of(path):
    """What a file is for, in the store, a result or a sweep; None for what does not matter."""
    path = Path(path)
    name = path.name.removeprefix(".")
    found = next((kind for start, kind in KINDS.items() if name.startswith(start)), None)
    if found and SETTINGS["store"] in str(path) and ".leases" not in str(path):
        return found
    if SETTINGS["outputs"] not in str(path):
        return None
    if path.parent.name == "jobs":
        return "status"
    return "record" if any(".tmp-" in part for part in path.parts[-3:]) else None


def _torn(descriptor):
    """Leave half of a file, as if SIGKILL had come in the middle of writing it."""
    size = os.fstat(descriptor).st_size
    os.ftruncate(descriptor, size // 2)


def _watch_files():
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def watched_fsync(descriptor):
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        with contextlib.suppress(OSError):
            kind = kind_of(Path(f"/proc/self/fd/{number}").readlink())
            if kind is not None:
                point(f"writing-{kind}", lambda: _torn(number))
        return fsync(descriptor)

    def watched(move):
        def moved(source, target, **options):
            kind = kind_of(target) or kind_of(source)
            if kind is not None:
                point(f"before-{kind}")
            move(source, target, **options)
            if kind is not None:
                if kind != "status":
                    note(kind, path=str(target))
                point(f"after-{kind}")

        return moved

    os.fsync, os.replace, os.rename = watched_fsync, watched(replace), watched(rename)


def _around(module, name, event, slow_s=0.0):
    """Note when a function of a module begins and ends; it is a point, too."""
    inner = getattr(module, name)

    def outer(*args, **kwargs):
        note(event)
        point(event)
        if slow_s:
            time.sleep(slow_s)
        found = inner(*args, **kwargs)
        note(f"{event} done")
        return found

    setattr(module, name, outer)


def _store(module):
    begin = module.Store.__init__

    def small(self, root, **options):
        begin(self, root, **{**SETTINGS["fields"], **options})

    module.Store.__init__ = small


def _leases(module):
    begin = module.Lease.__init__

    def quick(self, path, **options):
        del options
        begin(self, path, heartbeat_s=SETTINGS["fields"]["heartbeat_s"])

    acquire = module.Lease._acquire

    def acquired(self, *args, **options):
        point("leasing")
        return acquire(self, *args, **options)

    module.Lease.__init__, module.Lease._acquire = quick, acquired


def _sharing(module):
    wait = module.Crew.wait

    def noted(self, *args, **kwargs):
        begun = time.time()
        try:
            return wait(self, *args, **kwargs)
        finally:
            note("wait", begun=begun, entry=self.folder.name)

    module.Crew.wait = noted


PATCHES = {
    "olmo_stages.activations.store": _store,
    "olmo_stages.leases": _leases,
    "olmo_stages.activations.sharing": _sharing,
    "olmo_stages.models.loading": lambda module: _around(module, "load", "loading"),
    "olmo_stages.models.forward": lambda module: _around(
        module, "pooled", "computing", SETTINGS["slow_s"]
    ),
}


def _patch_what_is_there():
    for name in set(PATCHES) - _patched:
        module = sys.modules.get(name)
        if module is None or getattr(module.__spec__, "_initializing", False):
            continue
        _patched.add(name)
        PATCHES[name](module)


def _watch_imports():
    import builtins

    inner = builtins.__import__

    def watched(*args, **kwargs):
        found = inner(*args, **kwargs)
        if len(_patched) < len(PATCHES):
            _patch_what_is_there()
        return found

    builtins.__import__ = watched


if SETTINGS:
    _watch_files()
    _watch_imports()
    note("started", words=sys.argv[1:] if hasattr(sys, "argv") else [])
