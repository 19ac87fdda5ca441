"""The series of a table: rows of one line or one group of bars, and their style.

A series never mixes a run with the paper, nor measured acceptance with forced or unverified: these
are always separate.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from mtp_harness.figures import words
from mtp_harness.figures.style import DASHES, MARKERS, PAPER_ALPHA, Style
from mtp_harness.results.result_file import LOSSY
from mtp_harness.results.sizes import rounded

Entry = tuple[Any, ...]


class Series(NamedTuple):
    """One line: its legend, its rows, and its style."""

    label: str
    rows: pd.DataFrame
    colour: str
    dashes: Any
    marker: str
    alpha: float
    width: float
    from_paper: bool


def is_paper(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows are the paper's."""
    return rows["source"] != "run"


def is_mixed(shown: pd.DataFrame) -> bool:
    """Return whether runs and the paper are in one figure."""
    return bool(is_paper(shown).nunique() > 1)


def with_paper_named(shown: pd.DataFrame) -> pd.DataFrame:
    """Return the table with the paper's labels marked, if it also has runs."""
    if not is_mixed(shown):
        return shown
    marked = shown["label"] + " (paper)"
    return shown.assign(label=shown["label"].where(~is_paper(shown), marked))


def entries(shown: pd.DataFrame, names: Sequence[str]) -> list[Entry]:
    """Return the entries of some columns in each row, None if missing."""
    return [known(row) for row in shown[list(names)].to_numpy(dtype=object)]


def known(row: Iterable[Any]) -> Entry:
    """Return entries with None for missing ones, so that they are equal to themselves."""
    return tuple(None if pd.isna(entry) else entry for entry in row)


def refuse_doubled(shown: pd.DataFrame, place: Sequence[str]) -> None:
    """Refuse two numbers at one place of a table, where one would hide the other.

    `place` are the columns that together identify a place.

    Raises:
        ValueError: There are such numbers.
    """
    doubled = shown[shown.duplicated(list(place), keep=False)]
    for _, rows in doubled.groupby(list(place), dropna=False, sort=False):
        files = " and ".join(dict.fromkeys(map(str, rows["file"])))
        raise ValueError(
            f"{rows['label'].iloc[0]} has two values of {rows['metric'].iloc[0]} for one place "
            f"({files}), expected one: leave one run out, or give them labels (--model_args "
            "label=…)"
        )


def series_of(
    shown: pd.DataFrame,
    colour: str,
    told: Sequence[str],
    style: Style,
    dashed: str | None = None,
    own_panels: bool = False,
) -> Iterator[Series]:
    """Yield the series of a figure, in a fixed order.

    Args:
        shown: Everything that the figure shows.
        colour: Column that sets the colour; n, k and offset set the dashes, too.
        told: Further columns that separate series; those that differ are in the legend.
        style: Palette.
        dashed: Column that sets dashes and markers instead, the largest entry solid.
        own_panels: Whether the paper's numbers have their own panels, and so need no other style.
    """
    frame, mixed = shown.assign(from_paper=is_paper(shown)), is_mixed(shown) and not own_panels
    keys = ["from_paper", "acceptance", colour, *told]
    places: dict[tuple[bool, Any], int] = {}
    order = list(dict.fromkeys(frame[colour].dropna().sort_values()))
    lines = list(dict.fromkeys(frame[dashed].dropna().sort_values())) if dashed else []
    for key, rows in sorted(frame.groupby(keys, dropna=False), key=_by_size):
        from_paper, acceptance, value, *others = key
        place = places.setdefault((from_paper, value), 0)
        places[from_paper, value] += 1
        own = frame[frame["from_paper"] == from_paper]
        parts = [words.entry(colour, value)] if len(order) > 1 or not told else []
        parts += [
            words.entry(name, other)
            for name, other in zip(told, others, strict=True)
            if own[name].nunique(dropna=False) > 1 or (mixed and name == "label")
        ]
        parts += [LOSSY[acceptance]] if acceptance in LOSSY else []
        parts += ["paper"] if mixed and from_paper else []
        rank = order.index(value) if value in order else 0
        below = len(lines) - 1 - lines.index(rows[dashed].iloc[0]) if lines else 0
        shade, dashes = style.others[rank % len(style.others)], _BY_RANK[rank % 4]
        if colour in ("n", "k", "offset") and not pd.isna(value):
            shade, dashes = style.colour(int(value)), DASHES.get(int(value), "-")
        yield Series(
            label=", ".join(dict.fromkeys(filter(None, parts))) or str(rows["label"].iloc[0]),
            rows=rows,
            colour=_shade(shade, 0 if dashed else place),
            dashes=_BELOW[below % 4] if dashed else dashes,
            marker=("." if below else "x")
            if from_paper and not own_panels
            else MARKERS[place % len(MARKERS)],
            alpha=PAPER_ALPHA if mixed and from_paper else 1.0,
            width=0.9 if mixed and from_paper else 1.3,
            from_paper=bool(from_paper),
        )


_BY_RANK = ("-", DASHES[2], DASHES[4], DASHES[3])
_BELOW = ("-", DASHES[4], DASHES[2], DASHES[3])


def _by_size(group: tuple[Entry, pd.DataFrame]) -> list[tuple[bool, Any]]:
    """Sort by size before name, and a model without a `baseline` before its baselines."""
    from_paper, acceptance, colour, *others = (
        (False, "") if pd.isna(entry) else (True, entry) for entry in group[0]
    )
    size = group[1]["parameters"].min()
    of_size = (False, 0.0) if pd.isna(size) else (True, rounded(size))
    return [from_paper, acceptance, colour, of_size, *others]


def _shade(colour: str, place: int) -> str:
    """Return the colour of the place-th series of one n: unchanged, darker, paler, darker still."""
    mixed_with, share = ((0.0, 0.0), (0.0, 0.38), (1.0, 0.4), (0.0, 0.6))[place % 4]
    red, green, blue = ((1 - share) * one + share * mixed_with for one in to_rgb(colour))
    return str(to_hex((red, green, blue)))
