"""Where drafts fail, how far to trust their confidence, and what a threshold trades."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import put
from mtp_harness.figures.series import Entry
from mtp_harness.figures.style import GREY
from mtp_harness.results.tidy import Results, table

DRAFTS = "`lm_eval --model mtp --tasks mtp_drafts -o RESULTS`"

FEWEST = 30
"""A share of fewer drafts than this is not shown."""

ACCEPTED, REJECTIONS = "accept_rate_cond", "share_of_rejections"
PREFIX = "accept_rate_prefix"
PER_FORWARD = ("tokens_per_forward", "drafts_per_forward")


def failures(results: Results) -> pd.DataFrame:
    """Return acceptance by head and where rejections fall, by every group that is measured.

    `part` says what groups them, `class` is the group.
    """
    parts = []
    for name, words in (("class", _class), ("entropy", _entropy), ("since", _since)):
        rows = table(results, "mtp_drafts", f"by_{name}", ACCEPTED, REJECTIONS)
        last = rows["since"] == rows.groupby(["run", "offset"])["since"].transform("max")
        named = [words(row) for _, row in rows.assign(last=last.fillna(False)).iterrows()]
        if named:
            parts.append(put(rows, part=name, **{"class": named}))
    if not parts:
        return table(results, "mtp_drafts", "by_class")
    rows = pd.concat(parts, ignore_index=True)
    accepted = rows[(rows["metric"] == ACCEPTED) & (rows["count"] >= FEWEST).fillna(False)]
    place = ["run", "category", "part", "class"]
    shares = rows[(rows["metric"] == REJECTIONS) & rows["offset"].isna()]
    shares = shares.merge(accepted[place].drop_duplicates(), on=place)
    both = pd.concat([accepted, shares], ignore_index=True)
    column = both["offset"].fillna(0).where(both["metric"] == ACCEPTED, 99)  # all heads first
    order = both.assign(column=column).sort_values(["category", "column"], kind="stable")
    return order.drop(columns="column")


def _class(row: "pd.Series[str]") -> str:
    return str(row["class"])


def _entropy(row: "pd.Series[float]") -> str:
    high = row["entropy_to"]
    return f"{row['entropy_from']:g} " + ("bits on" if pd.isna(high) else f"to {high:g} bits")


def _since(row: "pd.Series[int]") -> str:
    """Return the places that the same step drafts for, by tokens since the rejection."""
    first = row["since"] - (row["offset"] - 2)
    places = f"{first} or more" if row["last"] else f"{first} to {first + row['n'] - 2}"
    return f"{places} since rejection"


def _group(entry: Entry) -> str:
    part, name = entry
    return f"entropy {name}" if part == "entropy" else str(name)


def _column(entry: Entry) -> str:
    metric, offset = entry
    if metric == REJECTIONS:
        return "of all\nrejections"
    return "all" if offset is None else f"head {offset}"


def calibration(results: Results) -> pd.DataFrame:
    """Return acceptance by the mean confidence of a bin, which is a column of its own."""
    rows = table(results, "mtp_drafts", "calibration", ACCEPTED, PREFIX)
    said = table(results, "mtp_drafts", "calibration", "confidence")
    place = ["run", "category", "offset", "bin"]
    means = said[[*place, "value"]].rename(columns={"value": "confidence"})
    rows = rows.merge(means, on=place)
    return rows[(rows["count"] >= FEWEST).fillna(False)]


def diagonal(axes: Axes) -> None:
    """Draw where a confidence is what happens."""
    axes.plot([0, 1], [0, 100], color=GREY, linewidth=0.7, linestyle=":")


def thresholds(results: Results) -> pd.DataFrame:
    """Return tokens and drafts per forward by threshold."""
    return table(results, "mtp_drafts", "by_threshold", *PER_FORWARD)


def _by_chance(x: str, colour: str, metrics: tuple[str, str], **look: Any) -> Lines:
    """Return two panels of lines over a probability, a row for each category."""
    look |= {"rows": "category", "columns": "metric", "order": metrics, "size": (2.2, 1.7)}
    return Lines(x, colour, ticks=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0), share_x="all", **look)


FIGURES = (
    Figure(
        "fig_drafts_fail",
        "Where drafts fail: drafts accepted after accepted ones (%). Greedy decoding with all "
        "heads. Rows: the class of the text's token; head 1's entropy when it chose that token; "
        "and the number of tokens since the last rejected draft was replaced (0: the next token). "
        "On the right: share of all rejections. A number is shown for "
        f"{FEWEST} drafts or more.",
        failures,
        Heat(
            ("part", "class"),
            ("metric", "offset"),
            ("category", "label"),
            _group,
            _column,
            form="{:.0f}",
            field=(0.4, 0.17),
            plain=(REJECTIONS,),
        ),
        DRAFTS,
    ),
    Figure(
        "fig_calibration",
        "How far to trust a draft's confidence. Share of drafts that are accepted, by the "
        "probability that their head gives them: of drafts after accepted ones, and of all drafts. "
        f"Drafts after every token of greedy answers; a point has {FEWEST} drafts or more. Dotted "
        "line: the share equals the confidence.",
        calibration,
        _by_chance(
            "confidence",
            "offset",
            (ACCEPTED, PREFIX),
            ylabel="%",
            share_y="all",
            decorate=diagonal,
        ),
        DRAFTS,
    ),
    Figure(
        "fig_threshold",
        "What a draft threshold trades. Tokens and drafts per forward if drafting stops at the "
        "first head whose probability for its draft is below the threshold; the text is the same.",
        thresholds,
        _by_chance("threshold", "k", PER_FORWARD, ylabel="per forward", share_y="col"),
        DRAFTS,
    ),
)
