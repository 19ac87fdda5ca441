"""Summaries: figure 6 and tables S8, S9, S10."""

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.figures.bars import Groups
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.rows import (
    MODEL,
    Select,
    mean_of,
    plain,
    printed,
    put,
    shared,
    with_most_heads,
)
from mtp_harness.figures.scored import difference, is_n1_of, same_size, the_baseline
from mtp_harness.figures.series import Entry
from mtp_harness.results import alike
from mtp_harness.results.sizes import in_short
from mtp_harness.results.tidy import Results, frame

SUMMARIES = (
    "cnn_dailymail",
    "multi_news",
    "orangesum",
    "pn_summary",
    "samsum",
    "thaisum",
    "wikisummary",
    "xsum",
)
METRICS = ("rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum")
PROTOCOLS = ("without finetuning", "finetuned on each data set")
COMMAND = "`lm_eval --model mtp --tasks mtp_summarization -o RESULTS` for n = 1 and n > 1"


def rouge(results: Results) -> pd.DataFrame:
    """Return ROUGE of the summarisation tasks, answers of one k each."""
    values = printed(results)
    rows = values[values["data_set"].isin(SUMMARIES) & values["metric"].isin(METRICS)]
    apart = [*MODEL, "data_set", "metric", "aspect", "asked", "documents", "temperature"]
    one_each = with_most_heads(rows, apart)
    alike.refuse_differences(one_each, results)
    _refuse_several_temperatures(one_each)
    return one_each


def _refuse_several_temperatures(rows: pd.DataFrame) -> None:
    for (label, data_set), own in rows.groupby(["label", "data_set"]):
        if own["temperature"].nunique() > 1:
            raise ValueError(
                f"{label} summarised {data_set} at several temperatures "
                f"({', '.join(f'{t:g}' for t in sorted(own['temperature'].dropna().unique()))}), "
                "expected one: leave some out"
            )


def averages(results: Results) -> pd.DataFrame:
    """Return the means over the data sets that every model has, and their number in `data_set`."""
    rows = rouge(results)
    sets = sorted(shared(rows, "data_set", MODEL))
    name = sets[0] if len(sets) == 1 else f"average of {len(sets)}"
    rows = rows[rows["data_set"].isin(sets)]
    means = []
    for _, group in rows.groupby([*MODEL, "metric", "aspect"], dropna=False, sort=False):
        kept = ["aspect", "protocol"]
        if len(group) == 1:  # a mean over one data set has its documents and its interval
            kept += ["documents", "asked", "count", "low", "high"]
        means.append(mean_of(group, *kept, data_set=name))
    return frame(means)


def _l_f1(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["metric"] == "rougeL") & (rows["aspect"] == "f1")]


def rouge_l(results: Results) -> pd.DataFrame:
    """Return mean ROUGE-L F1, figure 6's bars."""
    return _l_f1(averages(results))


def paper_rouge_l(rows: pd.DataFrame) -> pd.DataFrame:
    """Return figure 6's bars from table S9: the baseline, and the baseline plus the differences."""
    mean = rows[rows["task"] == "mtp_summarization"]
    base = mean[mean["n"] == 1].set_index("train_tokens")["value"]
    added = mean["train_tokens"].map(base).where(mean["baseline"].notna(), 0.0)
    return put(mean, value=mean["value"] + added, baseline=pd.NA, bold=pd.NA)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return n = 1, and models with n > 1 minus n = 1 of their size and training tokens.

    A model without such a baseline is shown unchanged, too.
    """
    found = []
    for _, row in rows.iterrows():
        pairs = [other for _, other in rows.iterrows() if _is_baseline(other, row)]
        place = the_baseline(pairs, row)
        found.append(plain(row) if place is None else difference(row, pairs[place]))
    return in_rows(frame(found))


def _is_baseline(other: pd.Series, row: pd.Series) -> bool:
    unknown = pd.isna(other["parameters"]) and pd.isna(row["parameters"])
    equal = is_n1_of(other, row, "data_set", "metric", "aspect")
    return equal and (unknown or same_size(other, row))


def all_f1(results: Results) -> pd.DataFrame:
    """Return table S8: all metrics of all data sets."""
    rows = rouge(results)
    return differences(rows[rows["aspect"] == "f1"])


def l_f1(results: Results) -> pd.DataFrame:
    """Return table S9: ROUGE-L F1 of all data sets, and their mean."""
    mean = rouge_l(results)
    averaged = mean[mean["data_set"].str.startswith("average")]
    return differences(pd.concat([_l_f1(rouge(results)), averaged]))


def means(results: Results) -> pd.DataFrame:
    """Return table S10: means over the data sets, with precision and recall."""
    return differences(averages(results))


def in_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Order rows as in the paper's tables: runs first, n = 1 before others."""
    metrics, aspects = ("epoch", *METRICS), ("f1", "precision", "recall")
    order = pd.DataFrame(
        {
            "source": rows["source"] != "run",
            "mean": rows["data_set"].str.startswith("average"),
            "data_set": rows["data_set"],
            "metric": rows["metric"].map(metrics.index),
            "aspect": [-1 if pd.isna(name) else aspects.index(name) for name in rows["aspect"]],
            "train_tokens": rows["train_tokens"],
            "n": rows["n"],
        }
    )
    return rows.loc[order.sort_values(list(order), kind="stable").index]


def without_epochs(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the epochs of the paper's finetuning, which runs do not have."""
    return rows[rows["metric"] != "epoch"] if (rows["source"] == "run").any() else rows


def _column(entry: Entry) -> str:
    tokens, label, n, baseline = entry
    head = "" if tokens is None else in_short(float(tokens))
    named = f"n = {n}" if baseline is None else f"Δ n = {n}"
    return "\n".join(filter(None, (head, named, None if label == "7B" else label)))


def _table(
    name: str, shown: str, select: Select, rows: tuple[str, ...], panels: tuple[str, ...] = ()
) -> Figure:
    heat = Heat(
        rows,
        ("train_tokens", "label", "n", "baseline"),
        panels,
        lambda row: " ".join(words.entry(*one) for one in zip(rows, row, strict=True)),
        _column,
        difference=True,
        counts=("epoch",),
    )
    return Figure(
        name,
        f"{shown} (%) of n = 1, and differences to it (points). Columns: training tokens, n, and "
        "model; Δ: difference to n = 1 of as many training tokens.",
        select,
        heat,
        COMMAND,
        from_paper=in_rows,
        together=without_epochs,
        protocols=PROTOCOLS,
    )


FIGURES = (
    Figure(
        "fig_6",
        "Average ROUGE-L F1 of summaries. Over the data sets that all models have; the axes begin "
        "a little below the lowest bar, not at 0.",
        rouge_l,
        Groups("train_tokens", "data_set", "ROUGE-L F1 (%)", "training tokens", zoomed=True),
        COMMAND,
        ("table_s9",),
        paper_rouge_l,
        protocols=PROTOCOLS,
        least=2,
    ),
    _table("table_s8", "ROUGE F1", all_f1, ("data_set", "metric")),
    _table("table_s9", "ROUGE-L F1", l_f1, ("data_set",)),
    _table("table_s10", "Average ROUGE", means, ("metric", "aspect"), ("data_set",)),
)
