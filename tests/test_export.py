"""`olmo-stages export`: vectors out of jobs and sweeps, as a shell starts it."""

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import olmo_stages
from olmo_stages import records
from olmo_stages.analyses.cosine import Cosine
from olmo_stages.cli import main
from olmo_stages.export import parse_layers
from olmo_stages.records import Job, Status, Times, now, write_status
from olmo_stages.stages import conf_folder
from olmo_stages.types import Measurement, Result, Stage
from tests.fakes import FakeSource, grouped_examples

BASE = Stage("base", "tiny", "miniature")
SFT = Stage("think_sft", "tiny", "miniature", parent=BASE)
DPO = Stage("think_dpo", "tiny", "miniature", parent=SFT)
LAYERS = (-1, 0, 1, 3)
TYPES = ("embedding", "sliding_attention", "sliding_attention", "full_attention")
N_LAYERS, D_MODEL = len(LAYERS), 5


def tensors(analysis, traits, reference, seed):
    rng = np.random.default_rng(seed)
    found = {"layers": np.array(LAYERS, dtype=np.int64)}
    if analysis == "probe":
        return found | {"direction": rng.normal(size=(N_LAYERS, D_MODEL)).astype(np.float32)}
    for trait in traits:
        found[f"{trait}.vector"] = rng.normal(size=(N_LAYERS, D_MODEL)).astype(np.float32)
        found[f"{trait}.midpoint"] = rng.normal(size=N_LAYERS)
        found[f"{trait}.separation"] = rng.normal(size=N_LAYERS)
        if reference is not None:
            other = np.random.default_rng(99).normal(size=(N_LAYERS, D_MODEL))
            found[f"{trait}.reference_vector"] = other.astype(np.float32)
            found[f"{trait}.reference_midpoint"] = rng.normal(size=N_LAYERS)
            found[f"{trait}.reference_separation"] = rng.normal(size=N_LAYERS)
    return found


def job_folder(
    root,
    *,
    analysis="cosine",
    stage=SFT,
    reference=BASE,
    traits=("manners",),
    data="manners_miniature",
    site="resid_post",
    model=None,
    responses=None,
    seed=0,
    options=None,
    result=None,
):
    """A finished job as the analyses write it."""
    sides = {"activations": stage, "reference": reference}
    job = Job(
        analysis,
        stage,
        reference,
        data,
        {
            "options": options or {"kind": "mean_difference", "site": site, "position": "last"},
            "seed": seed,
            **{
                side: None if it is None else {"weights": f"{it.label}-digest", "format": "raw"}
                for side, it in sides.items()
            },
        },
    )
    rows = [
        Measurement(
            "cosine", 0.9, stage.label, layer=i, layer_type=t, trait=trait, n=40, n_groups=20
        )
        for trait in traits
        for i, t in zip(LAYERS, TYPES, strict=True)
    ]
    provenance = records.provenance(
        job=job.describe(),
        config={"model": model or {"family": "olmo3"}},
        times=Times(now(), now()),
        seed=seed,
        data_digest=f"{data}-digest",
        model_digests={},
    )
    if responses is not None:
        provenance["responses"] = {"mode": responses, "stages": []}
    folder = job.folder(root)
    made = Result(tuple(rows), tensors(analysis, traits, reference, seed))
    records.write(folder, result or made, provenance)
    return folder


def sweep_folder(root, *folders, failed=0):
    for i, folder in enumerate(folders):
        write_status(root, Status(str(i), "ok", str(folder)))
    for i in range(failed):
        write_status(root, Status(str(len(folders) + i), "failed", error="no"))
    return root


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    """Run `olmo-stages export` in an empty folder; gives its exit code and both streams."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["olmo-stages", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        streams = capsys.readouterr()
        return left.value.code or 0, streams.out, streams.err

    return run


def refused(shell, *arguments):
    """The one line of a refusal, which left no file."""
    before = sorted(Path().iterdir())
    code, out, err = shell(*arguments)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert sorted(Path().iterdir()) == before
    return err


# ---- the analysis itself


@pytest.mark.parametrize("kind", ["mean_difference", "lda"])
def test_what_cosine_finds_is_exported_for_both_sides(shell, tmp_path, kind):
    options = yaml.safe_load((conf_folder() / "analysis" / "cosine.yaml").read_text())
    del options["_target_"]
    options |= {"kind": kind, "n_permutations": 0, "n_unrelated": 0, "n_resamples": 100}
    examples = tuple(grouped_examples(8))
    labels = np.array([e.label for e in examples])
    rng = np.random.default_rng(3)
    values = {
        stage: rng.normal(size=(2, len(labels), D_MODEL))
        + labels[:, None] * rng.normal(size=D_MODEL)
        for stage in (BASE, SFT)
    }
    source = FakeSource(examples, values.__getitem__, layer_types=TYPES[1:])
    result = Cosine(**options)(SFT, BASE, source, 0)
    folder = job_folder(tmp_path / "outputs", options=options, result=result)
    for side, stage in (("stage", SFT), ("reference", BASE)):
        assert shell(folder, "--side", side, "-o", f"{side}.safetensors")[0] == 0
        vector = olmo_stages.load_vector(f"{side}.safetensors")
        assert (vector.layers, vector.kind) == ((0, 1), kind)
        assert (vector.told("n"), vector.told("n_groups")) == (str(len(labels)), "8")
        assert vector.layer_types == dict(enumerate(TYPES[1:3]))
        for layer, x in enumerate(values[stage].astype(np.float32).astype(float)):
            high, low = x[labels == 1].mean(0), x[labels == 0].mean(0)
            along = vector.vectors[layer] / np.linalg.norm(vector.vectors[layer])
            if kind == "mean_difference":
                np.testing.assert_allclose(vector.vectors[layer], high - low, atol=1e-5)
            # The vectors are float32, seven digits of numbers near 1.
            assert vector.midpoint[layer] == pytest.approx((high + low) @ along / 2, abs=1e-5)
            assert vector.separation[layer] == pytest.approx((high - low) @ along, abs=1e-5)
            assert vector.separation[layer] > 0


# ---- one job


def test_a_vector_is_what_the_job_found(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    code, out, _ = shell(folder)
    assert code == 0
    path = "manners.think_sft.tiny.safetensors"
    assert out.splitlines() == [
        f"{path}: manners of think_sft (tiny), layers -1-1,3, d_model 5",
        f"load: olmo_stages.load_vector('{path}')",
    ]
    vector, found = olmo_stages.load_vector(path), records.read(folder).result.tensors
    assert vector.layers == LAYERS
    np.testing.assert_array_equal(vector.values, found["manners.vector"])
    assert list(vector.midpoint.values()) == found["manners.midpoint"].tolist()
    assert list(vector.separation.values()) == found["manners.separation"].tolist()
    assert tuple(vector.layer_types[i] for i in LAYERS) == TYPES
    assert (vector.trait, vector.kind, vector.scale) == ("manners", "mean_difference", "raw")
    assert (vector.site, vector.position) == ("resid_post", "last")


def test_the_line_that_is_printed_loads_it(shell, tmp_path):
    _, out, _ = shell(job_folder(tmp_path / "outputs"))
    line = out.splitlines()[-1].removeprefix("load: ")
    assert eval(line, {"olmo_stages": olmo_stages}).trait == "manners"


def test_a_vector_knows_where_it_comes_from(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    shell(folder)
    told = olmo_stages.load_vector("manners.think_sft.tiny.safetensors").provenance
    job = records.read(folder).provenance
    assert told == {
        "side": "stage",
        "stage": "think_sft",
        "name": "think_sft",
        "size": "tiny",
        "source": "miniature",
        "revision": "main",
        "random_init": None,
        "family": "olmo3",
        "weights": "think_sft-digest",
        "data": "manners_miniature",
        "data_digest": "manners_miniature-digest",
        "format": "raw",
        "responses": None,
        "n": 40,
        "n_groups": 20,
        "seed": 0,
        "analysis": "cosine",
        "job": job["job"]["digest"],
        "package": job["packages"]["olmo-stages"],
        "code": (job["git"] or {}).get("commit"),
    }


def test_a_vector_of_responses_says_who_wrote_them(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", responses="replay of base")
    shell(folder, "-o", "v.safetensors")
    assert olmo_stages.load_vector("v.safetensors").told("responses") == "replay of base"


def test_the_reference_has_its_own_vector_and_weights(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    assert shell(folder, "--side", "reference")[0] == 0
    vector = olmo_stages.load_vector("manners.base.tiny.safetensors")
    found = records.read(folder).result.tensors
    np.testing.assert_array_equal(vector.values, found["manners.reference_vector"])
    assert (vector.told("side"), vector.told("weights")) == ("reference", "base-digest")
    assert list(vector.midpoint.values()) == found["manners.reference_midpoint"].tolist()
    assert list(vector.separation.values()) == found["manners.reference_separation"].tolist()


def test_a_job_without_a_reference_has_none_to_export(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", stage=BASE, reference=None)
    assert "no vector of the reference" in refused(shell, folder, "--side", "reference")


def test_every_trait_is_a_file_and_one_may_be_chosen(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", traits=("evil.v2", "kind"))
    shell(folder, "-o", "all")
    assert sorted(it.name for it in Path("all").iterdir()) == [
        "evil.v2.think_sft.tiny.safetensors",
        "kind.think_sft.tiny.safetensors",
    ]
    shell(folder, "-o", "one", "--trait", "kind")
    assert [it.name for it in Path("one").iterdir()] == ["kind.think_sft.tiny.safetensors"]
    one = olmo_stages.load_vector("one/kind.think_sft.tiny.safetensors")
    np.testing.assert_array_equal(one.values, records.read(folder).result.tensors["kind.vector"])


def test_an_unknown_trait_names_those_there_are(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", traits=("evil", "kind"))
    assert "its traits: evil, kind" in refused(shell, folder, "--trait", "good")


def test_layers_and_length_may_be_chosen(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    shell(folder, "--layers", "3,0-1", "--unit", "-o", "v.safetensors")
    vector = olmo_stages.load_vector("v.safetensors")
    assert (vector.layers, vector.scale) == ((0, 1, 3), "unit")
    # float32 rounds each of five numbers by 6e-8 at most.
    np.testing.assert_allclose(np.linalg.norm(vector.values, axis=1), 1, atol=1e-6)
    assert "layers [2]" in refused(shell, folder, "--layers", "2")
    assert "'x' names no layer" in refused(shell, folder, "--layers", "1,x")


@pytest.mark.parametrize(
    ("text", "layers"), [("3,7", (3, 7)), ("3-5", (3, 4, 5)), ("-1, 2", (-1, 2)), (None, None)]
)
def test_layers_are_read(text, layers):
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "3,", "5-3", "a", "1.5", "3--5"])
def test_what_is_no_list_of_layers_is_refused(text):
    with pytest.raises(olmo_stages.errors.ConfigError, match="names no layer"):
        parse_layers(text)


# ---- formats


def test_a_control_vector_leaves_out_what_has_no_place_and_says_so(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    code, out, _ = shell(folder, "--format", "gguf")
    assert code == 0
    assert "left out: layers -1-0, for which gguf has no place" in out
    assert "llama-cli --control-vector manners.think_sft.tiny.gguf" in out
    read = {it.name: it.data for it in gguf.GGUFReader("manners.think_sft.tiny.gguf").tensors}
    found = records.read(folder).result.tensors["manners.vector"]
    assert set(read) == {"direction.1", "direction.3"}
    np.testing.assert_array_equal(read["direction.1"], found[LAYERS.index(1)])
    np.testing.assert_array_equal(read["direction.3"], found[LAYERS.index(3)])


def test_a_layer_that_was_asked_for_is_never_left_out(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    said = refused(shell, folder, "--format", "gguf", "--layers", "0,1")
    assert "no place for layers [0]" in said


def test_a_steering_file(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    _, out, _ = shell(folder, "--format", "steering-vectors")
    path = "manners.think_sft.tiny.steering.safetensors"
    assert f"load: SteeringVector({{int(i): v for i, v in load_file('{path}').items()}})" in out
    assert "left out: layers -1," in out
    read, found = load_file(path), records.read(folder).result.tensors["manners.vector"]
    assert set(read) == {"0", "1", "3"}
    np.testing.assert_array_equal(read["3"], found[LAYERS.index(3)])


@pytest.mark.parametrize("format", ["gguf", "steering-vectors"])
def test_another_site_fits_our_own_format_only(shell, tmp_path, format):
    folder = job_folder(tmp_path / "outputs", site="mlp_out")
    assert "was read at mlp_out" in refused(shell, folder, "--format", format)
    assert shell(folder)[0] == 0


# ---- where it goes


def test_a_file_that_is_there_is_replaced_only_by_force(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    path = Path("manners.think_sft.tiny.safetensors")
    path.write_text("mine")
    assert "is there already; replace it with --force" in refused(shell, folder)
    assert path.read_text() == "mine"
    assert shell(folder, "--force")[0] == 0
    assert olmo_stages.load_vector(path).trait == "manners"


def test_one_file_for_several_vectors_is_refused(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", traits=("evil", "kind"))
    assert "one file for 2 vectors" in refused(shell, folder, "-o", "v.safetensors")
    assert shell(folder, "-o", "v.safetensors", "--trait", "evil")[0] == 0


def test_a_name_of_another_format_is_refused(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    assert "must end with .gguf" in refused(
        shell, folder, "-o", "v.safetensors", "--format", "gguf"
    )


def test_all_files_or_none(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", traits=("evil", "kind"))
    Path("kind.think_sft.tiny.safetensors").write_text("mine")
    refused(shell, folder)
    assert [it.name for it in Path().iterdir()] == ["kind.think_sft.tiny.safetensors"]


# ---- sweeps


def test_a_sweep_gives_a_file_a_job(shell, tmp_path):
    jobs = [job_folder(tmp_path / "o", stage=stage, seed=i) for i, stage in enumerate((SFT, DPO))]
    sweep = sweep_folder(tmp_path / "sweep", *jobs, failed=1)
    assert shell(sweep)[0] == 0
    for job, stage in zip(jobs, (SFT, DPO), strict=True):
        vector = olmo_stages.load_vector(f"manners.{stage.label}.tiny.safetensors")
        np.testing.assert_array_equal(
            vector.values, records.read(job).result.tensors["manners.vector"]
        )


def test_the_reference_of_a_whole_sweep_is_one_file(shell, tmp_path):
    jobs = [job_folder(tmp_path / "o", stage=stage) for stage in (SFT, DPO)]
    alone = job_folder(tmp_path / "o", stage=BASE, reference=None)
    sweep = sweep_folder(tmp_path / "sweep", *jobs, alone)
    assert shell(sweep, "--side", "reference")[0] == 0
    assert [it.name for it in Path().iterdir()] == ["manners.base.tiny.safetensors"]


def test_jobs_that_share_a_name_are_told_apart(shell, tmp_path):
    jobs = [job_folder(tmp_path / "o", data=data, seed=i) for i, data in enumerate(("one", "two"))]
    assert shell(sweep_folder(tmp_path / "sweep", *jobs))[0] == 0
    assert sorted(it.name.split(".")[3] for it in Path().iterdir()) == ["one", "two"]


def test_probes_of_a_mixed_sweep_are_not_mistaken_for_its_trait_vectors(shell, tmp_path):
    jobs = [
        job_folder(tmp_path / "o", analysis=analysis) for analysis in ("probe", "cosine", "cka")
    ]
    assert shell(sweep_folder(tmp_path / "sweep", *jobs))[0] == 0
    assert [it.name for it in Path().iterdir()] == ["manners.think_sft.tiny.safetensors"]


def test_a_sweep_without_vectors_is_refused(shell, tmp_path):
    sweep = sweep_folder(tmp_path / "sweep", job_folder(tmp_path / "o", analysis="cka"))
    assert "(its analyses: cka)" in refused(shell, sweep)


# ---- other results


def test_the_direction_of_a_probe(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", analysis="probe")
    assert shell(folder)[0] == 0
    vector = olmo_stages.load_vector("manners_miniature.think_sft.tiny.safetensors")
    np.testing.assert_array_equal(vector.values, records.read(folder).result.tensors["direction"])
    assert vector.midpoint == {}
    assert "keeps the direction of the stage only" in refused(shell, folder, "--side", "reference")


def test_a_result_without_vectors_is_refused(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs", analysis="cka")
    assert "analysis=cka, which finds no vectors" in refused(shell, folder)


def test_a_folder_of_something_else_is_refused(shell, tmp_path):
    assert "neither a finished result nor a sweep" in refused(shell, tmp_path)
    assert "neither a finished result nor a sweep" in refused(shell, tmp_path / "none")


def test_a_damaged_result_is_refused(shell, tmp_path):
    folder = job_folder(tmp_path / "outputs")
    path = folder / records.TENSORS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "is damaged" in refused(shell, folder)


# ---- families


@pytest.mark.parametrize(
    ("stage", "model", "family"),
    [
        (Stage("olmo2_dpo", "7b", "allenai/OLMo-2-1124-7B-DPO"), {"family": "olmo3"}, "olmo2"),
        (Stage("mine", "7b", "me/mine"), {"family": "gemma"}, "gemma"),
        (Stage("mine", "custom", "/ckpts/mine"), {"parent": "olmo2_sft@step_1"}, "olmo2"),
        (Stage("mine", "custom", "/ckpts/mine"), {"parent": None}, ""),
        (Stage("soup-1", "7b", "0.5 a"), {"parent": None, "of": ["/x", "base@s"]}, "olmo3"),
        (Stage("soup-1", "7b", "1 a"), {"parent": None, "of": "base"}, "olmo3"),
        (Stage("base", "custom", "/ckpts/base"), {"parent": None}, ""),
    ],
    ids=str,
)
def test_the_family_is_known_where_the_lineage_is(shell, tmp_path, stage, model, family):
    folder = job_folder(tmp_path / "outputs", stage=stage, model=model)
    assert shell(folder, "-o", "v.safetensors")[0] == 0
    assert olmo_stages.load_vector("v.safetensors").told("family") == family
