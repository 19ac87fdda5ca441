"""Decoding: figure S10, tables S2 and S3, and figures of acceptance and speed beyond the paper."""

from functools import partial
from itertools import pairwise

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.figures.bars import Groups
from mtp_harness.figures.figure import Figure, Withheld
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.reading import MOST_BYTES, new_tokens
from mtp_harness.figures.rows import put, shared, told_apart
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results import advice
from mtp_harness.results.sizes import same_size
from mtp_harness.results.tidy import Results, table

SPEED = "`lm_eval --model mtp --tasks mtp_speed -o RESULTS`"
DECODING = "`lm_eval --model mtp --tasks mtp_speculative,mtp_speed -o RESULTS`"
CUT_CODE = "continue code of the standard library"
WHOLE_PROMPTS = "decode tokens per forward up to a stop string"
SPECULATIVE = "`lm_eval --model mtp --tasks mtp_speculative -o RESULTS`"
MOST_BATCHES = (1, 8, 16, 24, 32, 40)
CONTEXTS = tuple(2**i for i in range(7, 18))
LATENCY = "latency over k = 1"
LIMIT = "bandwidth limit"
GAIN = "expected tokens per second over k = 1, less 1"
STEP, MEMORY, LENGTH = "one step (ms)", "memory of rows (GB)", "tokens of a step"
FORESEEN = "memory_foreseen"
LONG_CONTEXT = {
    "seconds_per_step": (STEP, 1e3),
    "memory_taken": (MEMORY, 1e-9),
    FORESEEN: (MEMORY, 1e-9),
}
"""Metrics of `mtp_speed` by prompt length: their panel, and its unit."""

PROMPT = 512
"""Length of the paper's prompts, tokens."""


def of_one_length(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with prompts as long as the paper's, or else the longest that all models have."""
    lengths = shared(rows, "prompt_tokens")
    chosen = PROMPT if PROMPT in lengths else max(lengths, default=-1)
    return rows[rows["prompt_tokens"] == chosen]


def speedups(results: Results) -> pd.DataFrame:
    """Return throughput over k = 1 of models with n > 1, with prompts of one length."""
    rows = table(results, "mtp_speed", "by_cell", "speedup")
    rows = of_one_length(rows[rows["baseline"].isna() & (rows["n"] > 1)])
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
        Withheld: All models are of one size, each within 10 % of the next.
    """
    rows = largest_batch(speedups(results))
    sizes = sorted(rows["parameters"].dropna().unique())
    if len(rows) and all(same_size(*pair) for pair in pairwise(sizes)):
        raise Withheld(
            f"{words.listed(rows['label'])}: one size within 10 %, expected two or more (fig_s10 "
            "shows the speed)"
        )
    return rows


def against_the_limit(results: Results) -> pd.DataFrame:
    """Return tokens per second, and the limit set by reading all weights and caches.

    The n = 1 baseline that the run timed in turn is a separate series.
    """
    rows = table(results, "mtp_speed", "by_cell", "tokens_per_second")
    place = ["run", "baseline", "batch", "prompt_tokens", "k"]  # a run is on one machine
    share = table(results, "mtp_speed", "by_cell", "bandwidth_share")
    joined = rows.merge(share[[*place, "value"]], on=place, suffixes=("", "_share"))
    value = joined["value"] / joined.pop("value_share")
    limit = put(joined, metric=LIMIT, value=value, low=pd.NA, high=pd.NA)
    return pd.concat([rows, limit])


def decoding(results: Results) -> pd.DataFrame:
    """Return tokens per forward by category and k, and the speedup on code from `mtp_speed`.

    `mtp_speculative` has a single time for all prompts of a category, which gives no speedup.
    """
    forwards = table(results, "mtp_speculative", "by_k", "tokens_per_forward")
    forwards = put(forwards, protocol=WHOLE_PROMPTS)
    timed = put(largest_batch(speedups(results)), category="code")
    both = told_apart(pd.concat([timed, forwards], ignore_index=True), "hardware")
    return both[both["n"] > 1].sort_values("parameters", kind="stable")


def of_bytes_on_code(results: Results) -> pd.DataFrame:
    """Return the same on code, for byte-level models, as far as runs say that they are."""
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


def advised(results: Results) -> pd.DataFrame:
    """Return expected tokens per second over k = 1, minus 1; bold if no k is faster."""
    rates = of_one_length(advice.rates(results))
    rates = rates[rates["n"] > 1]
    cell = [*advice.MODEL, *advice.CELL]
    best = rates["value"] == rates.groupby(cell, dropna=False)["value"].transform("max")
    rates = put(rates, bold=best.astype("Int64").where(best))
    plain = rates.loc[rates["k"] == 1, [*cell, "value"]]
    rows = rates[rates["k"] > 1].merge(plain, on=cell, suffixes=("", "_plain"))
    gain = rows["value"] / rows.pop("value_plain") - 1
    rows = put(rows, metric=GAIN, baseline=rows["label"], value=gain, low=pd.NA, high=pd.NA)
    return told_apart(rows.sort_values(["label", "k"], kind="stable"), "hardware")


def long_context(results: Results) -> pd.DataFrame:
    """Return a step's time and memory by prompt length, and its tokens by what stands before it.

    `aspect` is the panel. Times are of the largest batch that all models have, and of runs with
    several prompt lengths; `prompt_tokens` of a bin of contexts is its middle.
    """
    timed = table(results, "mtp_speed", "by_cell", *LONG_CONTEXT)
    timed = timed[timed["baseline"].isna()]
    lengths = timed.groupby("run")["prompt_tokens"].transform("nunique")
    timed = largest_batch(timed[lengths > 1])
    units = timed["metric"].map(lambda name: LONG_CONTEXT[name][1]).astype("Float64")
    timed = put(
        timed,
        aspect=[LONG_CONTEXT[name][0] for name in timed["metric"]],
        **{end: timed[end] * units for end in ("value", "low", "high")},
    )
    tokens = table(results, "mtp_long_context", "by_context", "accept_length")
    middle = (tokens["position_from"] + tokens["position_to"] + 1) // 2
    return pd.concat([timed, put(tokens, aspect=LENGTH, prompt_tokens=middle)], ignore_index=True)


_by_k = partial(Lines, colour="k", told=("hardware",))

FIGURES = (
    Figure(
        "fig_s10",
        "Speedup of decoding with k heads, by batch size. Throughput and latency over k = 1 at the "
        "same batch size. Prompts are as long as the paper's, or else the longest of all models.",
        by_batch,
        _by_k(
            "batch",
            rows="metric",
            columns="label",
            order=("speedup", LATENCY),
            wrap=5,
            ticks=MOST_BATCHES,
            from_zero=True,
            share_x="all",
            share_y="row",
            size=(1.8, 1.7),
        ),
        SPEED,
    ),
    Figure(
        "table_s2",
        "Self-speculative decoding: speedup over k = 1 and tokens per forward, by heads used, k. "
        "tok/fwd: tokens per forward, a count; the speedup is timed.",
        decoding,
        TextTable(
            ("label", "n", "k"), ("category", "metric"), order=("wikipedia", "books", "code")
        ),
        DECODING,
        protocols=(CUT_CODE, "continues text that was held out, without stop strings"),
    ),
    Figure(
        "table_s3",
        "Self-speculative decoding of byte-level models on code: speedup over k = 1 and bytes per "
        "forward, by heads used, k. tok/fwd: bytes per forward, a count; the speedup is timed.",
        of_bytes_on_code,
        TextTable(("k",), ("label", "n", "metric")),
        DECODING,
        protocols=(CUT_CODE, "continues code that was held out, without stop strings"),
    ),
    Figure(
        "fig_acceptance",
        "How many drafts of a step are accepted, decoding with all heads. Bars: share of the steps "
        "in which so many drafts were verified and kept; 0: head 1's token alone.",
        acceptance,
        Groups("n_verified", "category", "share of steps (%)", "accepted drafts in a step"),
        SPECULATIVE,
        least=2,
    ),
    Figure(
        "fig_speed",
        "Tokens per second by batch size, decoding with k heads. Thin lines: the most that reading "
        "weights and caches at the measured memory bandwidth would allow.",
        against_the_limit,
        _by_k(
            "batch",
            told=("hardware", "baseline"),
            rows="prompt_tokens",
            columns="label",
            log_x=True,
            log_y=True,
            share_x="all",
            share_y="all",
            limit=LIMIT,
            size=(2.1, 2.0),
        ),
        SPEED,
    ),
    Figure(
        "fig_advice",
        "Which k to serve: change (%) of tokens per second against plain decoding. Expected from "
        "each category's tokens per forward and each batch size's seconds per step, without "
        "prefills. Bold: the best k of a cell; a cell without a bold number is fastest without "
        "drafts.",
        advised,
        Heat(
            ("category",),
            ("batch",),
            ("label", "k"),
            lambda row: words.entry("category", row[0]),
            lambda column: str(column[0]),
            difference=True,
            form="{:.0f}",
            xlabel="batch size",
        ),
        advice.COMMAND,
    ),
    Figure(
        "fig_long_context",
        "Long context: what a step takes and gives, by how much text stands before it. Memory: the "
        "most that a batch took beyond what was in use before it, the forward of its prompts "
        "included; thin lines: what its caches and logits were known to take before it ran. Tokens "
        "of a step: accepted drafts and head 1's own token, in bins of 512 tokens of context.",
        long_context,
        _by_k(
            "prompt_tokens",
            rows="label",
            columns="aspect",
            order=(STEP, MEMORY, LENGTH),
            log_x=True,
            from_zero=True,
            limit=FORESEEN,
            ticks=CONTEXTS,
            size=(2.1, 1.8),
        ),
        "`lm_eval --model mtp --tasks mtp_speed,mtp_long_context -o RESULTS` with `--metadata "
        """'{"prompt_tokens": [512, 1024, 2048, 3584], "batch": 1}'`""",
    ),
    Figure(
        "fig_speed_by_size",
        "Speedup of decoding with k heads, by model size. Throughput over k = 1 at the largest "
        "batch of all models, with prompts as in figure S10.",
        by_size,
        _by_k("parameters", log_x=True),
        f"{SPEED} for models of several sizes",
    ),
)
