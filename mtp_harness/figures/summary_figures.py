"""Summaries: figure 6 and tables S8, S9, S10."""

from typing import Any

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.figures.bars import Groups
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.scored import MODEL, is_trained_alike, same_size, the_baseline
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
    values = results.values
    rows = values[
        values["data_set"].isin(SUMMARIES)
        & values["metric"].isin(METRICS)
        & (values["table"] == "results")
        & (values["acceptance"].fillna("exact") == "exact")
    ]
    rows = rows.sort_values("k", kind="stable")
    apart = [*MODEL, "data_set", "metric", "aspect", "asked", "documents", "temperature"]
    one_each = rows.drop_duplicates(apart, keep="last")
    alike.refuse_other_documents(one_each)
    _refuse_several_temperatures(one_each)
    return one_each.sort_index().reset_index(drop=True)


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
    return _averages(rouge(results))


def _averages(rows: pd.DataFrame) -> pd.DataFrame:
    if rows.empty:
        return rows
    models = [set(own) for _, own in rows.groupby(MODEL, dropna=False)["data_set"]]
    shared = sorted(set.intersection(*models))
    if not shared:
        return rows.iloc[:0]
    name = shared[0] if len(shared) == 1 else f"average of {len(shared)}"
    means = []
    kept = rows[rows["data_set"].isin(shared)]
    for key, group in kept.groupby([*MODEL, "metric", "aspect"], dropna=False, sort=False):
        named = dict(zip([*MODEL, "metric", "aspect"], key, strict=True))
        first = group.iloc[0]
        means.append(
            {k: None if pd.isna(v) else v for k, v in named.items()}
            | {"source": "run", "run": " ".join(dict.fromkeys(group["run"])), "file": first["file"]}
            | {"hardware": None if pd.isna(first["hardware"]) else first["hardware"]}
            | {"task": "+".join(dict.fromkeys(group["task"])), "data_set": name}
            | {"protocol": None if pd.isna(first["protocol"]) else first["protocol"]}
            | {"value": float(group["value"].mean())}
            | (_of_one(first) if len(group) == 1 else {})
        )
    return frame(means)


def _of_one(row: pd.Series) -> dict[str, Any]:
    """Return what a mean over one data set shares with it: its documents, its interval."""
    kept = ("documents", "asked", "count", "low", "high")
    return {name: None if pd.isna(row[name]) else row[name] for name in kept}


def rouge_l(results: Results) -> pd.DataFrame:
    """Return mean ROUGE-L F1, figure 6's bars."""
    rows = averages(results)
    return rows[(rows["metric"] == "rougeL") & (rows["aspect"] == "f1")].reset_index(drop=True)


def paper_rouge_l(rows: pd.DataFrame) -> pd.DataFrame:
    """Return figure 6's bars from table S9: the baseline, and the baseline plus the differences."""
    mean = rows[rows["task"] == "mtp_summarization"]
    base = mean[mean["n"] == 1].set_index("train_tokens")["value"]
    added = [
        0.0 if pd.isna(b) else float(base[t])
        for b, t in zip(mean["baseline"], mean["train_tokens"], strict=True)
    ]
    absolute = mean["value"].astype(float) + added
    return (
        mean.assign(value=pd.array(absolute, dtype="Float64"), baseline=pd.NA, bold=pd.NA)
        .astype({"baseline": "string", "bold": "Int64"})
        .reset_index(drop=True)
    )


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return n = 1 as it is, and models with n > 1 less n = 1 of their size and training tokens.

    A model without such a baseline is shown as it is, too.
    """
    found: list[dict[str, Any]] = []
    for _, row in rows.iterrows():
        plain = {k: None if pd.isna(v) else v for k, v in row.to_dict().items()}
        if row["n"] == 1:
            found.append(plain)
            continue
        pairs = rows[[_is_baseline(other, row) for _, other in rows.iterrows()]]
        base = the_baseline(list(pairs.index), list(pairs["label"]), row)
        if base is not None:
            its = float(pairs.loc[base, "value"])
            told = {"baseline": str(pairs.loc[base, "label"]), "baseline_value": its}
            told["run"] = f"{row['run']} {pairs.loc[base, 'run']}"
            plain |= told | {"value": float(row["value"]) - its, "low": None, "high": None}
        found.append(plain)
    return _in_columns(frame(found))


def _is_baseline(other: Any, row: Any) -> bool:
    unknown = pd.isna(other["parameters"]) and pd.isna(row["parameters"])
    return bool(
        other["n"] == 1
        and is_trained_alike(other, row)
        and all(other[key] == row[key] for key in ("data_set", "metric", "aspect"))
        and (unknown or same_size(other["parameters"], row["parameters"]))
    )


def _in_columns(rows: pd.DataFrame) -> pd.DataFrame:
    """Order the columns as the paper does: n = 1 first, by training tokens."""
    return rows.sort_values(["train_tokens", "n"], kind="stable").reset_index(drop=True)


def all_f1(results: Results) -> pd.DataFrame:
    """Return table S8: all metrics of all data sets."""
    rows = rouge(results)
    return _in_rows(differences(rows[rows["aspect"] == "f1"].reset_index(drop=True)))


def l_f1(results: Results) -> pd.DataFrame:
    """Return table S9: ROUGE-L F1 of all data sets, and their mean."""
    rows = rouge(results)
    rows = rows[(rows["metric"] == "rougeL") & (rows["aspect"] == "f1")].reset_index(drop=True)
    mean = rouge_l(results)
    averaged = mean[mean["data_set"].str.startswith("average")]
    both = pd.concat([rows, averaged], ignore_index=True)
    return _in_rows(differences(both))


def means(results: Results) -> pd.DataFrame:
    """Return table S10: means over the data sets, with precision and recall."""
    return _in_rows(differences(averages(results)))


def _in_rows(rows: pd.DataFrame) -> pd.DataFrame:
    aspects = ("f1", "precision", "recall")
    metrics = ("epoch", *METRICS)
    order = rows.assign(
        _source=(rows["source"] != "run"),
        _mean=rows["data_set"].str.startswith("average"),
        _metric=[metrics.index(name) for name in rows["metric"]],
        _aspect=[-1 if pd.isna(name) else aspects.index(name) for name in rows["aspect"]],
    )
    keys = ["_source", "_mean", "data_set", "_metric", "_aspect", "train_tokens", "n"]
    return (
        order.sort_values(keys, kind="stable")
        .drop(columns=["_source", "_mean", "_metric", "_aspect"])
        .reset_index(drop=True)
    )


def without_epochs(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the epochs of the paper's finetuning beside runs, which have none."""
    return rows[rows["metric"] != "epoch"] if (rows["source"] == "run").any() else rows


def _column(entry: tuple[Any, ...]) -> str:
    tokens, label, n, baseline = entry
    head = "" if tokens is None else in_short(float(tokens))
    named = f"n = {n}" if baseline is None else f"Δ n = {n}"
    return "\n".join(filter(None, (head, named, None if label == "7B" else label)))


def _heat(rows: tuple[str, ...], panels: tuple[str, ...] = ()) -> Heat:
    return Heat(
        rows,
        ("train_tokens", "label", "n", "baseline"),
        panels,
        difference=True,
        counts=("epoch",),
        column_words=_column,
        row_words=lambda row: " ".join(
            words.entry(name, one) for name, one in zip(rows, row, strict=True)
        ),
    )


FIGURES = (
    Figure(
        "fig_6",
        "Average ROUGE-L F1 over the summarisation data sets that all models have.",
        rouge_l,
        Groups(
            "train_tokens",
            columns="data_set",
            ylabel="ROUGE-L F1 (%)",
            from_zero=False,
            share_y=False,
        ),
        COMMAND,
        ("table_s9",),
        paper_rouge_l,
        protocols=PROTOCOLS,
        least=2,
    ),
    Figure(
        "table_s8",
        "ROUGE F1 (%) of n = 1, and differences to it (points).",
        all_f1,
        _heat(("data_set", "metric")),
        COMMAND,
        ("table_s8",),
        _in_rows,
        without_epochs,
        PROTOCOLS,
    ),
    Figure(
        "table_s9",
        "ROUGE-L F1 (%) of n = 1, and differences to it (points).",
        l_f1,
        _heat(("data_set",)),
        COMMAND,
        ("table_s9",),
        _in_rows,
        protocols=PROTOCOLS,
    ),
    Figure(
        "table_s10",
        "Average ROUGE (%) of n = 1, and differences to it (points).",
        means,
        _heat(("metric", "aspect"), ("data_set",)),
        COMMAND,
        ("table_s10",),
        _in_rows,
        protocols=PROTOCOLS,
    ),
)
