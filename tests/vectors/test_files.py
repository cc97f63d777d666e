"""A trait vector written and read back, and every file that is refused."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from jaxtyping import TypeCheckError

import olmo_stages
from olmo_stages.errors import ConfigError, DataError, StoreError
from olmo_stages.vectors import files
from olmo_stages.vectors.files import TraitVector, check_fits, load

D_MODEL = 6
KEY = "olmo_stages.trait_vector"


def trait_vector(layers=(-1, 0, 3), **changes):
    rng = np.random.default_rng(0)
    types = {-1: "embedding", 0: "sliding_attention", 3: "full_attention"}
    fields = {
        "trait": "manners / höflich",
        "vectors": {i: rng.normal(size=D_MODEL).astype(np.float32) for i in layers},
        "layer_types": {i: types[i] for i in layers},
        "site": "resid_post",
        "position": "response_mean",
        "kind": "pca",
        "midpoint": {i: float(rng.normal()) for i in layers},
        "separation": {i: float(rng.normal()) for i in layers},
        "provenance": {
            "stage": "think_sft@step_20",
            "size": "7b",
            "family": "olmo3",
            "random_init": None,
            "n": 40,
        },
    }
    return TraitVector(**(fields | changes))


def rewritten(path, *, told=None, tensors=None, key=KEY):
    """The file with parts of it replaced, as another program might have left it."""
    with safetensors.safe_open(path, framework="numpy") as file:
        old = json.loads(file.metadata()[KEY])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    arrays |= tensors or {}
    kept = {name: array for name, array in arrays.items() if array is not None}
    path.write_bytes(safetensors.numpy.save(kept, metadata={key: json.dumps(old | (told or {}))}))
    return path


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "v.safetensors"
    trait_vector().save(path)
    return path


# ---- round trip


def test_what_is_saved_is_loaded(saved):
    before, after = trait_vector(), load(saved)
    assert after.layers == (-1, 0, 3)
    for layer, values in before.vectors.items():
        assert after.vectors[layer].dtype == np.float32
        np.testing.assert_array_equal(after.vectors[layer], values)
    for name in (
        "trait",
        "layer_types",
        "site",
        "position",
        "kind",
        "midpoint",
        "separation",
        "scale",
        "provenance",
    ):
        assert getattr(after, name) == getattr(before, name), name


def test_the_front_door_loads_it(saved):
    np.testing.assert_array_equal(olmo_stages.load_vector(str(saved)).values, trait_vector().values)


def test_the_front_door_costs_no_import():
    code = (
        "import sys, olmo_stages; print(*[m for m in ('numpy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    without = (
        "import sys, jaxtyping; print(*[m for m in ('numpy', 'safetensors') if m in sys.modules])"
    )
    least = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=True
    )
    assert done.stdout == least.stdout


def test_layers_keep_their_own_vectors_whatever_their_order(tmp_path):
    vector = trait_vector()
    mixed = replace(vector, vectors={i: vector.vectors[i] for i in (3, -1, 0)})
    mixed.save(tmp_path / "mixed.safetensors")
    after = load(tmp_path / "mixed.safetensors")
    for layer in vector.layers:
        np.testing.assert_array_equal(after.vectors[layer], vector.vectors[layer])
    np.testing.assert_array_equal(mixed.values, vector.values)


def test_the_same_vector_gives_the_same_bytes(saved, tmp_path):
    shuffled = replace(trait_vector(), provenance=dict(reversed(trait_vector().provenance.items())))
    shuffled.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_midpoint_and_separation_may_be_missing(tmp_path):
    trait_vector(midpoint={}, separation={}).save(tmp_path / "v.safetensors")
    after = load(tmp_path / "v.safetensors")
    assert (after.midpoint, after.separation) == ({}, {})


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*v\.safetensors"):
        trait_vector().save(tmp_path / "file" / "v.safetensors")


# ---- what is refused


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError) as error:
        load(tmp_path / "none.safetensors")
    assert "none.safetensors does not exist" in one_line(error)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64, b'text "of" no kind\n' * 9])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "v.safetensors").write_bytes(content)
    with pytest.raises(DataError) as error:
        load(tmp_path / "v.safetensors")
    assert "is damaged or no safetensors file" in one_line(error)


def test_a_cut_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-1])
    with pytest.raises(DataError) as error:
        load(saved)
    assert "is damaged" in one_line(error)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_a_model_are_no_trait_vector(tmp_path, metadata):
    tensors = {"vectors": np.ones((2, D_MODEL), np.float32)}
    (tmp_path / "m.safetensors").write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
    with pytest.raises(DataError) as error:
        load(tmp_path / "m.safetensors")
    assert "holds no trait vector; export one with: olmo-stages export" in one_line(error)


def test_a_later_version_is_refused(saved):
    with pytest.raises(DataError) as error:
        load(rewritten(saved, told={"version": files.VERSION + 1}))
    said = one_line(error)
    assert f"of version {files.VERSION + 1}" in said
    assert "update olmo-stages" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"told": {"version": None}},
        {"told": {"version": "one"}},
        {"told": {"layer_types": ["full_attention"]}},
        {"told": {"layer_types": None}},
        {"told": {"provenance": [1, 2]}},
        {"told": {"provenance": {"n": {"deep": 1}}}},
        {"told": {"site": "resid_far"}},
        {"told": {"position": "tokens"}},
        {"told": {"scale": "huge"}},
        {"tensors": {"layers": None}},
        {"tensors": {"vectors": None}},
        {"tensors": {"layers": np.array([0, 1])}},
        {"tensors": {"layers": np.array([0, 1, 1])}},
        {"tensors": {"midpoint": np.zeros(2)}},
        {"tensors": {"midpoint": np.array([0.0, np.nan, 0.0])}},
        {"tensors": {"separation": np.array([0.0, np.inf, 0.0])}},
        {"tensors": {"vectors": np.ones(3, np.float32)}},
        {"tensors": {"vectors": np.ones((3, D_MODEL))}},
    ],
    ids=str,
)
def test_a_file_whose_parts_do_not_fit_is_one_line(saved, changes):
    with pytest.raises(DataError) as error:
        load(rewritten(saved, **changes))
    assert str(saved) in one_line(error)


def test_a_file_rewritten_unchanged_is_read(saved):
    np.testing.assert_array_equal(load(rewritten(saved)).values, trait_vector().values)


@pytest.mark.parametrize(
    ("bad", "said"),
    [(0.0, "layer 0: zero"), (np.nan, "layer 0: not finite"), (np.inf, "layer 0: not finite")],
)
def test_vectors_without_a_direction_are_refused(saved, bad, said):
    values = trait_vector().values.copy()
    values[1] = bad
    with pytest.raises(DataError) as error:
        load(rewritten(saved, tensors={"vectors": values}))
    assert said in one_line(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"vectors": {}},
        {"layer_types": {}},
        {"layer_types": {0: "full_attention"}},
        {"midpoint": {0: 1.0}},
        {"separation": {-1: np.nan, 0: 1.0, 3: 1.0}},
        {
            "vectors": {
                -1: np.ones(5, np.float32),
                0: np.ones(6, np.float32),
                3: np.ones(6, np.float32),
            }
        },
    ],
    ids=str,
)
def test_a_vector_that_contradicts_itself_is_never_made(changes):
    with pytest.raises((DataError, TypeCheckError)):
        trait_vector(**changes)


# ---- choosing


def test_select_keeps_what_belongs_to_its_layers():
    part = trait_vector().select([3, -1])
    assert part.layers == (-1, 3)
    assert set(part.layer_types) == set(part.midpoint) == set(part.separation) == {-1, 3}
    np.testing.assert_array_equal(part.vectors[3], trait_vector().vectors[3])


def test_select_names_the_layers_there_are():
    with pytest.raises(ConfigError, match=r"layers \[7\] are not .* it has \[-1, 0, 3\]"):
        trait_vector().select([3, 7])


def test_unit_keeps_direction_and_midpoint():
    vector, unit = trait_vector(), trait_vector().unit()
    assert (unit.scale, vector.scale) == ("unit", "raw")
    assert unit.midpoint == vector.midpoint
    for layer in vector.layers:
        v, u = vector.vectors[layer].astype(float), unit.vectors[layer].astype(float)
        # float32 rounds each of six numbers by 6e-8 at most.
        assert np.linalg.norm(u) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(u * np.linalg.norm(v), v, rtol=1e-6)


# ---- whether it fits


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"size": "7b", "family": "olmo3"},
        {"size": "custom", "family": ""},
        {"size": None, "family": None},
        {"layer_types": {0: "sliding_attention", 1: "full_attention", 3: "full_attention"}},
    ],
    ids=str,
)
def test_a_vector_fits_its_own_model(model):
    check_fits(trait_vector(), d_model=D_MODEL, **model)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"d_model": 8}, "d_model 6, but the model has 8"),
        ({"size": "32b"}, "size 7b, but the model has 32b"),
        ({"family": "olmo2"}, "family olmo3, but the model has olmo2"),
        (
            {"layer_types": {0: "full_attention"}},
            "layer 0 sliding_attention, but the model has full_attention",
        ),
    ],
    ids=str,
)
def test_a_vector_of_another_model_is_refused_with_both_values(model, said):
    with pytest.raises(ConfigError) as error:
        check_fits(trait_vector(), **({"d_model": D_MODEL} | model))
    assert said in one_line(error)
    assert "think_sft@step_20" in str(error.value)
