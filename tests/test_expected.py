import pytest

from olmo_stages.expected import Expected, place_of, read_expected, told, write_expected


def test_what_was_asked_for_is_read_back_in_its_order(tmp_path):
    jobs = [Expected("b", ["model=b"], {"stage": "b"}), Expected("a", ["model=a"])]
    write_expected(tmp_path, jobs)
    assert read_expected(tmp_path) == jobs


def test_launches_of_one_sweep_add_up_and_the_same_one_twice_is_one(tmp_path):
    write_expected(tmp_path, [Expected("a"), Expected("b")])
    write_expected(tmp_path, [Expected("b", about={"stage": "later"}), Expected("c")])
    write_expected(tmp_path, [Expected("b", about={"stage": "later"}), Expected("c")])
    found = read_expected(tmp_path)
    assert [it.job for it in found] == ["a", "b", "c"]
    assert found[1].about == {"stage": "later"}
    assert len(list((tmp_path / "expected").iterdir())) == 2


def test_a_removed_list_is_forgotten(tmp_path):
    jobs = [Expected("a")]
    assert write_expected(tmp_path, jobs) == place_of(tmp_path, jobs)
    place_of(tmp_path, jobs).unlink()
    assert read_expected(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"asked": "", "jobs": [{"name": "a"}]}'])
def test_a_damaged_list_hides_no_other(tmp_path, text):
    write_expected(tmp_path, [Expected("a")]).write_text(text)
    write_expected(tmp_path, [Expected("b")])
    assert [it.job for it in read_expected(tmp_path)] == ["b"]


def test_a_list_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijkl")
    path = write_expected(tmp_path, [Expected("a", ["data.x=hf_abcdefghijkl", "a.api_key=k123"])])
    assert "hf_abcdefghijkl" not in path.read_text()
    assert "k123" not in path.read_text()


TINY = {"model": "base", "analysis": "probe", "data": "truth", "size": "tiny"}


@pytest.mark.parametrize(
    ("overrides", "reference", "expected"),
    [
        (["model=think_dpo"], "parent", ("think_dpo", "think_sft", "tiny")),
        (["model=think_dpo"], "base", ("think_dpo", "base", "tiny")),
        (["model=think_dpo"], "none", ("think_dpo", "", "tiny")),
        (
            ["model=think_dpo", "reference=instruct_sft"],
            "base",
            ("think_dpo", "instruct_sft", "tiny"),
        ),
        (["model=think_dpo", "reference=base@main"], "base", ("think_dpo", "base", "tiny")),
        ([], "parent", ("base", "", "tiny")),
        ([], "base", ("base", "", "tiny")),
        (["model.revision=stage1-step100"], "base", ("base@stage1-step100", "base", "tiny")),
        (["model.revision='stage1-step100'"], "parent", ("base@stage1-step100", "", "tiny")),
        (["model=think_sft", "size=7b"], "parent", ("think_sft", "base", "7b")),
        (["model=custom", "model.path=/x/mine"], "parent", ("mine", "", "custom")),
        (
            ["model=custom", "model.path=/x/mine", "model.parent=think_sft"],
            "parent",
            ("mine", "think_sft", "custom"),
        ),
        (
            ["model=custom", "model.path=/x/mine", "model.name=m", "+model.parent=think_sft"],
            "base",
            ("m", "base", "custom"),
        ),
    ],
)
def test_stage_and_reference_are_told_as_the_job_would_say_them(overrides, reference, expected):
    found = told(overrides, TINY | {"reference": reference})
    assert (found["stage"], found["reference"], found["size"]) == expected
    assert (found["analysis"], found["data"]) == ("probe", "truth")


def test_what_cannot_be_told_is_left_open():
    assert told(["+experiment=x", "analysis=cka"]) == {"analysis": "cka"}
    assert told(["model=think_dpo", "analysis=cka"]) == {"stage": "think_dpo", "analysis": "cka"}
    assert told(["model=soup", "model.of=[a,b]"], TINY | {"reference": "parent"}) == {
        "size": "tiny",
        "analysis": "probe",
        "data": "truth",
    }
    found = told(["model=nowhere"], TINY | {"reference": "parent"})
    assert found["stage"] == "nowhere"
    assert "reference" not in found
