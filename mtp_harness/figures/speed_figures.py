"""Decoding: figure S10, tables S2 and S3, and what only we show of acceptance and speed."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.bars import Groups
from mtp_harness.figures.figure import Figure, Withheld
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.style import GREY, Style
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results.result_file import ResultFile
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
    lengths = [set(own) for _, own in rows.groupby("label")["prompt_tokens"]]
    shared = set.intersection(*lengths) if lengths else set()
    chosen = PROMPT if PROMPT in shared else max(shared, default=-1)
    rows = rows[rows["prompt_tokens"] == chosen].reset_index(drop=True)
    new = [_new_tokens(results.files[run]) for run in rows["run"]]
    return rows.assign(new_tokens=pd.array(new, dtype="Int64"))


def _new_tokens(file: ResultFile) -> int | None:
    sets = (file.mtp.get("documents") or {}).get("mtp_speed") or {}
    lengths = {about.get("new_tokens") for about in sets.values()}
    (length,) = lengths if len(lengths) == 1 else (None,)
    return length if type(length) is int else None


def by_batch(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 at the same batch size, and latency as its inverse."""
    rows = speedups(results)
    latency = rows.assign(
        metric=pd.array([LATENCY] * len(rows), dtype="string"),
        value=1 / rows["value"],
        low=1 / rows["high"],
        high=1 / rows["low"],
    )
    return pd.concat([rows, latency], ignore_index=True)


def largest_batch(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the largest batch that all models have."""
    batches = [set(own) for _, own in rows.groupby("label")["batch"]]
    largest = max(set.intersection(*batches), default=-1) if batches else -1
    return rows[rows["batch"] == largest].reset_index(drop=True)


def by_size(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 by model size, at the largest batch that all models have.

    Raises:
        Withheld: All models are of one size.
    """
    rows = largest_batch(speedups(results))
    if len(rows) and rows["parameters"].dropna().map(rounded).nunique() < 2:
        named = words.listed(list(dict.fromkeys(rows["label"])))
        raise Withheld(f"{named} has one size, expected two or more (fig_s10 shows its speed)")
    return rows


def against_the_limit(results: Results) -> pd.DataFrame:
    """Return tokens per second, and what reading all weights and caches alone would allow.

    The n = 1 baseline that the run timed in turn is a series of its own.
    """
    rows = table(results, "mtp_speed", "by_cell", "tokens_per_second")
    share = table(results, "mtp_speed", "by_cell", "bandwidth_share")
    place = ["run", "baseline", "batch", "prompt_tokens", "k"]  # a run is on one machine
    joined = rows.merge(share[[*place, "value"]], on=place, suffixes=("", "_share"))
    limit = joined.assign(
        metric=pd.array(["bandwidth limit"] * len(joined), dtype="string"),
        value=joined["value"] / joined["value_share"],
        low=pd.NA,
        high=pd.NA,
    ).astype({"low": "Float64", "high": "Float64"})
    return pd.concat([rows, limit.drop(columns="value_share")], ignore_index=True)


class AgainstLimit(Lines):
    """Tokens per second by batch size; dotted and grey what the memory would allow."""

    def __call__(self, canvas: Canvas, shown: pd.DataFrame, style: Style) -> None:
        """Draw the table."""
        is_limit = shown["metric"] == "bandwidth limit"
        measured, limit = shown[~is_limit], shown[is_limit]
        super().__call__(canvas, measured, style)
        titles = {
            words.entry("label", label) + ", " + words.entry("prompt_tokens", tokens): rows
            for (label, tokens), rows in limit.groupby(["label", "prompt_tokens"])
        }
        for axes in canvas.axes:
            rows = limit if len(titles) == 1 else titles.get(axes.get_title(), limit.iloc[:0])
            for (k, *_), line in rows.groupby(["k", "run", "baseline"], dropna=False):
                line = line.sort_values("batch")
                xs, ys = line["batch"].astype(float), line["value"].astype(float)
                axes.plot(
                    xs, ys, color=style.colour(int(k)), linewidth=1.0, linestyle=":", alpha=0.75
                )
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
    forwards = forwards.assign(protocol=pd.array([WHOLE_PROMPTS] * len(forwards), dtype="string"))
    timed = largest_batch(speedups(results))
    timed = timed.assign(category=pd.array(["code"] * len(timed), dtype="string"))
    both = pd.concat([timed, forwards], ignore_index=True)
    several = both.groupby("label")["hardware"].transform("nunique") > 1
    named = both["label"] + ", " + both["hardware"]
    both = both.assign(label=both["label"].where(~several, named))
    return both[both["n"] > 1].reset_index(drop=True)


def of_bytes_on_code(results: Results) -> pd.DataFrame:
    """Return the same on code, of models that count in bytes as far as their runs say."""
    rows = decoding(results)
    vocabularies = [results.files[run].mtp.get("vocab_size") or 0 for run in rows["run"]]
    of_bytes = pd.Series(vocabularies, index=rows.index, dtype="Int64") <= MOST_BYTES
    return rows[of_bytes & (rows["category"] == "code")].reset_index(drop=True)


def acceptance(results: Results) -> pd.DataFrame:
    """Return the share of steps by verified drafts, decoding with all heads."""
    rows = table(results, "mtp_speculative", "histogram", "steps")
    if rows.empty:
        values = results.values
        rows = values[(values["table"] == "totals") & (values["metric"] == "steps")]
        rows = rows.assign(category=rows["task"]).reset_index(drop=True)
    rows = rows[(rows["k"] == rows["n"]) & (rows["n"] > 1)]
    total = rows.groupby(["run", "category"], dropna=False)["value"].transform("sum")
    shares = rows.assign(
        metric=pd.array(["share of steps"] * len(rows), dtype="string"),
        value=rows["value"] / total,
        count=total.round().astype("Int64"),
    )
    return shares.reset_index(drop=True)


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
            ylabel="",
            size=(2.9, 2.26),
        ),
        SPEED,
        ("fig_s10",),
    ),
    Figure(
        "fig_speed_by_size",
        "Throughput of k heads over k = 1 by model size, at the largest batch of all models, with "
        "prompts as in figure S10.",
        by_size,
        Lines(
            "parameters", colour="k", told=("hardware",), log_x=True, ylabel="relative throughput"
        ),
        f"{SPEED} for models of several sizes",
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
            ylabel="tokens per second",
        ),
        SPEED,
    ),
    Figure(
        "fig_acceptance",
        "Drafts verified in a step, decoding with all heads.",
        acceptance,
        Groups(
            "n_verified",
            columns="category",
            ylabel="steps (%)",
            xlabel="verified drafts in a step",
        ),
        SPECULATIVE,
        least=2,
    ),
    Figure(
        "table_s2",
        "Self-speculative decoding: speed-up over k = 1 and tokens per forward, by heads used, k.",
        decoding,
        TextTable(
            ("label", "n", "k"),
            ("category", "metric"),
            lambda value: f"{value:.2f}",
            order=("wikipedia", "books", "code"),
        ),
        DECODING,
        ("table_s2",),
        protocols=(CUT_CODE, "continues text that was held out, without stop strings"),
    ),
    Figure(
        "table_s3",
        "Self-speculative decoding of byte-level models on code: speed-up over k = 1 and tokens "
        "per forward, by heads used, k.",
        of_bytes_on_code,
        TextTable(("k",), ("label", "n", "metric"), lambda value: f"{value:.2f}"),
        DECODING,
        ("table_s3",),
        protocols=(CUT_CODE, "continues code that was held out, without stop strings"),
    ),
)
