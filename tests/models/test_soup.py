import json
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from olmo_stages.errors import ModelError, StoreError
from olmo_stages.models import derived, digests
from olmo_stages.models.checkpoints import Checkpoint, locate, model_digest
from olmo_stages.models.loading import load
from olmo_stages.models.soup import Ingredient, ensure_soup
from olmo_stages.models.tensors import Tensors, n_bytes, write_weights
from olmo_stages.types import Member, Stage

WEIGHTS = "model.safetensors"


@pytest.fixture
def pair(checkpoints, tmp_path):
    """Two checkpoints that the test may change."""
    return [shutil.copytree(path, tmp_path / path.name) for path in checkpoints]


@pytest.fixture
def cook(tmp_path):
    def cook(*shares, cache=tmp_path / "cache"):
        """The checkpoint of an average of (path, weight) pairs, found as any stage is."""
        members = [Member(Stage(path.name, "custom", str(path)), it) for path, it in shares]
        return locate(averaged(*members), cache)

    return cook


def averaged(*members, **options):
    return Stage("soup", "custom", "some", members=members, **options)


def in_numpy(paths, shares):
    parts = [
        {k: v.double().numpy() for k, v in load_file(path / WEIGHTS).items()} for path in paths
    ]
    return {k: sum(w * part[k] for w, part in zip(shares, parts, strict=True)) for k in parts[0]}


def rewrite(path, change):
    weights = load_file(path / WEIGHTS)
    change(weights)
    save_file(weights, path / WEIGHTS, metadata={"format": "pt"})


def test_a_soup_is_the_average(cook, checkpoints):
    found = load_file(cook((checkpoints[0], 0.25), (checkpoints[1], 0.75)).path / WEIGHTS)
    wanted = in_numpy(checkpoints, [0.25, 0.75])
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        assert values.dtype == torch.float32
        assert np.array_equal(values.numpy(), wanted[name].astype(np.float32)), name


def test_a_soup_of_bfloat16_is_rounded_once(cook, pair):
    for path in pair:
        rewrite(path, lambda w: w.update({k: v.bfloat16() for k, v in w.items()}))
    found = load_file(cook((pair[0], 0.3), (pair[1], 0.7)).path / WEIGHTS)
    wanted = in_numpy(pair, [0.3, 0.7])
    for name, values in found.items():
        assert values.dtype == torch.bfloat16
        exponents = np.frexp(wanted[name])[1]  # of a significand in [0.5, 1), of 8 bits
        error = np.abs(values.double().numpy() - wanted[name])
        # 1e-15: where 0.3 x and 0.7 y cancel, float64 itself gives the one zero or the other.
        assert (error <= 0.5001 * 2.0 ** (exponents - 8) + 1e-15).all(), name


def test_large_tensors_are_averaged_in_parts(cook, checkpoints, monkeypatch):
    monkeypatch.setattr("olmo_stages.models.soup._BLOCK", 100)
    found = load_file(cook((checkpoints[0], 0.5), (checkpoints[1], 0.5)).path / WEIGHTS)
    for name, values in in_numpy(checkpoints, [0.5, 0.5]).items():
        assert np.array_equal(found[name].numpy(), values.astype(np.float32)), name


def test_a_soup_loads(cook, checkpoints):
    soup = cook((checkpoints[0], 1.5), (checkpoints[1], -0.5))
    model = load(Stage("soup", "custom", "x"), soup, dtype="float32", device="cpu").model
    first, second = (
        load(Stage("x", "custom", "x"), Checkpoint(path, None), dtype="float32", device="cpu").model
        for path in checkpoints
    )
    name = "model.layers.1.mlp.up_proj.weight"
    wanted = 1.5 * first.get_parameter(name) - 0.5 * second.get_parameter(name)
    torch.testing.assert_close(model.get_parameter(name), wanted)


def test_a_soup_of_one_is_that_checkpoint(cook, checkpoints, tmp_path):
    found = cook((checkpoints[0], 1.0))
    assert found.path == checkpoints[0]
    alone = digests.weights_digest(checkpoints[0], tmp_path)
    assert model_digest(averaged(), found, tmp_path) == alone
    assert not (tmp_path / "cache" / derived.FOLDER).exists()


def test_the_same_weights_twice_are_that_checkpoint(cook, checkpoints, tmp_path):
    twin = shutil.copytree(checkpoints[0], tmp_path / "twin")
    found = cook((checkpoints[0], 0.5), (twin, 0.5))
    assert found.digest == digests.weights_digest(checkpoints[0], tmp_path)


def test_the_order_of_the_members_is_no_part(cook, checkpoints, tmp_path):
    first = cook((checkpoints[0], 0.3), (checkpoints[1], 0.7))
    other = cook((checkpoints[1], 0.7), (checkpoints[0], 0.3), cache=tmp_path / "other")
    assert first.digest == other.digest
    assert (first.path / WEIGHTS).read_bytes() == (other.path / WEIGHTS).read_bytes()


def test_identity_is_of_members_and_weights(cook, pair, tmp_path):
    found = {cook((pair[0], share), (pair[1], 1 - share)).digest for share in (0.3, 0.5)}
    rewrite(pair[1], lambda w: w["model.norm.weight"].add_(1))
    found.add(cook((pair[0], 0.3), (pair[1], 0.7)).digest)
    found |= {digests.weights_digest(path, tmp_path) for path in pair}
    assert len(found) == 5


def test_a_soup_is_cooked_once(cook, checkpoints, monkeypatch):
    found = cook((checkpoints[0], 0.5), (checkpoints[1], 0.5))
    monkeypatch.setattr("olmo_stages.models.soup.average", None)  # it would fail
    assert cook((checkpoints[0], 0.5), (checkpoints[1], 0.5)) == found


def test_the_folder_tells_of_the_members(cook, checkpoints):
    found = cook((checkpoints[0], 0.25), (checkpoints[1], 0.75))
    told = json.loads((found.path / derived.RECORD).read_text())
    assert {it["name"]: it["weight"] for it in told["members"]} == {"first": 0.25, "second": 0.75}


def test_its_random_initialisation_is_that_of_the_members(checkpoints, tmp_path):
    members = [Member(Stage(path.name, "custom", str(path)), 0.5) for path in checkpoints]
    stage = averaged(*members, random_init=3)
    found = locate(stage, tmp_path)
    assert model_digest(stage, found, tmp_path) == digests.random_digest(checkpoints[0], 3)
    assert not (tmp_path / derived.FOLDER).exists()


def change_config(path, **changes):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def test_another_architecture_is_refused_by_its_first_field(cook, pair):
    change_config(pair[1], rms_norm_eps=0.5, sliding_window=7)
    with pytest.raises(ModelError, match=r"rms_norm_eps .* 0.5.*one architecture"):
        cook((pair[0], 0.5), (pair[1], 0.5))


def test_what_config_says_of_generation_may_differ(cook, pair):
    change_config(pair[1], eos_token_id=7, use_cache=False)
    cook((pair[0], 0.5), (pair[1], 0.5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("model.norm.weight"), r"F32 \[64\] in .* and nothing in"),
        (lambda w: w.update(extra=torch.ones(2)), r"extra is .*F32 \[2\]"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(5)}),
            r"model.norm.weight is F32 .*\[5\]",
        ),
        (
            lambda w: w.update({"model.norm.weight": w["model.norm.weight"].bfloat16()}),
            r"model.norm.weight is .*BF16 \[64\]",
        ),
    ],
)
def test_other_weights_are_refused_by_name(cook, pair, change, said):
    rewrite(pair[1], change)
    with pytest.raises(ModelError) as caught:
        cook((pair[0], 0.5), (pair[1], 0.5))
    # Which of them comes first is a matter of their digests.
    sides = said.replace("nothing in", "").split(" in .* and ")
    assert all(re.search(side, str(caught.value)) for side in sides)
    assert "\n" not in str(caught.value)


def test_whole_numbers_must_be_equal(cook, pair):
    for path in pair:
        rewrite(path, lambda w: w.update(steps=torch.tensor([7])))
    found = cook((pair[0], 0.5), (pair[1], 0.5))
    assert load_file(found.path / WEIGHTS)["steps"].tolist() == [7]
    rewrite(pair[1], lambda w: w.update(steps=torch.tensor([8])))
    with pytest.raises(ModelError, match="steps holds whole numbers that differ"):
        cook((pair[0], 0.5), (pair[1], 0.5))


def test_other_chat_templates_need_a_choice(pair, tmp_path):
    (pair[1] / "chat_template.jinja").write_text("{{ messages }}")
    stages = [Stage(path.name, "custom", str(path)) for path in pair]
    members = [Member(stage, 0.5) for stage in stages]
    with pytest.raises(ModelError, match=r"of first and second differ .*model.tokenizer=MEMBER"):
        locate(averaged(*members), tmp_path)
    members[1] = Member(stages[1], 0.5, gives_tokenizer=True)
    found = locate(averaged(*members), tmp_path)
    assert digests.tokenizer_digest(found.path) == digests.tokenizer_digest(pair[1])
    members = [Member(stages[0], 0.5, gives_tokenizer=True), Member(stages[1], 0.5)]
    other = locate(averaged(*members), tmp_path)
    assert digests.tokenizer_digest(other.path) == digests.tokenizer_digest(pair[0])
    assert (other.digest, other.path == found.path) == (found.digest, False)


def test_other_vocabularies_are_refused_even_by_choice(pair, tmp_path):
    content = json.loads((pair[1] / "tokenizer.json").read_text())
    content["model"]["vocab"] = dict(
        zip(content["model"]["vocab"], reversed(content["model"]["vocab"].values()), strict=True)
    )
    (pair[1] / "tokenizer.json").write_text(json.dumps(content))
    members = [Member(Stage(path.name, "custom", str(path)), 0.5, path == pair[0]) for path in pair]
    with pytest.raises(ModelError, match="different vocabularies"):
        locate(averaged(*members), tmp_path)


def test_a_tokenizer_written_by_another_version_has_the_same_vocabulary(pair, tmp_path):
    for path, separate in zip(
        pair, ((lambda a, b: f"{a} {b}"), (lambda a, b: [a, b])), strict=True
    ):
        content = json.loads((path / "tokenizer.json").read_text())
        vocab = content["model"]["vocab"] | {"ab": 9000}
        content["model"] = {"type": "BPE", "vocab": vocab, "merges": [separate("a", "b")]}
        if separate("a", "b") == ["a", "b"]:
            content["model"] |= {"ignore_merges": False}
        (path / "tokenizer.json").write_text(json.dumps(content))
    stages = [Stage(path.name, "custom", str(path)) for path in pair]
    members = [Member(stages[0], 0.5, gives_tokenizer=True), Member(stages[1], 0.5)]
    found = locate(averaged(*members), tmp_path)
    assert digests.tokenizer_digest(found.path) == digests.tokenizer_digest(pair[0])


# Writing


def test_shards_have_an_index_and_the_same_tensors(checkpoints, tmp_path):
    source = Tensors(checkpoints[0])
    sizes = {name: n_bytes(layout) for name, layout in source.layouts.items()}
    write_weights(tmp_path, sizes, source.read, "copy", limit=sum(sizes.values()) // 3)
    assert len(digests.weight_files(tmp_path)) >= 3
    copy = Tensors(tmp_path)
    assert list(copy.layouts) == list(source.layouts)
    assert all(torch.equal(copy.read(name), source.read(name)) for name in sizes)
    shutil.copy(checkpoints[0] / "config.json", tmp_path)
    load(Stage("x", "custom", "x"), Checkpoint(tmp_path, None), dtype="float32", device="cpu")


def made(cache):
    """What there is besides leases."""
    return [it for it in (cache / derived.FOLDER).iterdir() if it.suffix != ".rw"]


def test_a_full_disk_is_known_before(cook, checkpoints, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "olmo_stages.models.tensors.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1)
    )
    with pytest.raises(StoreError, match=r"needs 0.0 GB and 0.0 GB are free.*cache=DIR"):
        cook((checkpoints[0], 0.5), (checkpoints[1], 0.5))
    assert not [it for it in made(tmp_path / "cache") if it.is_dir()]


def test_what_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise ModelError("no")

    with pytest.raises(ModelError):
        derived.ensure("key", tmp_path, fail, {})
    assert made(tmp_path) == []


def test_two_at_a_time_write_once(tmp_path):
    written, found = [], []

    def write(folder):
        written.append(folder)
        time.sleep(0.2)
        (folder / "whole").write_text("x")

    threads = [
        threading.Thread(target=lambda: found.append(derived.ensure("key", tmp_path, write, {})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
    assert found == [tmp_path / derived.FOLDER / "key"] * 2


def test_ingredients_of_a_broken_file_are_one_line(pair, tmp_path):
    (pair[1] / WEIGHTS).write_bytes(b"broken")
    parts = [Ingredient(path.name, Path(path), path.name, 0.5) for path in pair]
    with pytest.raises(ModelError, match="cannot be read") as caught:
        ensure_soup(parts, tmp_path)
    assert "\n" not in str(caught.value)
