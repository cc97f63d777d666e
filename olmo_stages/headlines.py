"""Headlines as JSON has them: a number that is a measurement stays one, with all that it says."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from olmo_stages.types import Headline, Measurement


def stored(headline: Headline) -> dict[str, Any]:
    """Return a headline as JSON data: a measurement as a mapping of what is known of it."""
    return {key: _stored(value) for key, value in headline.items()}


def restored(kept: Mapping[str, Any]) -> dict[str, str | float | int | Measurement | None]:
    """Return the headline that `stored` gave; one of plain values stays as it is.

    Raises:
        TypeError: a mapping in it is no measurement.
    """
    return {
        key: _restored(value) if isinstance(value, Mapping) else value
        for key, value in kept.items()
    }


def _stored(value: str | float | int | Measurement | None) -> Any:  # noqa: ANN401  (JSON)
    if not isinstance(value, Measurement):
        return _finite(value)
    known = {name: it for name, it in asdict(value).items() if it not in {None, ""}}
    return {name: _finite(it) for name, it in known.items()}


def _finite(value: Any) -> Any:  # noqa: ANN401  (JSON has no word for NaN)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _restored(kept: Mapping[str, Any]) -> Measurement:
    value = math.nan if kept.get("value") is None else kept["value"]
    return Measurement(**{**kept, "value": value})
