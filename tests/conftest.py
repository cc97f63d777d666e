"""No test reaches the network; a small real checkpoint for those that need a model."""

import gc
import os
import signal
import socket
import sys
from pathlib import Path

import beartype
import pytest

from tests.checking import lazily

# As the command line does: spinning threads make tests many times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Both hooks, that of the tests and that of the package, look it up by this name.
beartype.beartype = lazily

# A job that a shell runs in the background ignores Ctrl-C, which some tests send to themselves.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
"""Many times what the tests hold at once; a container often has 64 MB there."""


def _holds_temporary_folders():
    """Tests write tens of thousands of small files, many of them synchronised to the disk."""
    if not (MEMORY.is_dir() and os.access(MEMORY, os.W_OK)):
        return False
    found = os.statvfs(MEMORY)
    return not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= ROOM


if _holds_temporary_folders():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish():
    """What is imported by now stays: the product's collections need not go through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, request):
    """Refuses every connection that would leave the machine."""
    if request.node.get_closest_marker("network"):
        return
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "huggingface_hub.constants" in sys.modules:  # it has read the environment already
        monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    connect = socket.socket.connect

    def refuse(self, address):
        host = address[0] if isinstance(address, tuple) else "localhost"
        if host not in {"localhost", "127.0.0.1", "::1"}:
            raise AssertionError(f"a test tried to reach {host}; mark it with `network`")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two untrained models of the miniature architecture, with its tokenizer, as directories."""
    # Late, so that tests without a model do not wait for transformers.
    from olmo_stages.miniature.model import new_model, save_checkpoint
    from olmo_stages.miniature.recipe import Architecture

    root = tmp_path_factory.mktemp("checkpoints")
    paths = [root / "first", root / "second"]
    for seed, path in enumerate(paths):
        save_checkpoint(new_model(Architecture(n_layers=4), seed), path, chat=True)
    return paths
