"""Induction, arithmetic and GSM8K as in the paper; heads, positions and loss as only we show."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.induction import TWO_TOKENS, apart, induction, stories
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.style import GREY, Style
from mtp_harness.results.tidy import Results, table

INDUCTION = "`lm_eval --model mtp --tasks mtp_induction -o RESULTS`"
ARITHMETIC = "`lm_eval --model mtp --tasks mtp_arithmetic -o RESULTS`"
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
FEWEST = 100
"""A share of fewer tokens than this is not shown."""

EXPRESSIONS = ("expressions as this package writes them", "does not say how it writes them")

IN_DOMAIN = 5
"""Operations in training; more are out of domain."""


def arithmetic(results: Results) -> pd.DataFrame:
    """Return accuracy by number of operations."""
    return table(results, "mtp_arithmetic", "by_operations", "accuracy")


def without_pause(results: Results) -> pd.DataFrame:
    """Return the same without pause tokens."""
    rows = arithmetic(results)
    return rows[rows["pause_tokens"].fillna(0) == 0].reset_index(drop=True)


def with_pause(results: Results) -> pd.DataFrame:
    """Return the same with pause tokens."""
    rows = arithmetic(results)
    return rows[rows["pause_tokens"].fillna(0) > 0].reset_index(drop=True)


def domains(axes: Axes, panel: pd.DataFrame) -> None:
    """Mark where operations leave the domain of training."""
    axes.axvline(IN_DOMAIN + 0.5, color=GREY, linewidth=0.7, linestyle=":")
    for middle, text in ((3, "in-domain"), (8, "out-of-domain")):
        axes.text(
            middle,
            1.0,
            text,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=5.5,
            color=GREY,
        )


def gsm8k(results: Results) -> pd.DataFrame:
    """Return pass@k on GSM8K by temperature."""
    values = results.values
    rows = values[
        (values["task"] == "gsm8k_mtp") & values["at"].notna() & (values["temperature"] > 0)
    ]
    rows = rows.sort_values("k", kind="stable")
    same = ["label", "n", "train_tokens", "train_seed", "metric", "temperature", "n_samples"]
    return rows.drop_duplicates(same, keep="last").sort_index().reset_index(drop=True)


def heads(results: Results) -> pd.DataFrame:
    """Return what each head knows of real text."""
    shown = ("accuracy", "bits_per_byte", "tf_agree", "confidence")
    rows = table(results, "mtp_heads", "by_offset", *shown)
    return rows[rows["offset"].notna()].reset_index(drop=True)


def positions(results: Results) -> pd.DataFrame:
    """Return each head's accuracy by position in the window and by class of token."""
    buckets = table(results, "mtp_positions", "by_bucket", "accuracy")
    classes = table(results, "mtp_positions", "by_class", "accuracy")
    if "part" in classes and (classes["part"] == "all").any():
        classes = classes[classes["part"] == "all"]
    rows = pd.concat([buckets, classes], ignore_index=True)
    return rows[(rows["count"] >= FEWEST).fillna(True)].reset_index(drop=True)


class Positions:
    """A map of offsets and positions, and one of offsets and classes, for each model and text."""

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        where = [
            str(row["class"])
            + ("" if pd.isna(row["part"]) or row["part"] == "all" else f", {row['part']}")
            if pd.isna(row["position_from"])
            else f"tokens {row['position_from']}–{row['position_to']}"
            for _, row in shown.iterrows()
        ]
        named = shown.assign(where=where)
        Heat(
            ("where",),
            ("offset",),
            panels=("label", "data_set"),
            form="{:.0f}",
            row_words=lambda row: str(row[0]),
            column_words=lambda column: str(column[0]),
            xlabel="offset",
            field=(0.34, 0.17),
        )(canvas, named, style)
        canvas.suptitle(f"accuracy (%), of at least {FEWEST} tokens", fontsize=7.5)


def loss(results: Results) -> pd.DataFrame:
    """Return cross-entropy by position, one line a head."""
    return table(results, "mtp_perplexity", "by_position", "cross_entropy")


def _pauses(entry: Any) -> str:
    return (
        f"({'a' if entry == 5 else 'b'}) {entry} pause tokens" if entry in (5, 10) else str(entry)
    )


FIGURES = (
    Figure(
        "fig_7",
        "Induction on children stories by model size: accuracy on the second token of a name that "
        "was read before.",
        stories,
        Lines(
            "parameters",
            told=(),
            columns="data_set",
            log_x=True,
            ticks=SIZES,
            ylabel="accuracy",
            ylim=(0.0, 0.52),
            size=(2.9, 2.0),
        ),
        INDUCTION,
        ("fig_7",),
        together=apart,
        protocols=("", TWO_TOKENS),
    ),
    Figure(
        "fig_s14",
        "Induction by model size, on data of several qualities.",
        induction,
        Lines(
            "parameters",
            told=(),
            columns="data_set",
            order=("stories", "books and stories"),
            log_x=True,
            ticks=SIZES,
            ylabel="accuracy",
            size=(2.9, 2.0),
        ),
        INDUCTION,
        ("fig_7", "fig_s14"),
        together=apart,
        protocols=("", TWO_TOKENS),
    ),
    Figure(
        "fig_8",
        "Polynomial arithmetic by number of operations.",
        without_pause,
        Lines("operations", percent=True, size=(3.1, 2.5), ylabel="accuracy (%)", decorate=domains),
        ARITHMETIC,
        ("fig_8",),
        protocols=EXPRESSIONS,
    ),
    Figure(
        "fig_s15",
        "Polynomial arithmetic with pause tokens before the answer.",
        with_pause,
        Lines(
            "operations",
            columns="pause_tokens",
            percent=True,
            size=(3.1, 2.5),
            ylabel="accuracy (%)",
            panel_words=_pauses,
        ),
        f"{ARITHMETIC} with `--metadata '{{\"pause_tokens\": 5}}'`",
        ("fig_s15",),
        protocols=EXPRESSIONS,
    ),
    Figure(
        "fig_s16",
        "Polynomial arithmetic by number of operations and by model size.",
        without_pause,
        Lines(
            "operations",
            told=("parameters",),
            dashed="parameters",
            percent=True,
            size=(4.4, 3.2),
            ylabel="accuracy (%)",
            decorate=domains,
        ),
        ARITHMETIC,
        ("fig_s16",),
        protocols=EXPRESSIONS,
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
        ("fig_s13",),
    ),
    Figure(
        "fig_heads",
        "What each head knows of real text, by offset: accuracy, loss, confidence, and how often "
        "it says what head 1 says later.",
        heads,
        Lines(
            "offset",
            colour="n",
            rows="data_set",
            columns="metric",
            order=("accuracy", "bits_per_byte", "confidence", "tf_agree"),
            size=(1.9, 1.7),
        ),
        "`lm_eval --model mtp --tasks mtp_heads -o RESULTS`",
    ),
    Figure(
        "fig_positions",
        "Accuracy (%) of each head by position in the window and by class of token, of at least "
        f"{FEWEST} tokens each.",
        positions,
        Positions(),
        "`lm_eval --model mtp --tasks mtp_positions -o RESULTS`",
    ),
    Figure(
        "fig_perplexity",
        "Cross-entropy by position in the window, one line a head, 90 % intervals as bands.",
        loss,
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
