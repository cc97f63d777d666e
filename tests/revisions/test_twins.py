import json

import pytest

from olmo_stages.revisions import twins

COMMITS = {"step_100": "1" * 40, "step_1000": "2" * 40, "step_200": "3" * 40}
SOURCE = "models--allenai--Olmo-3-7B-RL-Zero-Code"


def put(cache, source, revision, commit, *blobs):
    """A revision in the hub's cache, laid out as the hub's library does."""
    folder = cache / source
    for part in ("refs", "blobs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / revision).write_text(commit)
    for i, blob in enumerate(blobs, start=1):
        (folder / "blobs" / blob).touch()
        link = folder / "snapshots" / commit / f"model-{i:05d}-of-{len(blobs):05d}.safetensors"
        link.symlink_to(folder / "blobs" / blob)


@pytest.fixture
def cache(tmp_path):
    """step_100 and step_1000 were uploaded with the same weights; step_200 shares one file."""
    for revision, commit in COMMITS.items():
        blobs = ("a" * 64, ("c" if revision == "step_200" else "b") * 64)
        put(tmp_path, SOURCE, revision, commit, *blobs)
    return tmp_path


def record(stage, digest, reference=None, size="7b"):
    digests = {stage: digest}
    sides = {"stage": {"label": stage, "size": size}, "reference": None}
    if reference is not None:
        sides["reference"] = {"label": reference[0], "size": size}
        digests[reference[0]] = reference[1]
    return {"job": sides, "model_digests": digests}


def named(found):
    return [it.names for it in found]


def test_names_of_one_digest_are_grouped():
    assert twins.same({"a": "1", "b": "2", "c": "1", "d": "3"}) == (("a", "c"),)


def test_the_upload_error_is_seen_in_the_cache_although_the_commits_differ(cache):
    (found,) = twins.in_cache(cache)
    name = "allenai/Olmo-3-7B-RL-Zero-Code"
    assert found.names == (f"{name}@step_100", f"{name}@step_1000")
    assert "have the same weights (hub cache)" in str(found)


def test_two_spellings_of_one_repository_are_one(tmp_path):
    for source in ("models--allenai--Olmo-3-7B-Think", "models--allenai--OLMo-3-7B-Think"):
        put(tmp_path, source, "main", "1" * 40, "a" * 64)
    assert twins.in_cache(tmp_path) == ()


def test_both_sides_of_a_comparison_under_two_commits(cache):
    one, other, third = (f"rl_zero_code@{name}" for name in COMMITS)
    found = twins.under_two_commits({one: "1" * 40, other: "2" * 40}, cache)
    assert found is not None
    assert found.names == (one, other)
    assert twins.under_two_commits({one: "1" * 40, third: "3" * 40}, cache) is None
    assert twins.under_two_commits({one: "1" * 40, "mine": "2" * 64}, cache) is None


def test_no_cache_has_no_twins(tmp_path):
    assert twins.in_cache(tmp_path / "none") == ()


def test_files_that_are_no_links_are_not_judged(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert twins.content(tmp_path) is None


def test_the_two_sides_of_a_comparison():
    found = twins.of_jobs([record("think_sft", "d1", ("base", "d1"))])
    assert named(found) == [("think_sft (7b)", "base (7b)")]
    assert "this sweep" in str(found[0])
    assert twins.of_jobs([record("think_sft", "d1", ("base", "d2"))]) == ()


def test_two_jobs_of_a_sweep():
    jobs = [record("a", "d1", ("base", "d0")), record("b", "d1", ("base", "d0"))]
    assert named(twins.of_jobs(jobs)) == [("a (7b)", "b (7b)")]


def test_commits_with_the_same_weights_are_found_through_the_cache(cache):
    jobs = [record(f"rl_zero_code@{name}", commit) for name, commit in COMMITS.items()]
    assert twins.of_jobs(jobs) == ()
    names = ("rl_zero_code@step_100 (7b)", "rl_zero_code@step_1000 (7b)")
    assert named(twins.of_jobs(jobs, cache)) == [names]


def test_random_initialisations_and_commits_are_the_same_by_intention():
    jobs = [record("base (random)", "d1"), record("think_sft (random)", "d1")]
    jobs += [record("base", "d2"), record(f"base@{'4' * 40}", "d2")]
    assert twins.of_jobs(jobs) == ()


def test_results_on_disk_and_what_is_no_record(tmp_path):
    for name, content in (("a", record("a", "d1")), ("b", record("b", "d1")), ("c", [1])):
        folder = tmp_path / "probe" / f"{name}.7b" / "truth.1"
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text(json.dumps(content))
    (tmp_path / "probe" / "c.7b" / "truth.1" / "provenance.json").write_text("{")
    (found,) = twins.in_results(tmp_path)
    assert found.names == ("a (7b)", "b (7b)")
    assert found.where == str(tmp_path)
