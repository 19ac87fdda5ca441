"""Training: its time (table S5), and scores over checkpoints (figures 5 and S12)."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mtp_harness.figures import words
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.lines import Lines, in_percent
from mtp_harness.figures.rows import MODEL, mean_of, nothing, plain, put
from mtp_harness.figures.scored import same, same_size
from mtp_harness.figures.style import GREY, Style
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results import alike
from mtp_harness.results.tidy import Results, frame
from mtp_harness.scoring.choice_metrics import METRICS
from mtp_harness.scoring.sample_efficiency import CHECKPOINTS, tokens_to_reach

CHOICE = {task: name.partition(",")[0] for task, name in METRICS.items()}
"""The seven tasks of figure S12, and the harness's metric for each."""

SETTINGS = (
    "batch size (2^20 tokens)",
    "steps",
    "tokens (B)",
    "warm-up steps",
    "peak learning rate",
    "final share of peak rate",
    "context",
)
"""Columns of table S13, in this order."""

STEPS = range(2500, 25001, 2500)
"""Training steps of the paper's checkpoints."""

PROTOCOLS = ("with the shots and metrics of the harness", "states neither shots nor normalisation")

CHOICE_COMMAND = (
    "`lm_eval --model mtp --model_args pretrained=CHECKPOINT,label=…,train_step=… --tasks "
    "mtp_choice -o RESULTS` for each checkpoint"
)


def choice_tasks(results: Results) -> pd.DataFrame:
    """Return the accuracies of the choice tasks of checkpoints whose step is known."""
    values = results.values
    named = (values["metric"] == values["task"].map(CHOICE)) & (values["table"] == "results")
    rows = values[named & values["train_step"].notna()]
    return put(rows.sort_values("task", kind="stable"), metric="acc")


def choice_mean(results: Results) -> pd.DataFrame:
    """Return the plain mean of the seven, for checkpoints that have all of them."""
    each = choice_tasks(results)
    alike.refuse_differences(each, results)
    means = [
        mean_of(group, data_set=f"average of {len(CHOICE)}")
        for _, group in each.groupby(MODEL, dropna=False)
        if set(group["task"]) == set(CHOICE)
    ]
    return frame(means)


LOWER_IS_BETTER = "bits_per_byte"
REACHED = "tokens to reach {} of n = 1"


def efficiency(results: Results) -> pd.DataFrame:
    """Return the scores of models with three checkpoints or more, and the tokens that they need.

    Scores are pass@1, the choice tasks' accuracies, and head 1's bits per byte of the reference
    solutions, which change long before a model solves a problem; `data_set` names the panel. Rows
    with the metric "tokens to reach … of n = 1" have in `train_tokens` where a model with n > 1
    first reaches the last score of n = 1 of its size.
    """
    scored = _scored(results.values)
    family = ["label", "n", "parameters", "train_seed", "data_set", "metric", "temperature"]
    curves = [
        one.sort_values(["train_tokens", "k"]).drop_duplicates("train_tokens", keep="last")
        for _, one in scored.groupby(family, dropna=False)
        if one["train_tokens"].nunique() >= CHECKPOINTS
    ]
    reached = [row for curve in curves for base in curves if (row := _reached(curve, base))]
    return pd.concat([frame([]), *curves, frame(reached)], ignore_index=True)


def _scored(values: pd.DataFrame) -> pd.DataFrame:
    values = values[values["train_tokens"].notna()]
    metric = values["task"].map(CHOICE).fillna("pass@1")
    solved = values[(values["metric"] == metric) & (values["table"] == "results")]
    of_head_1 = (values["metric"] == LOWER_IS_BETTER) & (values["offset"] == 1)
    solutions = values[(values["task"] == "mtp_solutions") & of_head_1]
    sets = [f"{words.entry('data_set', name)} solutions" for name in solutions["data_set"]]
    return pd.concat(
        [
            put(solved, data_set=[words.entry("task", task) for task in solved["task"]]),
            put(solutions, data_set=sets),
        ]
    )


def _reached(curve: pd.DataFrame, base: pd.DataFrame) -> dict[str, Any] | None:
    own, its = curve.iloc[-1], base.iloc[-1]
    equal = all(same(own[name], its[name]) for name in ("data_set", "metric", "dtype"))
    if not (own["n"] > 1 and its["n"] == 1 and equal and same_size(own, its)):
        return None
    sign = -1 if own["metric"] == LOWER_IS_BETTER else 1
    scores = sign * curve["value"].astype(float)
    points = list(zip(curve["train_tokens"].astype(float), scores, strict=True))
    tokens = tokens_to_reach(points, sign * float(its["value"]))
    if tokens is None:
        return None
    said = {"metric": REACHED.format(own["metric"]), "baseline": its["label"]}
    share = {"value": tokens / float(its["train_tokens"]), "baseline_value": float(its["value"])}
    return plain(own) | said | share | {"train_tokens": round(tokens), "low": None, "high": None}


class EfficiencyLines(Lines):
    """Score against training tokens, and a mark where n = 1's last score is reached."""

    def __call__(self, canvas: Any, shown: pd.DataFrame, style: Any) -> None:
        """Draw the table."""
        reached = shown["metric"].str.startswith("tokens to reach")
        scores = in_percent(shown[~reached], shown.loc[~reached, "metric"] != LOWER_IS_BETTER)
        super().__call__(canvas, scores, style)
        marks = shown[reached].sort_values("n")
        panels = sorted(set(scores["data_set"]))
        for axes, panel in zip(canvas.axes, panels, strict=False):
            metric = scores.loc[scores["data_set"] == panel, "metric"].iloc[0]
            axes.set_ylabel("bits per byte" if metric == LOWER_IS_BETTER else f"{metric} (%)")
            here = marks[marks["data_set"] == panel]
            for place, (_, row) in enumerate(here.iterrows()):
                _mark(axes, row, place, style)


def _mark(axes: Axes, row: Any, place: int, style: Style) -> None:
    colour = style.colour(int(row["n"]))
    lower = row["metric"] == REACHED.format(LOWER_IS_BETTER)
    score = float(row["baseline_value"]) * (1 if lower else 100)
    axes.axhline(score, color=GREY, linewidth=0.6, linestyle=":")
    axes.axvline(float(row["train_tokens"]), color=colour, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"n = {row['n']}: {float(row['value']):.0%} of the tokens",
        (0.97, 0.9 - 0.09 * place if lower else 0.04 + 0.09 * place),
        xycoords="axes fraction",
        ha="right",
        fontsize=5.5,
        color=colour,
    )


FIGURES = (
    Figure(
        "table_s5",
        "Training time of n heads, as a multiple of that of n = 1.",
        nothing,
        TextTable(("label",), ("n",)),
        "`mtp-harness train` for each n: its times are no results of the harness",
    ),
    Figure(
        "table_s13",
        "Settings of the paper's trainings: batch, steps, learning rate. A batch of byte-level "
        "models is in bytes.",
        nothing,
        TextTable(("train_data", "label"), ("metric",), "{:g}", order=SETTINGS),
        "`mtp-harness train`: its settings are no results of the harness",
    ),
    Figure(
        "table_s14",
        "Width, layers and attention heads of the paper's models. Layers: with those of the heads.",
        nothing,
        TextTable(("label",), ("metric",), "{:g}", order=("dimension", "layers")),
        "`mtp-harness inspect PATH` for a model of yours: fig_1 draws it",
    ),
    Figure(
        "fig_5",
        "Average accuracy on seven choice and question tasks, by training step. The plain mean "
        "over the tasks of figure S12.",
        choice_mean,
        Lines("train_step", percent=True, ylabel="average accuracy (%)", ticks=tuple(STEPS[1::2])),
        CHOICE_COMMAND,
        protocols=PROTOCOLS,
    ),
    Figure(
        "fig_s12",
        "Accuracy on each of the seven tasks of figure 5, by training step. Of the paper's ten "
        "checkpoints only the first and the last are known: no line joins them.",
        choice_tasks,
        Lines(
            "train_step",
            columns="task",
            wrap=4,
            percent=True,
            size=(1.75, 1.7),
            ticks=tuple(STEPS[1::2]),
            paper_points=True,
        ),
        CHOICE_COMMAND,
        protocols=PROTOCOLS,
    ),
    Figure(
        "fig_sample_efficiency",
        "Score of head 1, by training tokens. Bits per byte: lower is better. Where a model with n "
        "> 1 reaches the last score of n = 1 of its size, a mark says with how many tokens "
        "(log-linear between checkpoints, never beyond them).",
        efficiency,
        EfficiencyLines("train_tokens", columns="data_set", wrap=3, log_x=True, size=(2.6, 2.1)),
        "`lm_eval --model mtp --model_args pretrained=CHECKPOINT,label=…,train_tokens=… --tasks "
        "humaneval_mtp,mtp_solutions -o RESULTS` for three checkpoints or more of n = 1 and of "
        "n > 1",
    ),
)
