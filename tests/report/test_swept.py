"""The sweep that other tests show is one that could trip them."""

import math

from olmo_stages.records import read
from olmo_stages.statuses import read_statuses
from tests.documents import HOSTILE
from tests.report import swept


def test_it_holds_what_a_report_may_stumble_over(outputs):
    folder = outputs / "sweeps" / "post_training"
    statuses = read_statuses(folder)
    assert [it.job for it in statuses if it.state == "failed"] == [
        f"analysis=probe,model={swept.FAILED}"
    ]
    assert [it.job for it in statuses if it.state == "missing"] == [
        f"analysis=cosine,model={swept.MISSING}"
    ]
    done = {(it.about["analysis"], it.about["stage"]) for it in statuses if it.state == "ok"}
    assert {name for name, _ in done} == {"probe", "cka", "cosine", "projection"}
    assert ("cosine", swept.MISSING) not in done
    assert ("probe", swept.OWN) in done
    assert {stage for name, stage in done if name == "cka"} == {*swept.POST_TRAINED, swept.OWN}
    results = [read(outputs.parent / it.folder).result for it in statuses if it.state == "ok"]
    rows = [row for result in results for row in result.measurements]
    assert any(math.isnan(row.value) for row in rows)
    assert {"sliding_attention", "full_attention"} <= {row.layer_type for row in rows}
    assert all(HOSTILE in it.about["data"] for it in statuses if it.state == "ok")
    assert all(any(HOSTILE in text for text in result.warnings) for result in results)
    assert [it.name for it in sorted((folder / "across").iterdir())]
