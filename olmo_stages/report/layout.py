"""How tables are laid out: plain boxes, whole numbers, and no wider than they must be."""

import math
import string

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

NOTHING = "-"
"""What stands for a value that is undefined."""

_WIDE = 10_000
_PIPED_WIDTH = 110


def new_table(title: str, caption: str) -> Table:
    """Return an empty table; title and caption are shown as they are, an empty one not at all."""
    return Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def needed_width(table: Table) -> int:
    """How many columns a table needs without clipping what must not be broken."""
    console = Console(width=_WIDE)
    return Width.get(console, console.options, table).minimum


def unclipped(table: Table, width: int) -> Table:
    """Make a table wider than the terminal rather than have rich clip its numbers."""
    table.width = needed if (needed := needed_width(table)) > width else None
    return table


def whole(table: Table) -> Table:
    """Let no column that must not be broken be narrower than its longest cell."""
    for column in table.columns:
        if column.no_wrap:
            lines = [
                line for cell in (column.header, *column.cells) for line in str(cell).splitlines()
            ]
            column.min_width = max(map(cell_len, lines), default=0)
    return table


def plain(value: float, digits: str) -> str:
    """Return a number in the format `digits`, or a dash where it is undefined."""
    return format(value, digits) if math.isfinite(value) else NOTHING


def new_console() -> Console:
    """Return a console on standard output, wide enough for a table with intervals."""
    # In a file or a pipe rich assumes 80 columns.
    return Console() if Console().is_terminal else Console(width=_PIPED_WIDTH)


def put_line(console: Console, text: str, style: str = "") -> None:
    """Print what is for copying, as paths and commands are: never wrapped, never coloured."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


def put_text(console: Console, text: str, style: str = "") -> None:
    """Print what is for reading, wrapped at words."""
    console.print(Text(printable(text), style=style))


def printable(text: str) -> str:
    """Return text on one line, without codes that would steer the terminal or turn its writing."""
    return "".join(it if it.isprintable() else _shown(it) for it in text)


def letter(index: int) -> str:
    """Return what stands for a note: a, b, ..., then numbers."""
    letters = string.ascii_lowercase
    return letters[index] if index < len(letters) else str(index + 1)


def _shown(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode()
