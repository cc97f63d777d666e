import pytest

from olmo_stages.data.trait_sets import FromFolder
from olmo_stages.errors import ConfigError, DataError


@pytest.fixture
def write(tmp_path):
    def write(positive, negative, folder="optimism", definition=None):
        path = tmp_path / folder
        path.mkdir(parents=True)
        files = {"positive": positive, "negative": negative, "definition": definition}
        for name, text in files.items():
            if text is not None:
                content = text if isinstance(text, bytes) else text.encode()
                (path / f"{name}.txt").write_bytes(content)
        return str(path)

    return write


GLAD, SAD = "It will be fine.\nWe can fix it.\n", "It will be awful.\nNobody can fix it.\n"


def load(path, **options):
    return FromFolder(path, **options).load()


def test_equal_numbers_are_paired_line_by_line(write):
    data = load(write(GLAD, SAD))
    assert (data.name, data.n_examples, data.n_groups) == ("optimism", 4, 2)
    sides = {(e.pair, e.label): e.text for e in data.examples}
    assert sides["line 2", 1] == "We can fix it."
    assert sides["line 2", 0] == "Nobody can fix it."
    (note,) = data.notes
    assert note == "trait optimism: 2 positive and 2 negative prompts, paired line by line."
    assert {e.trait for e in data.examples} == {"optimism"}


def test_unequal_numbers_are_unpaired(write):
    data = load(write(GLAD + "All is well.\n", SAD))
    assert (data.n_examples, data.n_groups) == (5, 5)
    assert {e.pair for e in data.examples} == {""}
    assert data.notes[0].endswith("3 positive and 2 negative prompts, unpaired.")


def test_pairing_can_be_forbidden_or_demanded(write):
    path = write(GLAD, SAD)
    assert load(path, paired=False).n_groups == 4
    assert load(path, paired=True).n_groups == 2
    with pytest.raises(DataError, match="2 positive and 1 negative prompts cannot be paired"):
        load(write(GLAD, "It will be awful.\n", "other"), paired=True)


def test_the_definition_is_a_note_on_one_line(write):
    data = load(write(GLAD, SAD, definition="Optimism:\r\n expecting  the best.\n"))
    assert data.notes[1] == "trait optimism is defined as: Optimism: expecting the best."


def test_a_byte_order_mark_and_windows_lines_are_no_part_of_prompts(write):
    windows = load(write(("\ufeff" + GLAD).replace("\n", "\r\n"), SAD.replace("\n", "\r\n")))
    plain = load(write(GLAD, SAD, "plain/optimism"))
    assert [e.text for e in windows.examples] == [e.text for e in plain.examples]
    assert windows.digest == plain.digest


def test_separators_within_a_prompt_do_not_end_it(write):
    data = load(write("one\u2028two\nthree\x0cfour\n", SAD))
    assert data.examples[0].text == "one\u2028two"
    assert data.n_examples == 4


def test_spaces_at_the_end_of_a_prompt_are_kept(write):
    assert load(write("He said \nShe said \n", SAD)).examples[0].text == "He said "


def test_empty_lines_on_both_sides_are_skipped(write):
    data = load(write(GLAD.replace("\n", "\n\n"), SAD.replace("\n", "\n \n")))
    assert [e.pair for e in data.examples] == ["line 1", "line 3"] * 2


def test_an_empty_line_on_one_side_would_shift_the_pairs(write):
    path = write("a\n\nb\nc\n", "x\ny\n\nz\n")
    with pytest.raises(DataError, match=r"line 2 is empty in positive\.txt only") as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert load(path, paired=False).n_groups == 6


def test_a_folder_of_folders_holds_several_traits(write, tmp_path):
    write(GLAD, SAD, "traits/optimism")
    write("I lied.\nI cheated.\n", "I told you.\nI played fair.\n", "traits/deceit")
    (tmp_path / "traits" / "notes").mkdir()
    data = load(str(tmp_path / "traits"))
    assert (data.name, data.traits, data.n_groups) == ("traits", ("deceit", "optimism"), 4)
    assert {e.group for e in data.examples} == {
        "deceit/line 1",
        "deceit/line 2",
        "optimism/line 1",
        "optimism/line 2",
    }
    assert {e.pair for e in data.examples} == {e.group for e in data.examples}


def test_the_name_of_the_folder_one_is_in(write, monkeypatch):
    monkeypatch.chdir(write(GLAD, SAD))
    assert load(".").name == "optimism"
    assert load(".").examples[0].trait == "optimism"


def test_a_limit_keeps_pairs(write):
    lines = [f"{{}} {n}\n" for n in range(20)]
    path = write("".join(lines).format(*["good"] * 20), "".join(lines).format(*["bad"] * 20))
    data = load(path, limit=11)
    assert data.n_examples == 10
    assert data.n_groups == 5


# Refused


def refused(path, match):
    with pytest.raises(DataError, match=match) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("positive", "negative", "match"),
    [
        (GLAD, None, r"has no negative\.txt"),
        (None, SAD, r"has no positive\.txt"),
        (None, None, r"neither .* nor a folder in it holds positive\.txt"),
        ("", SAD, r"positive\.txt holds no prompts"),
        (GLAD, " \n\n", r"negative\.txt holds no prompts"),
        (b"\xff\xfea\n", SAD, r"positive\.txt is not UTF-8"),
        (GLAD, GLAD, "hold the same text with different labels"),
        ("a\na\n", SAD, "hold the same text in different groups"),
    ],
)
def test_broken_folders(write, positive, negative, match):
    refused(write(positive, negative), match)


def test_one_broken_folder_of_several_is_named(write, tmp_path):
    write(GLAD, SAD, "traits/optimism")
    write(None, SAD, "traits/deceit")
    refused(str(tmp_path / "traits"), r"deceit has no positive\.txt")


def test_no_folder(tmp_path):
    refused(str(tmp_path / "none"), "does not exist")
    (tmp_path / "x.txt").write_text("a")
    refused(str(tmp_path / "x.txt"), r"is a file; data=folder needs a folder with positive\.txt")


def test_no_path_is_an_error_only_when_loading():
    with pytest.raises(ConfigError, match=r"data=folder needs a folder .*data\.path=DIR"):
        FromFolder().load()
