"""One sweep of all stages and analyses for every test that shows results."""

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def outputs(tmp_path_factory, worker_id):
    """An outputs folder with the sweep of `swept.sweep`; to be read, or copied first.

    Made once, whichever worker comes first.
    """
    from tests.report import swept  # late: it needs every analysis

    root = tmp_path_factory.getbasetemp()
    root = root if worker_id == "master" else root.parent
    made = root / "swept"
    with FileLock(root / "swept.lock"):
        if not made.exists():
            swept.sweep(root / "sweeping" / "outputs")
            (root / "sweeping").rename(made)
    return made / "outputs"
