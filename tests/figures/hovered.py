"""What the pointer shows, from template and data as plotly puts them together."""

import re


def texts(trace):
    """The text of each point of a trace, `%{x}` and `%{y}` left as they are."""
    data = trace.get("customdata")
    if data is None:
        return [trace["hovertemplate"]] * len(trace["x"])
    return [said(trace, entry) for entry in data]


def cell(trace, row, column):
    """The text of a cell of a heat map."""
    data = trace.get("customdata")
    return said(trace, None if data is None else data[row][column])


def said(trace, entry):
    def fill(match):
        index = match.group(1)
        return entry if index is None else entry[int(index)]

    return re.sub(r"%\{customdata(?:\[(\d+)\])?\}", fill, trace["hovertemplate"])
