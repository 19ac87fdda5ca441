"""Tables as text, for the leaderboard and the commands that print scores."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from mtp_harness.scoring.bootstrap import Estimate

Rows = list[list[str]]

WIDTH = 100

_LATEX = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
)


def spanned(one: Estimate, write: Callable[[float], str]) -> str:
    """Return `value [low, high]`, each written by a function."""
    return f"{write(one.value)} [{write(one.low)}, {write(one.high)}]"


def aligned(rows: Rows, gap: str = "  ", least: Sequence[int] = ()) -> str:
    """Return rows as lines, each column as wide as its longest entry, or as `least` says."""
    longest = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = list(map(max, longest, least)) if least else longest
    lines = (gap.join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def pipes(rows: Rows) -> str:
    """Return rows as a table of Markdown, the first one its heading."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    head, *lines = [f"| {' | '.join(row)} |" for row in escaped]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines])


def tabular(rows: Rows, spec: str) -> str:
    """Return rows as a LaTeX `tabular` (booktabs), the first one its heading."""
    # A line that begins with [ would be the optional argument of the \\ before it.
    lines = [" & ".join(f"{{}}{cell.translate(_LATEX)}" for cell in row) + r" \\" for row in rows]
    body = "\n".join(lines[1:])
    return (
        f"\\begin{{tabular}}{{{spec}}}\n\\toprule\n{lines[0]}\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}"
    )


def wrapped(line: str) -> str:
    """Return a text in lines at most `WIDTH` wide, continuation lines indented."""
    return textwrap.fill(line, WIDTH, subsequent_indent="  ")


def beside(*columns: tuple[str, int]) -> Iterator[str]:
    """Yield the lines of texts side by side, each wrapped to its width."""
    lines = [textwrap.wrap(text, width) for text, width in columns]
    for cells in zip_longest(*lines, fillvalue=""):
        padded = (cell.ljust(width) for cell, (_, width) in zip(cells, columns, strict=True))
        yield " ".join(padded).rstrip()
