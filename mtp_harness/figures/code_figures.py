"""Programs: tables 1, S4, S6, S7, S11, S12 and figures 3 and 4."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import pandas as pd

from mtp_harness.figures import bars, paper_data, words
from mtp_harness.figures.bars import BENCHMARKS
from mtp_harness.figures.figure import Figure, Withheld
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import nothing, put, told_apart
from mtp_harness.figures.scored import Cell, at_best_temperature, best_of, cells, gains
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results.tidy import Results

CODE = tuple(f"{name}_mtp" for name in BENCHMARKS)
PAPER_CODE = "`lm_eval --model mtp --tasks mtp_paper_code --log_samples -o RESULTS`"
SIZES = (
    "`lm_eval --model mtp --tasks mbpp_mtp,humaneval_mtp --log_samples -o RESULTS` for n = 1 and n "
    "> 1 of one size and one number of training tokens"
)


FINETUNED = "finetuned on annotated solutions"
"""What the paper did before evaluating on CodeContests."""


def code_scores(results: Results) -> pd.DataFrame:
    """Return pass@k at the best temperature."""
    return _code_table(cells(results, CODE))


def _code_table(found: Iterable[Cell]) -> pd.DataFrame:
    best = best_of(found)
    tokens = [words.entry("train_tokens", one) or None for one in best["train_tokens"]]
    return put(best, train_data=tokens)


def temperatures(results: Results) -> pd.DataFrame:
    """Return the best temperature of every cell in which one is better than all others.

    Raises:
        Withheld: Cells were sampled, but in none of them one temperature is the best.
    """
    sampled = [cell for cell in cells(results, CODE) if (cell.rows["temperature"] > 0).any()]
    best = _code_table([cell for cell in sampled if cell.has_a_best])
    if sampled and best.empty:
        raise Withheld(
            "no temperature is the best of its cell: all that were run score the same, or only "
            "one was run"
        )
    metric = "temperature of " + best["metric"]
    return put(best, metric=metric, value=best["temperature"], low=pd.NA, high=pd.NA)


def architectures(results: Results) -> pd.DataFrame:
    """Return the same if there are at least two models, distinguished by their labels."""
    best = code_scores(results)
    return best if best["label"].nunique() > 1 else best.iloc[:0]


def finetuned(results: Results) -> pd.DataFrame:
    """Return pass@k of checkpoints whose label says that they were finetuned."""
    best = at_best_temperature(results, CODE)
    return best[best["label"].str.contains("finetuned", case=False)]


def with_baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return figure 3's gains, with the baselines of table S7."""
    tabulated = paper_data.read("table_s7")
    base = tabulated[tabulated["n"] == 1].set_index(["label", "data_set", "metric"])["value"]
    there = [base[tuple(row)] for row in rows[["label", "data_set", "metric"]].to_numpy()]
    return put(rows, baseline_value=there, source=rows["source"] + ", its baselines Table S7")


def contests(results: Results) -> pd.DataFrame:
    """Return pass@k on CodeContests at the best temperature."""
    rows = at_best_temperature(results, ("codecontests_mtp",))
    rows = put(rows, protocol=[_asked_for(results, runs) for runs in rows["run"]])
    return told_apart(rows, "n")


def _asked_for(results: Results, runs: str) -> str | None:
    """Return the paper's protocol if its prompts had the annotation."""
    for run in runs.split():
        configs = results.files[run].content["configs"].values()
        if not any((one.get("metadata") or {}).get("reward") == "correct" for one in configs):
            return None
    return FINETUNED


def _pass_at(*rows: str, **look: Any) -> TextTable:
    columns = ("data_set", "at")
    return TextTable(rows, columns, "{:.1f}", percent=True, order=BENCHMARKS, **look)


FIGURES = (
    Figure(
        "fig_3",
        "Gain of n heads over n = 1 in solved problems, by model size. Bars: difference of pass@k "
        "in points; the grey number at a bar is the score of n = 1 (%).",
        partial(gains, tasks=CODE[:2]),
        bars.gains,
        SIZES,
        from_paper=with_baselines,
        least=2,
    ),
    Figure(
        "fig_4",
        "CodeContests: pass@k (%) at the best temperature. Share of problems solved by one of k "
        "answers. In the paper n is the number of heads in training, n' in finetuning.",
        contests,
        Lines(
            "at",
            colour="label",
            told=(),
            log_x=True,
            log_y=True,
            percent=True,
            ylabel="pass@k (%)",
            ticks=(1, 10, 100, 1000),
        ),
        '`lm_eval --model mtp --tasks codecontests_mtp --metadata \'{"n_samples": 1000, '
        '"temperature": 0.8, "k": [1, 10, 100, 1000]}\' --log_samples -o RESULTS`',
        protocols=("without annotation", FINETUNED),
    ),
    Figure(
        "table_1",
        "pass@k (%) of programs. At the temperature that is best for each cell; greedy where "
        "nothing was sampled.",
        code_scores,
        _pass_at("train_data", "label", "n", best=("train_data",)),
        PAPER_CODE,
    ),
    Figure(
        "table_s4",
        "pass@k (%) of alternative architectures. + layers: beyond equal parameters.",
        architectures,
        _pass_at(
            *("label", "n", "head_type", "heads", "extra_layers"),
            best=(),
            titles=("model", "n", "head type", "architecture", "+ layers"),
        ),
        f"{PAPER_CODE} for each architecture, named by `--model_args label=…`",
    ),
    Figure(
        "table_s6",
        "pass@k (%) after finetuning with n heads.",
        finetuned,
        _pass_at("label", "n", "head_type", "extra_layers", best=()),
        f"{PAPER_CODE} with `--model_args label='… finetuned'`",
    ),
    Figure(
        "table_s7",
        "pass@k (%) by model size.",
        partial(at_best_temperature, tasks=CODE[:2]),
        _pass_at("label", "n", best=("label",)),
        SIZES,
    ),
    Figure(
        "table_s11",
        "Change of score (points) where prompts end in white space.",
        nothing,
        TextTable(("data_set", "aspect"), ("n",), "{:+.2f}", percent=True),
        "your own benchmark: no task here changes the prompts' white space",
    ),
    Figure(
        "table_s12",
        "The temperatures of table 1. Each is the best one of its cell.",
        temperatures,
        TextTable(("train_data", "label", "n"), ("data_set", "at"), "{:g}", order=BENCHMARKS),
        PAPER_CODE,
    ),
)
