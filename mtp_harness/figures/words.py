"""Names of columns, metrics and data sets on figures."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from mtp_harness.results.sizes import in_short

FEW = 4
"""Most names in a text; for more, the number is given."""

AXES = {
    "at": "k of pass@k",
    "batch": "batch size",
    "k": "heads used, k",
    "offset": "head (tokens ahead)",
    "operations": "number of operations",
    "parameters": "parameters",
    "position": "position in the window (tokens)",
    "prompt_tokens": "tokens before the step",
    "confidence": "confidence of the draft",
    "threshold": "draft threshold",
    "temperature": "temperature",
    "train_step": "training step",
    "train_tokens": "training tokens",
    "train_data": "training data",
    "data_set": "data set",
    "aspect": "white space",
    "extra_layers": "+ layers",
    "head_type": "head type",
    "label": "model",
}

METRICS = {
    "acc": "accuracy (%)",
    "accept_rate_cond": "accepted after accepted drafts (%)",
    "accept_rate_prefix": "accepted with all before (%)",
    "accept_greedy": "engines, likeliest draft (%)",
    "accept_sampled": "engines, sampled draft (%)",
    "accept_same_noise": "our rule (%)",
    "accuracy": "accuracy (%)",
    "accuracy_cond": "accuracy after right drafts (%)",
    "bits_per_byte": "bits per byte",
    "cross_entropy": "cross-entropy (nats per token)",
    "calibration_error": "calibration error (%)",
    "confidence": "mean confidence (%)",
    "drafts_per_forward": "drafts per forward",
    "latency over k = 1": "latency over k = 1",
    "memory_foreseen": "memory known before",
    "speedup": "speedup over k = 1",
    "tf_agree": "agrees with head 1 (%)",
    "tokens_per_second": "tokens per second",
    "tokens_per_forward": "tokens per forward",
}

DATA_SETS = {
    "apps": "APPS/Intro",
    "arc_challenge": "ARC-Challenge",
    "books and stories": "books and stories, 9:1",
    "cnn_dailymail": "CNN/Dailymail",
    "codecontests": "CodeContests",
    "copa": "COPA",
    "gsm8k": "GSM8K",
    "hellaswag": "HellaSwag",
    "humaneval": "HumanEval",
    "mbpp": "MBPP",
    "mtp_long_context": "long contexts",
    "mtp_drafts": "continuations",
    "mtp_speculative": "continuations",
    "multi_news": "Multi-News",
    "nq_open": "Natural Questions",
    "orangesum": "OrangeSum",
    "piqa": "PIQA",
    "pn_summary": "pn-summary",
    "samsum": "SAMSum",
    "social_iqa": "SIQA",
    "stories": "children stories",
    "thaisum": "ThaiSum",
    "triviaqa": "TriviaQA",
    "wikisummary": "WikiSummary",
    "xsum": "XSum",
}


def axis(column: str) -> str:
    """Return the label of an axis."""
    return AXES.get(column, column.replace("_", " "))


ENTRIES = {
    "batch": "batch size {}",
    "prompt_tokens": "prompts of {} tokens",
    "new_tokens": "{} new tokens",
    "pause_tokens": "{} pause tokens",
    "n": "n = {}",
    "k": "k = {}",
    "offset": "head {}",
    "temperature": "{:g}",
}


def entry(column: str, value: Any) -> str:
    """Return one entry of a column as shown on figures."""
    if pd.isna(value):
        return ""
    if column in ("parameters", "train_tokens"):
        return in_short(value) + (" tokens" if column == "train_tokens" else "")
    if column in ("data_set", "category", "task"):
        return DATA_SETS.get(str(value).removesuffix("_mtp"), str(value).replace("_", " "))
    if column == "metric":
        return metric(str(value))
    if column == "aspect":
        return str(value).replace("f1", "F1")
    if column == "n_samples":
        return f"{value} answer{'' if value == 1 else 's'} a problem"
    return ENTRIES.get(column, "{}").format(value)


def listed(given: Iterable[str]) -> str:
    """Return names in a row, each once, and how many more there are beyond a few."""
    names = list(dict.fromkeys(given))
    between = "; " if any("," in name for name in names) else ", "
    more = len(names) - FEW
    return between.join(names[:FEW]) + (f" and {more} more" if more > 0 else "")


def metric(name: str) -> str:
    """Return the name of a metric."""
    if name.startswith("rouge"):
        return "R-" + name.removeprefix("rouge").replace("_unicode", " (Unicode)")
    return METRICS.get(name, name.replace("_", " "))


HEADS = {"speedup": "speedup", "tokens_per_forward": "tok/fwd"}
"""Metrics as headings of narrow columns."""


def in_bytes(text: str) -> str:
    """Return a text about tokens as a text about bytes, for byte-level models."""
    return re.sub(r"\btoken(s?)\b", r"byte\1", re.sub(r"\bToken(s?)\b", r"Byte\1", text))


def signed(number: float, digits: int = 1) -> str:
    """Return a difference with its sign, the minus as wide as the plus; 0 has no sign."""
    return f"{number:+.{digits}f}".replace("-", MINUS) if number else "0"


MINUS = "\N{MINUS SIGN}"
