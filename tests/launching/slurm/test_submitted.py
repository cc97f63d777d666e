from olmo_stages.launching.slurm import submitted

IDENTITY = {"a": {"model": "1"}, "b": {"model": "2"}}


def test_nothing_was_submitted(tmp_path):
    found = submitted.read(tmp_path)
    assert found.all == []
    assert found.last("a") is None
    assert found.unsure() == []


def test_an_array_is_found_by_its_jobs(tmp_path):
    made = submitted.new(["a", "b"], IDENTITY, "gpus=1", "sweep")
    noted = submitted.note(tmp_path, made, "12")
    assert noted.ids == {"a": "12_0", "b": "12_1"}
    assert submitted.read(tmp_path).last("b") == noted
    assert submitted.read(tmp_path).last("c") is None


def test_a_single_job_is_no_array(tmp_path):
    noted = submitted.note(tmp_path, submitted.new(["a"], IDENTITY, "", "sweep"), "12")
    assert noted.ids == {"a": "12"}


def test_the_last_of_several_counts(tmp_path):
    submitted.note(tmp_path, submitted.new(["a", "b"], IDENTITY, "", "sweep"), "12")
    later = submitted.note(tmp_path, submitted.new(["b"], IDENTITY, "", "sweep"), "13")
    found = submitted.read(tmp_path)
    assert found.last("b") == later
    assert found.last("a").slurm == "12"


def test_what_was_never_taken_is_unsure_and_can_be_forgotten(tmp_path):
    sure = submitted.note(tmp_path, submitted.new(["a"], IDENTITY, "", "sweep"), "12")
    lost = submitted.note(tmp_path, submitted.new(["a"], IDENTITY, "", "sweep"))
    assert submitted.read(tmp_path).unsure() == [lost]
    assert submitted.read(tmp_path).last("a") == sure
    assert lost.comment != sure.comment
    submitted.forget(tmp_path, [lost])
    assert submitted.read(tmp_path).all == [sure]


def test_a_damaged_note_is_left_out(tmp_path):
    noted = submitted.note(tmp_path, submitted.new(["a"], IDENTITY, "", "sweep"), "12")
    (tmp_path / "slurm" / "submitted" / "torn.json").write_text('{"token": ')
    (tmp_path / "slurm" / "submitted" / "other.json").write_text('{"token": "x"}')
    assert submitted.read(tmp_path).all == [noted]
