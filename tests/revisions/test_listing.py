import io
import json

import pytest
from rich.console import Console

from olmo_stages import miniature
from olmo_stages.errors import ConfigError, ModelError
from olmo_stages.revisions.listing import choose, revisions_of, show, to_json

SFT = "allenai/Olmo-3-32B-Think-SFT"
BASE = "allenai/Olmo-3-1025-7B"


def named(listing):
    return [it.name for it in listing.revisions]


def shown(listing, width=100):
    out = io.StringIO()
    show(listing, Console(file=out, width=width))
    return out.getvalue()


def add_base(online):
    steps = {f"stage1-step{step}": "1" * 40 for step in range(1000, 1_414_000, 1000)}
    commits = {"stage3-step11921": "a" * 40, "stage2-step47684": "4" * 40}
    online.add(BASE, **steps, **commits, **{"stage2-step47684-mix-x-from-2T-ckpt": "5" * 40})


def test_the_miniature_family_has_its_own(monkeypatch):
    monkeypatch.setattr("olmo_stages.revisions.hub.branches", None)  # nobody is asked
    for stage in miniature.STAGES:
        listing = revisions_of(stage, "tiny")
        assert named(listing) == list(miniature.revisions(stage))
        assert listing.origin == "miniature"


def test_the_hub_is_listed_in_the_order_of_training(online):
    add_base(online)
    listing = revisions_of("base", "7b")
    assert named(listing)[:2] == ["stage1-step1000", "stage1-step2000"]
    assert named(listing)[-3:] == ["stage2-step47684", "stage3-step11921", "main"]
    assert listing.others == ("stage2-step47684-mix-x-from-2T-ckpt",)
    assert listing.origin == "hub"


def test_revisions_of_one_commit_are_reported(online):
    online.add(BASE, **{"stage3-step11921": "a" * 40, "stage1-step1000": "1" * 40})
    notes = revisions_of("base", "7b").notes
    assert notes == ("stage3-step11921 and main are the same commit",)


def test_a_log_spaced_choice_and_the_line_that_runs_it(online):
    add_base(online)
    listing = choose(revisions_of("base", "7b"), match=None, log_spaced=4)
    names = named(listing)
    assert (len(names), names[0], names[-1]) == (4, "stage1-step1000", "main")
    line = f"python run.py -m model=base size=7b model.revision={','.join(names)}"
    assert listing.command == line
    assert line in shown(listing).splitlines()


def test_too_many_for_a_line_are_to_be_chosen_from(online):
    add_base(online)
    said = shown(revisions_of("base", "7b"))
    assert "--log-spaced" in said
    assert "python run.py" not in said


def test_a_match(online):
    add_base(online)
    listing = revisions_of("base", "7b")
    assert named(choose(listing, match="stage[23]-*", log_spaced=None)) == [
        "stage2-step47684",
        "stage3-step11921",
    ]
    with pytest.raises(ConfigError, match=r"--match 'stage9-\*' fits no revision"):
        choose(listing, match="stage9-*", log_spaced=None)


def test_runs_side_by_side_are_not_mixed(online):
    names = [f"{lr}-step{step}" for lr in ("5e-5", "1e-4") for step in (1000, 5000, 10790)]
    online.add(SFT, **dict.fromkeys(names, "1" * 40))
    listing = revisions_of("think_sft", "32b")
    first = choose(listing, match=None, log_spaced=3)
    assert named(first) == ["5e-5-step1000", "5e-5-step5000", "main"]
    assert any("2 runs were trained side by side (5e-5, 1e-4)" in note for note in first.notes)
    other = choose(listing, match="*1e-4*", log_spaced=2)
    assert named(other) == ["1e-4-step1000", "1e-4-step10790"]


def test_offline_the_spelling_is_told_and_that_it_is_all_that_is_known():
    listing = revisions_of("think_rlvr", "7b")
    assert (named(listing), listing.origin, listing.command) == ([], "cache", None)
    said = " ".join(shown(listing).split())
    assert "the hub is not in reach (OfflineModeIsEnabled)" in said
    assert "only what was downloaded before is listed" in said
    assert "revisions are spelt step_NNNN (25..1375), main" in said
    assert "python run.py" not in said


def test_offline_a_spelling_that_is_not_known_is_not_made_up():
    (note,) = revisions_of("instruct_sft", "7b").notes
    assert "the spelling of its revisions is not known" in note


def test_offline_what_was_downloaded_is_listed(tmp_path):
    folder = tmp_path / "hub" / "models--allenai--Olmo-3-7B-Think"
    (folder / "refs").mkdir(parents=True)
    for revision, commit in (("main", "1" * 40), ("step_0025", "2" * 40)):
        (folder / "refs" / revision).write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
    listing = revisions_of("think_rlvr", "7b")
    assert named(listing) == ["step_0025", "main"]
    assert listing.commits["step_0025"] == "2" * 40
    assert listing.command.endswith("model.revision=step_0025,main")


def test_a_repository_that_the_hub_does_not_know(online):
    with pytest.raises(ModelError, match="does not exist on the hub"):
        revisions_of("think_rlvr", "7b")
    assert online.asked


def test_as_json(online):
    online.add("allenai/OLMo-2-0425-1B", **{"stage2-ingredient3-step23852-tokens51B": "2" * 40})
    content = json.loads(to_json(revisions_of("olmo2_base", "1b")))
    assert content["from"] == "hub"
    assert content["source"] == "allenai/OLMo-2-0425-1B"
    assert content["revisions"][0] == {
        "name": "stage2-ingredient3-step23852-tokens51B",
        "phase": 2,
        "ingredient": 3,
        "lr": None,
        "step": 23852,
        "tokens": 51 * 10**9,
        "commit": "2" * 40,
    }
    assert content["command"].startswith("python run.py -m model=olmo2_base size=1b")


def test_the_table_shows_steps_and_tokens(online):
    name = "stage1-step1907359-tokens4001B"
    online.add("allenai/OLMo-2-0425-1B", **{name: "2" * 40})
    said = shown(revisions_of("olmo2_base", "1b"))
    (line,) = [it for it in said.splitlines() if it.startswith(f"{name} ")]
    assert line.split() == [name, "1,907,359", "4,001", "B", "2" * 12]
