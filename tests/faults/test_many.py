"""Jobs on one store that are killed again and again end with what undisturbed ones end with."""

import os

import pytest

from olmo_stages.activations.cleaning import gc
from olmo_stages.activations.store import Store
from tests.faults.launches import FEW, MANY, Place, untrained
from tests.faults.many import figures, leftovers, rounds


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "jobs"), [(6, FEW), (50, MANY)], ids=["few", "many"])
def test_killed_jobs_leave_what_undisturbed_ones_leave(tmp_path, kills, jobs):
    place = Place(tmp_path, untrained(tmp_path / "family"), heartbeat_s=2.0, jobs=jobs)
    ended = rounds(place, kills, seed=7, limit_s=600.0 + 60.0 * kills)
    assert sum(len(it.killed) for it in ended) >= kills
    for one in ended:
        assert one.found == [], figures(one)
        for left in one.leftovers:  # as they are when somebody cleans days later
            os.utime(one.place.root / left, (0, 0))
        gc(Store(one.place.store, heartbeat_s=place.heartbeat_s))
        assert [it for it in leftovers(one.place) if it.startswith("cache")] == []
