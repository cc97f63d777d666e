import contextlib
import errno
import hashlib
import io
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from olmo_stages.errors import ConfigError, ModelError, StoreError
from olmo_stages.miniature import (
    FAMILIES,
    PARENTS,
    STAGES,
    build,
    clean,
    ensure,
    ensure_many,
    revisions,
)
from olmo_stages.miniature.recipe import RL, Recipe

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def family(tiny_recipe, tmp_path_factory):
    """A root with every stage of the tiny recipe."""
    root = tmp_path_factory.mktemp("family")
    ensure_many([(stage, "main") for stage in STAGES], root=root, recipe=tiny_recipe)
    return root


@pytest.fixture(scope="module")
def think(tiny_recipe, tmp_path_factory):
    """Another root, with one line of stages only; and what was said while it was built."""
    root, said = tmp_path_factory.mktemp("think"), io.StringIO()
    with contextlib.redirect_stderr(said):
        ensure("think_dpo", root=root, recipe=tiny_recipe)
    return root, said.getvalue()


@pytest.fixture(scope="module")
def olmo2(tiny_recipe, tmp_path_factory):
    """Another root, for which only a stage of the other family was asked for."""
    root = tmp_path_factory.mktemp("olmo2")
    ensure("olmo2_dpo", root=root, recipe=tiny_recipe)
    return root


@pytest.fixture(scope="module")
def failing(tiny_recipe, tmp_path_factory):
    """A family of another seed, one stage of which cannot be built: its folder and the error."""
    root = tmp_path_factory.mktemp("failing")
    options = replace(tiny_recipe.post["rl_zero_if"], max_new_tokens=0)
    broken = replace(tiny_recipe, post={**tiny_recipe.post, "rl_zero_if": options})
    with pytest.raises(ModelError) as caught:
        ensure("rl_zero_if", root=root, seed=1, recipe=broken)
    return root / broken.digest(1), str(caught.value)


def digests(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


def test_every_stage_comes_after_its_parent():
    for place, stage in enumerate(STAGES):
        assert PARENTS[stage] is None or STAGES.index(PARENTS[stage]) < place


def test_revisions_are_named_as_those_of_the_released_models():
    assert revisions("base")[0] == "stage1-step0"
    assert {name.split("-")[0] for name in revisions("base")[:-1]} == {"stage1", "stage2", "stage3"}
    assert all(name.startswith("step") and "_" not in name for name in revisions("think_sft")[:-1])
    assert revisions("think_dpo") == ("main",)
    assert all(name.startswith("step_") for name in revisions("rl_zero_math")[:-1])
    assert all(revisions(stage)[-1] == "main" for stage in STAGES)


@pytest.mark.parametrize(
    ("stage", "revision", "message"),
    [
        ("think_ppo", "main", "think_ppo.*think_rlvr"),
        ("think_sft", "step_20", "step_20.*step20, step40, step60, main"),
    ],
)
def test_unknown_names_are_answered_with_the_alternatives(tmp_path, stage, revision, message):
    with pytest.raises(ConfigError, match=message):
        ensure(stage, revision, root=tmp_path)
    assert not list(tmp_path.iterdir())


REWARDED = [stage for stage, options in Recipe().post.items() if isinstance(options, RL)]
"""These earn no reward with so small a model, and so do not move."""


def test_all_revisions_are_there(family, tiny_recipe):
    for stage in STAGES:
        for revision in revisions(stage, recipe=tiny_recipe):
            path = ensure(stage, revision, root=family, recipe=tiny_recipe)
            assert path == family / tiny_recipe.digest(0) / stage / revision
            assert (path / "model.safetensors").is_file()


def test_training_moves_the_weights_between_revisions(family, tiny_recipe):
    for stage in set(STAGES) - set(REWARDED):
        weights = [
            (ensure(stage, r, root=family, recipe=tiny_recipe) / "model.safetensors").read_bytes()
            for r in revisions(stage, recipe=tiny_recipe)
        ]
        assert len(set(weights)) == len(weights), stage


def test_each_stage_starts_from_its_parent(family, tiny_recipe):
    def vector(stage, revision="main"):
        path = ensure(stage, revision, root=family, recipe=tiny_recipe)
        return AutoModelForCausalLM.from_pretrained(path).model.layers[0].mlp.up_proj.weight

    untrained = {root: vector(root, "stage1-step0") for root in ("base", "olmo2_base")}
    for stage, parent in PARENTS.items():
        if parent is not None:
            start = untrained["olmo2_base" if stage in FAMILIES["olmo2"] else "base"]
            step = (vector(stage) - vector(parent)).norm()
            assert step < 0.3 * (vector(parent) - start).norm(), stage
            assert (step > 0) == (stage not in REWARDED), stage


@pytest.mark.parametrize("stage", FAMILIES["olmo3"])
def test_the_layers_of_olmo3_are_of_two_kinds(family, tiny_recipe, stage):
    model = AutoModelForCausalLM.from_pretrained(ensure(stage, root=family, recipe=tiny_recipe))
    assert type(model).__name__ == "Olmo3ForCausalLM"
    assert model.config.layer_types[-1] == "full_attention"
    assert model.config.layer_types[0] == "sliding_attention"


@pytest.mark.parametrize("stage", FAMILIES["olmo2"])
def test_the_layers_of_olmo2_see_everything(family, tiny_recipe, stage):
    model = AutoModelForCausalLM.from_pretrained(ensure(stage, root=family, recipe=tiny_recipe))
    assert type(model).__name__ == "Olmo2ForCausalLM"


@pytest.mark.parametrize(("stage", "sees"), [("base", False), ("olmo2_base", True)])
def test_the_first_layer_of_olmo2_sees_beyond_the_window(family, tiny_recipe, stage, sees):
    model = AutoModelForCausalLM.from_pretrained(ensure(stage, root=family, recipe=tiny_recipe))
    ids = torch.arange(10, 10 + 4 * tiny_recipe.architecture.window)[None]
    changed = ids.clone()
    changed[0, 0] += 1
    with torch.no_grad():
        last = [
            model(input_ids=it, output_hidden_states=True).hidden_states[1][0, -1]
            for it in (ids, changed)
        ]
    assert torch.equal(*last) != sees


def test_the_two_families_share_no_ancestor():
    for stages in FAMILIES.values():
        roots = [stage for stage in stages if PARENTS[stage] is None]
        assert len(roots) == 1
        assert all(PARENTS[stage] in stages for stage in set(stages) - set(roots))
    assert sorted(itertools.chain(*FAMILIES.values())) == sorted(STAGES)


def test_a_stage_of_one_family_builds_none_of_the_other(olmo2, tiny_recipe):
    built = {path.name for path in (olmo2 / tiny_recipe.digest(0)).iterdir() if path.is_dir()}
    assert built == {"olmo2_base", "olmo2_sft", "olmo2_dpo"}


@pytest.mark.parametrize("stage", STAGES)
def test_checkpoints_load_with_the_template_of_their_stage(family, tiny_recipe, stage):
    path = ensure(stage, root=family, recipe=tiny_recipe)
    model = AutoModelForCausalLM.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.is_fast
    assert (tokenizer.chat_template is None) == stage.startswith(("base", "olmo2_base", "rl_zero"))
    ids = tokenizer("3 + 4 =", return_tensors="pt")
    assert "token_type_ids" not in ids
    assert model.generate(**ids, max_new_tokens=2).shape[1] >= 5
    assert model.generation_config.eos_token_id == [1, 3]


def test_default_architecture_is_three_sliding_layers_to_one_full():
    from olmo_stages.miniature.model import new_model

    config = new_model(Recipe().architecture, seed=0).config
    assert config.layer_types == (["sliding_attention"] * 3 + ["full_attention"]) * 2
    assert config.sliding_window < 48 < config.max_position_embeddings


def test_a_second_call_trains_nothing(family, tiny_recipe):
    path = ensure("think_dpo", root=family, recipe=tiny_recipe)
    before = path.stat().st_mtime_ns
    started = time.monotonic()
    assert ensure("think_dpo", root=family, recipe=tiny_recipe) == path
    assert path.stat().st_mtime_ns == before
    assert time.monotonic() - started < 0.5  # a worker needs seconds to import torch


@pytest.mark.parametrize("change", ["recipe", "seed"])
def test_another_recipe_or_seed_is_another_place(tiny_recipe, change):
    if change == "seed":
        assert tiny_recipe.digest(0) != tiny_recipe.digest(1)
    else:
        assert tiny_recipe.digest(0) != replace(tiny_recipe, muon_lr=0.01).digest(0)
    assert tiny_recipe.digest(0) == Recipe.from_json(tiny_recipe.to_json()).digest(0)


@pytest.mark.parametrize(
    "stages", [("base", "think_sft", "think_dpo"), ("olmo2_base", "olmo2_sft", "olmo2_dpo")]
)
def test_rebuilding_gives_the_same_bytes(family, think, olmo2, tiny_recipe, stages):
    rebuilt = olmo2 if "olmo2_base" in stages else think[0]
    first, again = (root / tiny_recipe.digest(0) for root in (family, rebuilt))
    for stage in stages:
        assert digests(first / stage) == digests(again / stage)
    assert len(digests(again / stages[0])) > 8


def test_another_seed_gives_other_weights(family, failing, tiny_recipe):
    one = ensure("base", root=family, recipe=tiny_recipe) / "model.safetensors"
    other = failing[0] / "base" / "main" / "model.safetensors"
    assert one.read_bytes() != other.read_bytes()


BEAT_S = 0.5


def start_worker(home: Path, recipe: Recipe) -> subprocess.Popen:
    job = {"home": str(home), "seed": 0, "recipe": recipe.to_json(), "heartbeat_s": BEAT_S}
    return subprocess.Popen(
        [sys.executable, "-m", "olmo_stages.miniature.build", json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def test_a_killed_build_blocks_the_next_no_longer_than_its_lease(tiny_recipe, tmp_path):
    slow = replace(tiny_recipe, base=(replace(tiny_recipe.base[0], steps=100_000),))
    home = tmp_path / slow.digest(0)
    home.mkdir()
    worker = start_worker(home, slow)
    worker.stdin.write("base\n")
    worker.stdin.flush()
    worker.stdout.readline()
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert list(home.glob(".base-*/stage1-step0"))
    assert not (home / "base").exists()

    told, begun = [], time.monotonic()

    def notify(state: str, _: int, what: str) -> None:
        told.append((state, what))

    quick = replace(slow, base=tiny_recipe.base)
    build.publish("base", quick, 0, home, notify, BEAT_S)
    assert told[0][0] == "waiting"
    assert f"process {worker.pid} on " in told[0][1]
    assert told[1][0] == "training"
    assert time.monotonic() - begun < 60  # most of it imports
    assert (home / "base" / "main").is_dir()
    assert [it.name for it in home.iterdir()] == ["base"]


def test_a_build_that_is_told_to_stop_gives_its_lease_back(tiny_recipe, tmp_path):
    slow = replace(tiny_recipe, base=(replace(tiny_recipe.base[0], steps=100_000),))
    worker = start_worker(tmp_path, slow)
    worker.stdin.write("base\n")
    worker.stdin.flush()
    worker.stdout.readline()
    held = [it.name for it in tmp_path.iterdir()]
    worker.send_signal(signal.SIGTERM)
    worker.communicate()
    assert worker.returncode == 143
    assert [it for it in held if it.endswith(".owner")]
    left = [it.name for it in tmp_path.rglob("*") if it.suffix == ".owner" or "base-" in it.name]
    assert left == []
    assert not list(tmp_path.glob("*.rw/holders/*"))


def test_processes_build_a_stage_once_and_the_others_wait_for_it(tiny_recipe, tmp_path):
    worker = start_worker(tmp_path, tiny_recipe)
    worker.stdin.write("base\n")
    worker.stdin.flush()
    reported = [json.loads(worker.stdout.readline())]
    here = []
    build.publish("base", tiny_recipe, 0, tmp_path, lambda state, *_: here.append(state), BEAT_S)
    reported += map(json.loads, worker.communicate()[0].splitlines())
    assert (reported[0]["state"], reported[-1]["state"]) == ("training", "done")
    assert set(here) <= {"waiting"}
    assert [it.name for it in tmp_path.iterdir()] == ["base"]


def refuse(_stage, _recipe, _seed, _parent, into, _notify):
    (into / "half").write_bytes(b"x")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_line_and_nothing_is_left(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "train", refuse)
    with pytest.raises(
        StoreError, match=r"base: No space left on device; free some space or .*DIR$"
    ):
        build.publish("base", tiny_recipe, 0, tmp_path, lambda *_: None)
    assert not [it for it in tmp_path.iterdir() if it.name != "base.lock.rw"]


def test_a_disk_that_a_worker_finds_full_is_one_line(tiny_recipe, tmp_path):
    # Root may write anywhere, but makes no folder in a file.
    (tmp_path / tiny_recipe.digest(0)).touch()
    with pytest.raises(StoreError, match="choose another folder with cache=DIR") as caught:
        ensure("base", root=tmp_path, recipe=tiny_recipe)
    assert "\n" not in str(caught.value)


def test_what_was_built_before_the_disk_was_full_is_kept(tiny_recipe, tmp_path):
    home = tmp_path / tiny_recipe.digest(0)
    home.mkdir()
    worker = start_worker(home, tiny_recipe)
    worker.stdin.write("base\n")
    worker.stdin.flush()
    for line in worker.stdout:
        if json.loads(line)["state"] == "done":
            break
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (2000, 2000))
    output, _ = worker.communicate("think_sft\n")
    event = json.loads(output.splitlines()[-1])
    assert event["state"] == "failed"
    assert "File too large; raise the limit" in event["what"]
    assert [it.name for it in home.iterdir() if it.suffix != ".rw"] == ["base"]


def test_a_failing_build_is_one_clear_error(failing):
    home, said = failing
    assert re.search(r"'rl_zero_if' failed \(exit code 1\)", said)
    assert "\n" not in said
    assert (home / "base").is_dir()
    assert not (home / "rl_zero_if").exists()


def test_lines_name_each_stage_where_there_is_no_terminal(think):
    lines = think[1].splitlines()
    assert "3 stages" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["base", "think_sft", "think_dpo"]


def test_clean_removes_families_and_nothing_else(tmp_path):
    (tmp_path / "0123456789abcdef" / "base").mkdir(parents=True)
    (tmp_path / "0123456789abcdef" / "base" / "file").write_text("12345")
    (tmp_path / "thesis").mkdir()
    assert clean(tmp_path) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_importing_the_package_imports_no_torch():
    code = "import olmo_stages.miniature, sys; print({'torch', 'transformers'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert ran.stdout.strip() == "set()"
