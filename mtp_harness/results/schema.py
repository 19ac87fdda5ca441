"""The tidy table that every figure is drawn from: its columns and their allowed values.

A row is one number: what was measured (`task`, `data_set`, `metric`, `aspect`), on which model
(`label` … `train_seed`), where (`offset` … `baseline`), and `value` with its 90 % interval `low`,
`high` and the `count` of documents, tokens or steps behind it. Values that do not apply are
missing, never 0. Shares are in [0, 1] and times in seconds; percentages exist in figures only.

A user's own probe may add columns: they come after these, as numbers or text.

Rows come from runs (`source` is "run") and from the paper (`source` names its table or figure).
"""

import re
from collections.abc import Iterable

COLUMNS = {
    "source": "string",  # "run", or the paper's table or figure
    "file": "string",  # the results file, below the folder that was given
    "run": "string",  # hash of that file; of all files behind a derived number, with spaces
    "date": "Float64",  # of the run, seconds since 1970
    "label": "string",  # the model's name
    "n": "Int64",  # n_future_tokens
    "heads": "string",  # parallel or sequential; in the paper's table S4 also causal, anticausal
    "reading": "string",  # of sequential heads beyond the first module: reused or chained
    "head_type": "string",  # transformer or linear
    "extra_layers": "Int64",  # beyond equal parameter count
    "parameters": "Int64",
    "train_tokens": "Int64",
    "train_step": "Int64",
    "train_seed": "Int64",
    "train_data": "string",  # words of the paper: "313B bytes (0.5 epochs)"
    "hardware": "string",
    "dtype": "string",
    "note": "string",  # remark by the person who added the run, shown on figures
    "documents": "string",  # which: their hash, or how many of how many
    "protocol": "string",  # how a task was run, if it says so: "0-shot"
    "asked": "string",  # the task's version, few shots, and a hash of its settings
    "acceptance": "string",  # exact, all (lossy), or synthetic (forced): never in one series
    "task": "string",  # without a temperature: humaneval_mtp_t0.2 is humaneval_mtp
    "table": "string",  # "results", "totals", or one of the probes' tables
    "data_set": "string",
    "metric": "string",
    "aspect": "string",  # f1, precision, recall
    "at": "Int64",  # k of pass@k, which is not the k of heads
    "offset": "Int64",
    "k": "Int64",  # heads used in decoding
    "batch": "Int64",
    "prompt_tokens": "Int64",
    "new_tokens": "Int64",
    "temperature": "Float64",
    "n_samples": "Int64",  # answers per document
    "operations": "Int64",  # m
    "pause_tokens": "Int64",
    "position": "Int64",
    "position_from": "Int64",
    "position_to": "Int64",
    "class": "string",
    "part": "string",
    "bin": "Int64",
    "entropy_from": "Float64",  # bits, of head 1
    "entropy_to": "Float64",
    "since": "Int64",  # tokens since the last rejected draft was replaced
    "threshold": "Float64",  # of drafting, a probability
    "n_verified": "Int64",
    "category": "string",
    "baseline": "string",
    "baseline_value": "Float64",  # where `value` is a difference to it
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "count": "Int64",
    "bold": "Int64",  # 1 where the paper prints the number in bold
}
"""Name and type of every column; a missing entry is `pandas.NA`."""

DIMENSIONS = tuple(COLUMNS)[
    tuple(COLUMNS).index("data_set") : tuple(COLUMNS).index("baseline_value")
]  # of one run
WHOLE = tuple(name for name, kind in COLUMNS.items() if kind == "Int64")

_SHARE = re.compile(
    r"(pass@\d+|(chained_)?accuracy(_cond)?(_\d+)?|accept_rate_\w+|rouge(\d|L|Lsum)(_unicode)?|"
    r"looping|identical|share|confidence|calibration_error|tf_agree|tf_prefix|exact_match|acc|acc_norm)"
)
_NEVER_NEGATIVE = re.compile(
    r"(tokens_per_\w+|seconds\w*|latency\w*|speedup|steps|(chained_)?cross_entropy|bits_per_byte|"
    r"\w*perplexity|brier|peak_memory|memory_\w+|bandwidth\w*)"
)


TIMED = re.compile(r"(tokens_per_second|seconds|latency|speedup|bandwidth|peak_memory|memory_)\w*")
"""Metrics that depend on the machine."""

QUALITY = re.compile(
    r"pass(@|_at_)\d+(_sampled)?|exact_match|acc(_norm)?|rouge(1|2|L)_f1"
    r"|(\w+_)?(accuracy(_cond)?|bits_per_byte|tf_agree|effective_horizon|perplexity|text_walk_\w+)"
    r"(_\d+)?"
)
"""Metrics that are scores, as the harness prints them."""

OF_TIMES = ("mtp_speed", "mtp_speculative", "mtp_long_context")
"""Tasks whose metrics are all times."""

_AT = re.compile(r"pass@(\d+)")


def not_ours(columns: Iterable[str]) -> list[str]:
    """Return the columns that a user's own probe added."""
    return [name for name in columns if name not in COLUMNS]


def at(metric: str) -> int | None:
    """Return the k of a metric named pass@k, None for others."""
    found = _AT.search(metric)
    return int(found[1]) if found else None


def unfit(metric: str, value: float) -> str | None:
    """Return what is wrong with a value, in words, or None.

    A share above 1 is usually a percentage: two units in one table would give a wrong figure.
    """
    if _SHARE.fullmatch(metric) and not 0 <= value <= 1:
        return f"{metric} is {value:g}, expected a share from 0 to 1 (is it in percent?)"
    if _NEVER_NEGATIVE.fullmatch(metric) and value < 0:
        return f"{metric} is {value:g}, expected 0 or more"
    return None
