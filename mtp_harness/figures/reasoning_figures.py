"""Induction, arithmetic and GSM8K, as in the paper."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mtp_harness.figures import words
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import Select, put, with_most_heads
from mtp_harness.figures.style import GREY
from mtp_harness.results.tidy import Results, table

INDUCTION = "`lm_eval --model mtp --tasks mtp_induction -o RESULTS`"
ARITHMETIC = "`lm_eval --model mtp --tasks mtp_arithmetic -o RESULTS`"
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
EXPRESSIONS = ("expressions as this package writes them", "does not say how it writes them")
TWO_TOKENS = "names of two tokens"
"""The paper's names: its models' vocabulary was made for them."""

IN_DOMAIN = 5
"""Most operations in training; more are out of domain."""


def induction(results: Results) -> pd.DataFrame:
    """Return how often head 1 recalls a name that it has read before.

    `protocol` says how many tokens or bytes the names have: byte-level models have none of two.
    """
    rows = table(results, "mtp_induction", "by_data_set", "accuracy")
    rows = rows[rows["offset"].fillna(1) == 1]
    lengths = table(results, "mtp_induction", "by_data_set", "name_tokens")
    by_place = lengths.groupby(["run", "data_set"])["value"].first()
    places = zip(rows["run"], rows["data_set"], strict=True)
    return put(rows, protocol=[_names(by_place.get(place)) for place in places])


def _names(length: float | None) -> str:
    if length is None:
        return "names of unknown length"
    return TWO_TOKENS if length == 2 else f"names of {length:g} bytes"


def stories(results: Results) -> pd.DataFrame:
    """Return the same on stories."""
    rows = induction(results)
    return rows[rows["data_set"] == "stories"]


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Put names of different lengths into separate panels: their recall is not comparable."""
    asked = rows["protocol"].fillna(TWO_TOKENS)
    if asked.nunique() < 2:
        return rows
    own = rows["data_set"].map(lambda name: words.entry("data_set", name))
    return put(rows, data_set=own + ", " + asked)


def arithmetic(results: Results, pause: bool) -> pd.DataFrame:
    """Return accuracy by number of operations, with or without pause tokens."""
    rows = table(results, "mtp_arithmetic", "by_operations", "accuracy")
    return rows[(rows["pause_tokens"].fillna(0) > 0) == pause]


def domains(axes: Axes) -> None:
    """Mark where operations exceed those in training."""
    axes.axvline(IN_DOMAIN + 0.5, color=GREY, linewidth=0.7, linestyle=":")
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 5.5, "color": GREY}
    for middle, text in ((3, "in-domain"), (8, "out-of-domain")):
        axes.text(middle, 1.0, text, transform=axes.get_xaxis_transform(), **look)


def gsm8k(results: Results) -> pd.DataFrame:
    """Return pass@k on GSM8K by temperature."""
    values = results.values
    sampled = (values["temperature"] > 0) & values["at"].notna()
    same = ["label", "n", "train_tokens", "train_seed", "metric", "temperature", "n_samples"]
    return with_most_heads(values[(values["task"] == "gsm8k_mtp") & sampled], same)


def _pauses(entry: Any) -> str:
    letter = {5: "(a) ", 10: "(b) "}.get(entry)
    return f"{letter}{entry} pause tokens" if letter else str(entry)


def _of_names(
    name: str, caption: str, select: Select, paper: tuple[str, ...] = (), **look: Any
) -> Figure:
    shared: dict[str, Any] = {
        "log_x": True,
        "ticks": SIZES,
        "percent": True,
        "ylabel": "accuracy (%)",
        "share_x": "all",
        "share_y": "all",
        "wrap": 2,
        "size": (2.6, 2.0),
    }
    lines = Lines("parameters", told=(), columns="data_set", **shared, **look)
    protocols = ("", TWO_TOKENS)
    return Figure(
        name, caption, select, lines, INDUCTION, paper, together=apart, protocols=protocols
    )


def _of_operations(name: str, caption: str, pause: bool = False, **look: Any) -> Figure:
    lines = Lines("operations", percent=True, **look)
    command = ARITHMETIC + (""" with `--metadata '{"pause_tokens": 5}'`""" if pause else "")
    select = partial(arithmetic, pause=pause)
    return Figure(name, caption, select, lines, command, protocols=EXPRESSIONS)


FIGURES = (
    _of_names(
        "fig_7",
        "Induction on children stories, by model size. How often head 1 completes a name that it "
        "read before: the paper's second token of two, or the bytes after a name's first.",
        stories,
        ylim=(0.0, 52.0),
    ),
    _of_names(
        "fig_s14",
        "Induction by model size, on several kinds of text. How often head 1 completes a name that "
        "it read before: the paper's second token of two, or the bytes after a name's first.",
        induction,
        ("fig_7", "fig_s14"),
        ylim=(0.0, 100.0),
        order=("stories", "books and stories"),
    ),
    _of_operations(
        "fig_8",
        "Polynomial arithmetic, by number of operations. Share of right answers; more than five "
        "operations did not occur in training (out-of-domain).",
        size=(3.1, 2.5),
        decorate=domains,
    ),
    _of_operations(
        "fig_s15",
        "Polynomial arithmetic with pause tokens before the answer. Share of right answers.",
        pause=True,
        share_y="all",
        columns="pause_tokens",
        size=(3.1, 2.5),
        panel_words=_pauses,
    ),
    _of_operations(
        "fig_s16",
        "Polynomial arithmetic, by number of operations and model size. Share of right answers.",
        told=(),
        columns="parameters",
        ylim=(0.0, 100.0),
        size=(2.6, 2.3),
        decorate=domains,
    ),
    Figure(
        "fig_s13",
        "GSM8K by temperature. Share of problems solved (8-shot, on the final answer) by one of 1, "
        "10 or 100 answers; columns: tokens of training.",
        gsm8k,
        Lines(
            "temperature",
            rows="metric",
            columns="train_tokens",
            order=("pass@1", "pass@10", "pass@100"),
            percent=True,
            ylabel="%",
            solid=True,
            size=(2.6, 1.7),
        ),
        "`lm_eval --model mtp --tasks mtp_paper_gsm8k -o RESULTS`",
    ),
)
