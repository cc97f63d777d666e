from olmo_stages.tracking.run_layout import summary
from olmo_stages.types import Measurement, Result


def test_a_measurement_of_a_headline_is_sent_with_the_ends_of_its_interval():
    row = Measurement("auroc", 0.9, "base", layer=3, ci_low=0.8, ci_high=0.95)
    bare = Measurement("z", 1.5, "base", layer=3)
    headline = {"best layer": 3, "auroc": row, "z": bare, "note": "rough"}
    assert summary(Result((row,), headline=headline), "probe") == {
        "best_layer": 3,
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.95,
        "z": 1.5,
        "note": "rough",
    }
