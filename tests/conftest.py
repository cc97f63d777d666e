"""No test reaches the network; a small real checkpoint for those that need a model."""

import os
import socket
import sys

import pytest

# As the command line does: spinning threads make tests many times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


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
