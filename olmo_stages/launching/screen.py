"""What a launching process says while it runs."""

import sys


def say(text: str) -> None:
    """Print a line on standard error."""
    print(text, file=sys.stderr)  # noqa: T201  (no console is set up here)
