import json
import subprocess
from datetime import timedelta

import pytest

from olmo_stages.provenance import (
    Times,
    git_state,
    now,
    provenance,
    redact,
    redact_arguments,
    versions,
)

SECRET = "0123456789abcdef0123456789abcdef01234567"


def collect(**changes):
    start = now()
    fields = {
        "job": {"analysis": "probe"},
        "config": {"seed": 3, "analysis": {"folds": 5}},
        "times": Times(start, start + timedelta(seconds=2.5)),
        "seed": 3,
        "data_digest": "d1",
        "model_digests": {"base": "m1"},
    }
    return provenance(**(fields | changes))


def test_it_holds_what_is_needed_to_make_the_number_again():
    record = collect()
    assert record["config"] == {"seed": 3, "analysis": {"folds": 5}}
    assert record["seconds"] == 2.5
    assert record["start"].endswith("+00:00")
    assert record["packages"]["numpy"]
    assert record["model_digests"] == {"base": "m1"}
    assert json.loads(json.dumps(record)) == record


def test_it_holds_no_environment_variable_and_no_secret(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("SOME_PLAIN_VARIABLE", "plain-value-of-a-variable")
    monkeypatch.setattr("sys.argv", ["run.py", f"tracking.x={SECRET}", "tracking.api_key=other"])
    text = json.dumps(collect(config={"note": f"key {SECRET}", "hub": {"token": "hf_secret"}}))
    assert SECRET not in text
    assert "plain-value-of-a-variable" not in text
    assert "other" not in text
    assert "hf_secret" not in text


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["tracking.api_key=abc"], ["tracking.api_key=***"]),
        (["+hub.token=abc"], ["+hub.token=***"]),
        (["--password=abc"], ["--password=***"]),
        (["--api-key", "abc", "next"], ["--api-key", "***", "next"]),
        (["https://me:pw@host/x"], ["https://***@host/x"]),
        (["HF_TOKEN=abc"], ["HF_TOKEN=***"]),
    ],
)
def test_arguments_named_like_secrets_are_hidden(arguments, shown):
    assert redact_arguments(arguments) == shown


@pytest.mark.parametrize(
    "argument", ["-m", "model=think_sft,think_dpo", "data.max_tokens=4096", "compute.tokens=9"]
)
def test_other_arguments_are_shown(argument):
    assert redact_arguments([argument]) == [argument]


@pytest.mark.parametrize("key", ["api_key", "token", "hf_token", "PASSWORD", "client_secret"])
def test_settings_named_like_secrets_are_hidden(key):
    assert redact({"a": [{key: "abc"}]}) == {"a": [{key: "***"}]}


@pytest.mark.parametrize("key", ["max_tokens", "eos_token", "label_key", "position", "keys"])
def test_other_settings_are_shown(key):
    assert redact({key: "abc"}) == {key: "abc"}


def test_a_secret_setting_that_is_not_set_stays_recognisable():
    assert redact({"token": None}) == {"token": None}


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_its_commit(checkout):
    state = git_state(checkout)
    assert len(state["commit"]) == 40
    assert state["dirty"] is False


def test_a_changed_checkout_is_dirty(checkout):
    (checkout / "a.py").write_text("changed")
    assert git_state(checkout)["dirty"] is True


def test_a_package_installed_inside_a_foreign_checkout_is_not_that_checkout(checkout):
    inner = checkout / "venv" / "olmo_stages"
    inner.mkdir(parents=True)
    assert git_state(inner) is None


def test_no_checkout_is_null(tmp_path):
    assert git_state(tmp_path) is None


def test_no_git_is_null(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_state(checkout) is None


def test_a_package_that_is_not_installed_is_null():
    assert versions(["no-such-package-anywhere"]) == {"no-such-package-anywhere": None}
