import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import yaml

from olmo_stages.errors import ConfigError
from olmo_stages.models import compute as compute_module
from olmo_stages.models.compute import SCHEMES, Compute

FOLDER = Path(__file__).parents[2] / "conf" / "compute"
CONFIG = FOLDER / "auto.yaml"


def compute(**options):
    return Compute(
        **{"device": "cpu", "dtype": "auto", "token_budget": 64, "threads": None} | options
    )


def test_auto_dtype_is_float32_on_the_cpu():
    assert compute().resolve_dtype() == "float32"
    assert compute(dtype="bfloat16").resolve_dtype() == "bfloat16"


@pytest.mark.parametrize(
    "options",
    [
        {"device": "tpu"},
        {"dtype": "int3"},
        {"token_budget": 0},
        {"threads": 0},
        {"quantisation": "int2"},
        {"device_map": "balanced", "device": "auto"},
        {"device_map": "auto", "device": "cpu"},
    ],
)
def test_impossible_compute_settings_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        compute(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ConfigError, match=r"no GPU here"):
        compute(device="cuda").resolve_device()


@pytest.mark.parametrize(("build", "asks"), [("2.13.0+cpu", False), ("2.13.0", True)])
def test_a_torch_that_was_built_without_gpus_is_not_imported_to_be_asked(monkeypatch, build, asks):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(compute_module, "version", lambda _name: build)
    assert compute_module.may_see_gpus() is asks
    if not asks:
        assert compute(device="auto").resolve_device() == "cpu"
        assert "torch" not in sys.modules


def test_the_default_configuration_is_complete_and_valid():
    options = yaml.safe_load(CONFIG.read_text())
    assert options.pop("_target_") == f"{Compute.__module__}.{Compute.__qualname__}"
    assert set(options) == {field.name for field in dataclasses.fields(Compute)}
    assert Compute(**options).resolve_dtype() in {"float32", "bfloat16"}


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_the_quantised_configurations_are_the_default_but_for_that(name):
    options = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert options == {"defaults": ["auto"], "quantisation": name}


def test_each_quantisation_has_an_identity_of_its_own():
    assert SCHEMES["none"] == "none"  # as entries that were stored before it could be chosen say
    assert len(set(SCHEMES.values())) == len(SCHEMES)
