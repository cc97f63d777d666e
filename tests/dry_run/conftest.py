"""Jobs of small models whose analyses ask for what they tell, and what the store then holds."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import hydra
import pytest
from safetensors.torch import load_file, save_file

from olmo_stages.data.dataset import Dataset
from olmo_stages.data.responses import Generation, responding
from olmo_stages.stages import conf_folder
from olmo_stages.types import Example, Measurement, Message, Result, Stage, Wanted
from tests.chat_tokenizers import THINK, byte_level, small_model


@dataclass(frozen=True)
class Asking:
    """An analysis that asks for activations at its sites and positions, of the sides it names."""

    sides: tuple = ("stage", "reference")
    sites: tuple = ("resid_post",)
    positions: tuple = ("last",)
    layers: tuple = (None,)
    at_once: bool = False
    number: int = 0

    name: ClassVar[str] = "asking"
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False

    def reads(self, stage, reference, seed):
        stages = {
            "stage": stage,
            "reference": reference,
            "random": replace(stage, random_init=seed),
        }
        pairs = tuple((site, position) for site in self.sites for position in self.positions)
        captures = [pairs] if self.at_once else [(pair,) for pair in pairs]
        return tuple(
            Wanted(stages[side], them, layers)
            for side in self.sides
            if stages[side] is not None
            for layers in self.layers
            for them in captures
        )

    def __call__(self, stage, reference, activations, seed):
        rows = [
            activations(it.stage, site=site, position=position, layers=it.layers)
            for it in self.reads(stage, reference, seed)
            for site, position in it.captures
        ]
        return Result((Measurement("read", float(len(rows)), stage.label),))


@dataclass(frozen=True)
class Silent:
    """One that asks for the same, and does not tell."""

    site: str = "resid_post"
    position: str = "last"

    name: ClassVar[str] = "silent"
    needs_labels: ClassVar[bool] = False

    def __call__(self, stage, reference, activations, seed):
        return Asking()(stage, reference, activations, seed)


@dataclass(frozen=True)
class Texts:
    """Chats, which may be completed."""

    name: str = "texts"
    respond: str | None = None
    n: int = 6

    def load(self, *, miniature):  # noqa: ARG002
        examples = tuple(
            Example(f"e{i}", f"g{i}", i % 2, messages=(Message("user", f"Why {i} times {i}?"),))
            for i in range(self.n)
        )
        generation = Generation(max_new_tokens=5)
        return Dataset(
            self.name, examples, "chat_fixed", respond=responding(self.respond, generation)
        )


@pytest.fixture(scope="session")
def experiment():
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["tracking=none", "compute.device=cpu"])
        return hydra.utils.instantiate(composed, _convert_="all")


@pytest.fixture(scope="session")
def stages(tmp_path_factory):
    """Three stages of other weights; the second and the third come from the first."""
    root = tmp_path_factory.mktemp("stages")
    found = {}
    for n, name in enumerate(("first", "second", "third")):
        path = small_model(root / name, byte_level(THINK))
        weights = load_file(path / "model.safetensors")
        weights["lm_head.weight"] = weights["lm_head.weight"].roll(7 * n, dims=0).contiguous()
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
        found[name] = Stage(name, "custom", str(path), parent=found.get("first"))
    return found


@pytest.fixture
def job(experiment, stages, tmp_path):
    """Builds a job: name of its stage, its analysis, and what else differs."""

    def build(model="second", analysis=None, **options):
        return replace(
            experiment,
            model=stages[model] if isinstance(model, str) else model,
            analysis=analysis or Asking(),
            outputs=str(tmp_path / "outputs"),
            cache=str(tmp_path / "cache"),
            **{"data": Texts(), **options},
        )

    return build


@pytest.fixture
def computed(tmp_path):
    """Counts the entries of the store: of activations, and of responses."""

    def count():
        found = {"activations": 0, "responses": 0}
        for path in (tmp_path / "cache").glob("activations/*/*/*/manifest.json"):
            found[json.loads(path.read_text()).get("kind", "activations")] += 1
        return found

    return count
