import pytest

from olmo_stages.progress import watched


@pytest.mark.parametrize(("n", "said"), [(3, ""), (200, "looking: 200 done\n")])
def test_items_are_counted_where_they_are_many(capsys, n, said):
    assert list(watched(range(n), "looking")) == list(range(n))
    assert capsys.readouterr().err == said
