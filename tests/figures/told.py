"""What figures say of themselves, held against the result that they are a part of."""

import json


def captions(result):
    """Caption by figure."""
    return {
        name: json.loads(it)["layout"]["meta"]["caption"] for name, it in result.figures.items()
    }


def behind(result, name):
    """The measurements that a figure names as its own."""
    meta = json.loads(result.figures[name])["layout"]["meta"]
    fields = [field for field in ("metric", "variant", "trait") if field in meta]
    assert fields
    return [
        row
        for row in result.measurements
        if all(getattr(row, field) in meta[field] for field in fields)
    ]
