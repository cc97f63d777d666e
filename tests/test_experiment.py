"""Which stage a job is compared with."""

from dataclasses import replace

import hydra
import pytest

from olmo_stages.errors import ConfigError
from olmo_stages.stages import conf_folder, custom, lookup


@pytest.fixture(scope="module")
def experiment():
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        composed = hydra.compose("config", ["tracking=none"])
        return hydra.utils.instantiate(composed, _convert_="all")


@pytest.fixture
def reference_of(experiment):
    return lambda model, name: replace(experiment, model=model, reference=name).reference_stage()


def test_a_revision_of_base_is_compared_with_the_released_base(reference_of):
    assert reference_of(lookup("base@stage1-step100", "tiny"), "base") == lookup("base", "tiny")
    assert reference_of(lookup("base@stage1-step100", "tiny"), "parent") is None


def test_base_itself_has_no_base(reference_of):
    assert reference_of(lookup("base", "tiny"), "base") is None


def test_the_base_of_an_own_checkpoint_comes_from_its_parent(reference_of):
    own = custom(path="/x", name=None, parent="think_sft", revision="main", size="tiny")
    assert reference_of(own, "base") == lookup("base", "tiny")


@pytest.mark.parametrize("name", ["mine", "base"])
def test_an_own_checkpoint_without_parent_has_no_base(reference_of, name):
    own = custom(path="/x", name=name, parent=None, revision="main", size="tiny")
    with pytest.raises(ConfigError, match=r"model.parent=STAGE.*reference=base@main"):
        reference_of(own, "base")
    assert reference_of(own, "base@main") == lookup("base", "tiny")


def test_an_unknown_reference_is_named_with_what_there_is(reference_of):
    with pytest.raises(ConfigError, match=r"reference=bas does.*parent, base, none, .*mean base"):
        reference_of(lookup("think_sft", "tiny"), "bas")
