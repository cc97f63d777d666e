"""No settings of W&B, and nothing that an earlier test left in it."""

import os

import pytest

from olmo_stages.tracking import containment, reachability


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    import wandb

    wandb.teardown()  # its settings are read once a process
    monkeypatch.setattr(reachability, "_failures", {})
    monkeypatch.setattr(containment, "_warned", set())
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    yield
    wandb.teardown()
