"""Files of a checkpoint that are not as they should be, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from olmo_stages.errors import ModelError

_LONGEST = 200


@contextmanager
def malformed(where: str, remedy: str = "") -> Iterator[None]:
    """Turn what a library, or a look into it, says of a malformed file into one line.

    Args:
        where: the stage or file.
        remedy: what to do about it.

    Raises:
        ModelError: names the place and the reason.
    """
    kinds = (TypeError, ValueError, KeyError, AttributeError, AssertionError, ZeroDivisionError)
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        from huggingface_hub.errors import StrictDataclassError  # late: it imports an HTTP client

        if not isinstance(error, (*kinds, StrictDataclassError)):
            raise
        words = " ".join(str(error).split()) or type(error).__name__
        reason = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        advice = remedy or "compare config.json with the released one, or save the model again"
        raise ModelError(f"{where} cannot be used: {reason}; {advice}") from error
