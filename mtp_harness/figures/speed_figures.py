"""Decoding: figure S10, tables S2 and S3, and what only we show of acceptance and speed."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.bars import Groups
from mtp_harness.figures.figure import Figure, Withheld
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.reading import new_tokens
from mtp_harness.figures.rows import put, shared, told_apart
from mtp_harness.figures.style import GREY, Style
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results.sizes import rounded
from mtp_harness.results.tidy import Results, table

SPEED = "`lm_eval --model mtp --tasks mtp_speed -o RESULTS`"
DECODING = "`lm_eval --model mtp --tasks mtp_speculative,mtp_speed -o RESULTS`"
CUT_CODE = "continue code of the standard library"
WHOLE_PROMPTS = "decode tokens per forward up to a stop string"
SPECULATIVE = "`lm_eval --model mtp --tasks mtp_speculative -o RESULTS`"
MOST_BATCHES = (1, 8, 16, 24, 32, 40)
MOST_BYTES = 512
"""A vocabulary of bytes and special tokens is not larger."""

LATENCY = "latency over k = 1"


PROMPT = 512
"""Tokens of the paper's prompts."""


def speedups(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 of models with n > 1, with prompts that all have.

    These are of as many tokens as the paper's, or else the longest.
    """
    rows = table(results, "mtp_speed", "by_cell", "speedup")
    rows = rows[rows["baseline"].isna() & (rows["n"] > 1)]
    lengths = shared(rows, "prompt_tokens")
    chosen = PROMPT if PROMPT in lengths else max(lengths, default=-1)
    rows = rows[rows["prompt_tokens"] == chosen]
    asked = [set(new_tokens(results.files[run], "mtp_speed")) for run in rows["run"]]
    return put(rows, new_tokens=[one.pop() if len(one) == 1 else None for one in asked])


def by_batch(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 at the same batch size, and latency as its inverse."""
    rows = speedups(results)
    turned = {"value": 1 / rows["value"], "low": 1 / rows["high"], "high": 1 / rows["low"]}
    return pd.concat([rows, put(rows, metric=LATENCY, **turned)])


def largest_batch(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the largest batch that all models have."""
    return rows[rows["batch"] == max(shared(rows, "batch"), default=-1)]


def by_size(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 by model size, at the largest batch that all models have.

    Raises:
        Withheld: All models are of one size.
    """
    rows = largest_batch(speedups(results))
    if len(rows) and rows["parameters"].dropna().map(rounded).nunique() < 2:
        raise Withheld(
            f"{words.listed(rows['label'])} has one size, expected two or more (fig_s10 shows its "
            "speed)"
        )
    return rows


def against_the_limit(results: Results) -> pd.DataFrame:
    """Return tokens per second, and what reading all weights and caches alone would allow.

    The n = 1 baseline that the run timed in turn is a series of its own.
    """
    rows = table(results, "mtp_speed", "by_cell", "tokens_per_second")
    place = ["run", "baseline", "batch", "prompt_tokens", "k"]  # a run is on one machine
    share = table(results, "mtp_speed", "by_cell", "bandwidth_share")
    joined = rows.merge(share[[*place, "value"]], on=place, suffixes=("", "_share"))
    value = joined["value"] / joined.pop("value_share")
    limit = put(joined, metric="bandwidth limit", value=value, low=pd.NA, high=pd.NA)
    return pd.concat([rows, limit])


class AgainstLimit(Lines):
    """Tokens per second by batch size; dotted and grey what the memory would allow."""

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        is_limit = shown["metric"] == "bandwidth limit"
        limit = shown[is_limit]
        super().__call__(canvas, shown[~is_limit], style)
        titles = {
            self._title(panel): rows for panel, rows in limit.groupby(["label", "prompt_tokens"])
        }
        for axes in canvas.axes:
            rows = limit if len(titles) == 1 else titles.get(axes.get_title(), limit.iloc[:0])
            for (k, *_), line in rows.groupby(["k", "run", "baseline"], dropna=False):
                points = line.sort_values("batch")[["batch", "value"]].astype(float)
                axes.plot(*points.T.to_numpy(), ":", color=style.colour(int(k)), lw=1.0, alpha=0.75)
            if len(rows):
                axes.text(
                    0.02,
                    0.98,
                    "dotted: bandwidth limit",
                    transform=axes.transAxes,
                    va="top",
                    fontsize=5.5,
                    color=GREY,
                )


def decoding(results: Results) -> pd.DataFrame:
    """Return tokens per forward by category and k, and the speed-up on code, as `mtp_speed` times.

    The one time that `mtp_speculative` takes for all prompts of a category makes no speed-up.
    """
    forwards = table(results, "mtp_speculative", "by_k", "tokens_per_forward")
    forwards = put(forwards, protocol=WHOLE_PROMPTS)
    timed = put(largest_batch(speedups(results)), category="code")
    both = told_apart(pd.concat([timed, forwards], ignore_index=True), "hardware")
    return both[both["n"] > 1]


def of_bytes_on_code(results: Results) -> pd.DataFrame:
    """Return the same on code, of models that count in bytes as far as their runs say."""
    rows = decoding(results)
    sizes = [results.files[run].mtp.get("vocab_size") or 0 for run in rows["run"]]
    of_bytes = pd.Series(sizes, rows.index, dtype="Int64") <= MOST_BYTES
    return rows[of_bytes & (rows["category"] == "code")]


def acceptance(results: Results) -> pd.DataFrame:
    """Return the share of steps by verified drafts, decoding with all heads."""
    rows = table(results, "mtp_speculative", "histogram", "steps")
    if rows.empty:
        values = results.values
        rows = values[(values["table"] == "totals") & (values["metric"] == "steps")]
        rows = put(rows, category=rows["task"])
    rows = rows[(rows["k"] == rows["n"]) & (rows["n"] > 1)]
    total = rows.groupby(["run", "category"], dropna=False)["value"].transform("sum")
    return put(rows, metric="share of steps", value=rows["value"] / total, count=total.round())


FIGURES = (
    Figure(
        "fig_s10",
        "Throughput and latency of k heads over k = 1 at the same batch size, with prompts as long "
        "as the paper's, or else the longest of all models.",
        by_batch,
        Lines(
            "batch",
            colour="k",
            told=("label", "hardware"),
            columns="metric",
            order=("speedup", LATENCY),
            ticks=MOST_BATCHES,
            from_zero=True,
            size=(2.9, 2.26),
        ),
        SPEED,
    ),
    Figure(
        "table_s2",
        "Self-speculative decoding: speed-up over k = 1 and tokens per forward, by heads used, k.",
        decoding,
        TextTable(
            ("label", "n", "k"), ("category", "metric"), order=("wikipedia", "books", "code")
        ),
        DECODING,
        protocols=(CUT_CODE, "continues text that was held out, without stop strings"),
    ),
    Figure(
        "table_s3",
        "Self-speculative decoding of byte-level models on code: speed-up over k = 1 and tokens "
        "per forward, by heads used, k.",
        of_bytes_on_code,
        TextTable(("k",), ("label", "n", "metric")),
        DECODING,
        protocols=(CUT_CODE, "continues code that was held out, without stop strings"),
    ),
    Figure(
        "fig_acceptance",
        "Drafts verified in a step, decoding with all heads.",
        acceptance,
        Groups("n_verified", "category", "steps (%)", "verified drafts in a step"),
        SPECULATIVE,
        least=2,
    ),
    Figure(
        "fig_speed",
        "Tokens per second by batch size, and the limit that reading weights and caches at the "
        "card's measured bandwidth sets.",
        against_the_limit,
        AgainstLimit(
            "batch",
            colour="k",
            told=("hardware", "baseline"),
            rows="label",
            columns="prompt_tokens",
            log_x=True,
            log_y=True,
        ),
        SPEED,
    ),
    Figure(
        "fig_speed_by_size",
        "Throughput of k heads over k = 1 by model size, at the largest batch of all models, with "
        "prompts as in figure S10.",
        by_size,
        Lines("parameters", colour="k", told=("hardware",), log_x=True),
        f"{SPEED} for models of several sizes",
    ),
)
