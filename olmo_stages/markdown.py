"""Text of data sets, models and errors as Markdown that shows it as it is."""

import re

# Entities rather than backslashes: they also keep formulas, mentions and emoji codes, which are not
# part of Markdown proper, from being read as such. An underscore within a word marks nothing.
_SPECIAL = re.compile(r"[\\`*{}\[\]<>|&$#~!:@^\"]|(?<![^\W_])_|_(?![^\W_])")
_AT_START = re.compile(r"^(\d{1,9})([.)])(?=\s|$)|^([-+=])")


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: no link, image, tag or formula."""
    line = " ".join("".join(it if it.isprintable() else " " for it in text).split())
    plain = _SPECIAL.sub(lambda it: _entity(it[0]), line)
    return _AT_START.sub(lambda it: (it[1] or "") + _entity(it[2] or it[3]), plain)


def _entity(character: str) -> str:
    return f"&#{ord(character)};"
