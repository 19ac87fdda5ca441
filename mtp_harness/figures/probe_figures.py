"""Induction, arithmetic and GSM8K as in the paper; heads, positions and loss as only we show."""

from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import Select, put, with_most_heads
from mtp_harness.figures.series import Entry
from mtp_harness.figures.style import GREY, Style
from mtp_harness.results.tidy import Results, table

INDUCTION = "`lm_eval --model mtp --tasks mtp_induction -o RESULTS`"
ARITHMETIC = "`lm_eval --model mtp --tasks mtp_arithmetic -o RESULTS`"
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
FEWEST = 100
"""A share of fewer tokens than this is not shown."""

EXPRESSIONS = ("expressions as this package writes them", "does not say how it writes them")

TWO_TOKENS = "names of two tokens"
"""The paper's, for which its models' vocabulary was made."""

HEAD_METRICS = ("accuracy", "accuracy_cond", "bits_per_byte", "confidence", "tf_agree")
"""Of `mtp_heads`, as the figure shows them from left to right."""

IN_DOMAIN = 5
"""Operations in training; more are out of domain."""


def induction(results: Results) -> pd.DataFrame:
    """Return how often head 1 knows a name that it has read before.

    `protocol` says of how many tokens the names are, or bytes: byte models have no names of two.
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
    """Give names of several lengths panels of their own: their recall does not compare."""
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
    """Mark where operations leave the domain of training."""
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


def heads(results: Results) -> pd.DataFrame:
    """Return what each head knows of real text; one module's other reading as a line of its own."""
    again = [f"chained_{name}" for name in ("accuracy", "accuracy_cond")]
    rows = table(results, "mtp_heads", "by_offset", *HEAD_METRICS, *again)
    rows = rows[rows["offset"].notna()]
    reading = rows["reading"].where(~rows["metric"].isin(again), "chained")
    return put(rows, reading=reading, metric=rows["metric"].str.removeprefix("chained_"))


def positions(results: Results) -> pd.DataFrame:
    """Return each head's accuracy by position in the window and by class of token."""
    buckets = table(results, "mtp_positions", "by_bucket", "accuracy")
    classes = table(results, "mtp_positions", "by_class", "accuracy")
    if (classes["part"] == "all").any():
        classes = classes[classes["part"] == "all"]
    rows = pd.concat([buckets, classes])
    return rows[(rows["count"] >= FEWEST).fillna(True)]


def draw_positions(canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
    """Draw maps of offsets and positions or classes, one for each model and text."""
    Heat(
        ("position_from", "position_to", "class", "part"),
        ("offset",),
        ("label", "data_set"),
        _where,
        lambda column: str(column[0]),
        form="{:.0f}",
        xlabel="offset",
        field=(0.34, 0.17),
    )(canvas, shown, style)
    canvas.suptitle(f"accuracy (%), of at least {FEWEST} tokens", fontsize=7.5)


def _where(row: Entry) -> str:
    low, high, of_class, part = row
    if low is not None:
        return f"tokens {low}–{high}"
    return str(of_class) if part in (None, "all") else f"{of_class}, {part}"


def _pauses(entry: Any) -> str:
    letter = {5: "(a) ", 10: "(b) "}.get(entry)
    return f"{letter}{entry} pause tokens" if letter else str(entry)


def _of_names(
    name: str, caption: str, select: Select, paper: tuple[str, ...] = (), **look: Any
) -> Figure:
    shared: dict[str, Any] = {
        "log_x": True,
        "ticks": SIZES,
        "ylabel": "accuracy",
        "size": (2.9, 2.0),
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
        "Induction on children stories by model size: accuracy on the second token of a name that "
        "was read before.",
        stories,
        ylim=(0.0, 0.52),
    ),
    _of_names(
        "fig_s14",
        "Induction by model size, on data of several qualities.",
        induction,
        ("fig_7", "fig_s14"),
        order=("stories", "books and stories"),
    ),
    _of_operations(
        "fig_8",
        "Polynomial arithmetic by number of operations.",
        size=(3.1, 2.5),
        decorate=domains,
    ),
    _of_operations(
        "fig_s15",
        "Polynomial arithmetic with pause tokens before the answer.",
        pause=True,
        columns="pause_tokens",
        size=(3.1, 2.5),
        panel_words=_pauses,
    ),
    _of_operations(
        "fig_s16",
        "Polynomial arithmetic by number of operations and by model size.",
        told=("parameters",),
        dashed="parameters",
        size=(4.4, 3.2),
        decorate=domains,
    ),
    Figure(
        "fig_s13",
        "GSM8K by temperature, 8-shot, on the final answer.",
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
    Figure(
        "fig_heads",
        "What each head knows of real text, by offset: accuracy, of all tokens and where all "
        "earlier drafts are right, loss, confidence, and how often it says what head 1 says later.",
        heads,
        Lines(
            "offset",
            colour="n",
            rows="data_set",
            columns="metric",
            told=("label", "reading"),
            order=HEAD_METRICS,
            size=(1.9, 1.7),
        ),
        "`lm_eval --model mtp --tasks mtp_heads -o RESULTS`",
    ),
    Figure(
        "fig_positions",
        "Accuracy (%) of each head by position in the window and by class of token, of at least "
        f"{FEWEST} tokens each.",
        positions,
        draw_positions,
        "`lm_eval --model mtp --tasks mtp_positions -o RESULTS`",
    ),
    Figure(
        "fig_perplexity",
        "Cross-entropy by position in the window, one line a head, 90 % intervals as bands.",
        lambda results: table(results, "mtp_perplexity", "by_position", "cross_entropy"),
        Lines(
            "position",
            colour="offset",
            told=(),
            rows="data_set",
            columns="label",
            share_y=True,
        ),
        "`lm_eval --model mtp --tasks mtp_perplexity -o RESULTS`",
    ),
)
