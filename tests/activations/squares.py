"""Work without a model that processes share; as a script, one process's part in it."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from olmo_stages.activations import files
from olmo_stages.activations.entry import FORMAT_VERSION, publish
from olmo_stages.activations.sharing import Crew, finish, stem
from olmo_stages.activations.store import Store
from olmo_stages.errors import StoreError

HEARTBEAT_S = 0.2


class Squares:
    """A shard holds the square of its number; who computed it is noted in a file."""

    at_once = 1
    shows_examples = True

    def __init__(self, folder, log, n_parts, seconds=0.0):
        self.label = "squares"
        self.folder = folder
        self.parts = tuple((f"e{2 * i}", f"e{2 * i + 1}") for i in range(n_parts))
        self.log = log
        self.seconds = seconds

    def fits(self, name, part, *, whole):
        path = self.folder / name
        if not whole:
            return path.suffix == ".json" and path.stat().st_size == len(content(part))
        try:
            return files.read_whole(path) == content(part)
        except StoreError:
            return False

    def ready(self):
        pass

    def compute(self, parts, advance):
        for part in parts:
            note(self.log, "begun", self.folder.name, part)
            time.sleep(self.seconds)
            for _ in self.parts[part]:
                advance()
            yield part, content(part)

    def add(self, part, found):
        note(self.log, "computed", self.folder.name, part)
        return files.write_digested(self.folder, stem(part), found, "json")

    def publish(self, names):
        note(self.log, "published", self.folder.name, 0)
        ids = [it for part in self.parts for it in part]
        about = {"format_version": FORMAT_VERSION, "ids": ids, "captures": [], "layers": []}
        return publish(self.folder, about, names)


def content(part):
    return json.dumps({"part": part, "square": part**2, "room": "x" * 200}).encode()


def note(log, what, entry, part):
    (log / f"{what}.{entry}.{part}.{os.getpid()}.{time.time_ns()}").touch()


def noted(log, what, entry="squares"):
    """Parts and processes of what was noted, in the order of time."""
    names = [it.name.split(".") for it in log.iterdir()]
    rows = [
        (int(t), int(part), int(pid)) for w, e, part, pid, t in names if (w, e) == (what, entry)
    ]
    return [(part, pid) for _, part, pid in sorted(rows)]


def store_at(root, heartbeat_s=HEARTBEAT_S, **options):
    return Store(root / "store", heartbeat_s=heartbeat_s, **options)


def crew_of(root, name="squares", n_parts=4, seconds=0.0, kind=Squares, **options):
    store = store_at(root, **options)
    folder = store.folder("ab" * 8, name)
    log = root / "log"
    log.mkdir(parents=True, exist_ok=True)
    return Crew(store, folder, lambda: kind(folder, log, n_parts, seconds))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--names", nargs="+", default=["squares"])
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0)
    asked = parser.parse_args()
    crews = [crew_of(asked.root, it, asked.parts, asked.seconds) for it in asked.names]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    finish(crews)
    sys.stdout.write(json.dumps([it.complete.manifest["shards"] for it in crews]))


if __name__ == "__main__":
    main()
