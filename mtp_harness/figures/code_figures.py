"""Programs: tables 1, S4, S6, S7, S11, S12 and figures 1, 3, 4."""

from collections.abc import Iterable

import pandas as pd

from mtp_harness.figures import architecture, diagrams, paper_data, words
from mtp_harness.figures.bars import Gains
from mtp_harness.figures.figure import ARCHITECTURE, Figure, Withheld
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.scored import Cell, at_best_temperature, best_of, cells, gains
from mtp_harness.figures.text_table import TextTable
from mtp_harness.results.tidy import Results, frame

CODE = ("mbpp_mtp", "humaneval_mtp", "apps_mtp")
BENCHMARKS = ("mbpp", "humaneval", "apps")
PAPER_CODE = "`lm_eval --model mtp --tasks mtp_paper_code --log_samples -o RESULTS`"
SIZES = (
    "`lm_eval --model mtp --tasks mbpp_mtp,humaneval_mtp --log_samples -o RESULTS` for n = 1 and n "
    "> 1 of one size and one number of training tokens"
)


FINETUNED = "finetuned on annotated solutions"
"""What the paper did before it asked for programs of CodeContests."""


def percent(value: float) -> str:
    """Return a share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def code_scores(results: Results) -> pd.DataFrame:
    """Return pass@k at the best temperature."""
    return code_table(cells(results, CODE))


def code_table(found: Iterable[Cell]) -> pd.DataFrame:
    """Return the rows of cells at their best temperature, as the table names them."""
    best = best_of(found)
    tokens = [words.entry("train_tokens", one) or None for one in best["train_tokens"]]
    return best.assign(train_data=pd.array(tokens, dtype="string"))


def temperatures(results: Results) -> pd.DataFrame:
    """Return the best temperature of every cell where one is better than all others.

    Raises:
        Withheld: Cells were sampled, but nowhere is one temperature the best.
    """
    sampled = [cell for cell in cells(results, CODE) if cell.is_sampled]
    best = code_table([cell for cell in sampled if cell.has_a_best])
    if sampled and best.empty:
        raise Withheld(
            "no temperature is the best of its cell: all that were run score the same, or only "
            "one was run"
        )
    return best.assign(
        metric="temperature of " + best["metric"],
        value=best["temperature"],
        low=pd.NA,
        high=pd.NA,
    ).astype({"low": "Float64", "high": "Float64", "metric": "string"})


def architectures(results: Results) -> pd.DataFrame:
    """Return the same where there are at least two models, told apart by their labels."""
    best = code_scores(results)
    return best if best["label"].nunique() > 1 else best.iloc[:0]


def finetuned(results: Results) -> pd.DataFrame:
    """Return pass@k of checkpoints whose label says that they were finetuned."""
    best = at_best_temperature(results, CODE)
    return best[best["label"].str.contains("finetuned", case=False)].reset_index(drop=True)


def scaling(results: Results) -> pd.DataFrame:
    """Return pass@k on the two benchmarks of the paper's model scaling."""
    return at_best_temperature(results, CODE[:2])


def size_gains(results: Results) -> pd.DataFrame:
    """Return gains over n = 1 by size."""
    return gains(results, CODE[:2])


def with_baselines(rows: pd.DataFrame) -> pd.DataFrame:
    """Return figure 3's gains, the baseline of table S7 beside each."""
    tabulated = paper_data.read("table_s7")
    base = tabulated[tabulated["n"] == 1].set_index(["label", "data_set", "metric"])["value"]
    there = [base[tuple(row)] for row in rows[["label", "data_set", "metric"]].to_numpy()]
    source = rows["source"] + ", its baselines Table S7"
    return rows.assign(baseline_value=pd.array(there, dtype="Float64"), source=source)


def overview(results: Results) -> pd.DataFrame:
    """Return the blocks of the model with most heads, and its gains at pass@1."""
    known = [
        (parts, file)
        for file in results.files.values()
        if (parts := architecture.of(file)) is not None
    ]
    if not known:
        return frame([])
    parts, file = max(known, key=lambda one: (one[0].n, one[1].name))
    source = {"source": "run", "file": file.name, "run": file.sha256, "label": file.label}
    rows = [source | row for row in _blocks(parts)]
    own = gains(results, CODE[:2])
    own = own[(own["at"] == 1) & (own["n"] == parts.n)]
    for name in BENCHMARKS:
        if (chosen := own[own["data_set"] == name]).size:
            return pd.concat([frame(rows), chosen], ignore_index=True)
    return frame(rows)


def paper_overview(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the blocks of the paper's 7B model, and figure 3's gains at pass@1."""
    blocks = [
        {"source": "Table S14", "label": "7B"} | row for row in _blocks(architecture.PAPER_7B)
    ]
    own = rows[rows["at"] == 1]
    return pd.concat([frame(blocks), with_baselines(own)], ignore_index=True)


def one_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one diagram, that of the runs, and the gains on one benchmark: theirs, or MBPP."""
    own = rows["source"] == "run"
    measured = rows[own & rows["data_set"].notna()]
    name = "mbpp" if measured.empty else measured["data_set"].iloc[0]
    blocks = rows["task"] == ARCHITECTURE
    if (own & blocks).any():
        rows = rows[own | ~blocks]
    return rows[rows["data_set"].isna() | (rows["data_set"] == name)]


def _blocks(parts: architecture.Architecture) -> list[dict[str, object]]:
    return [
        {"n": parts.n, "task": ARCHITECTURE, "metric": "trunk blocks", "value": parts.trunk},
        {"n": parts.n, "task": ARCHITECTURE, "metric": "head blocks", "value": parts.heads},
    ]


def contests(results: Results) -> pd.DataFrame:
    """Return pass@k on CodeContests at the best temperature."""
    rows = at_best_temperature(results, ("codecontests_mtp",))
    asked = [_asked_for(results, row["run"]) for _, row in rows.iterrows()]
    rows = rows.assign(protocol=pd.array(asked, dtype="string"))
    several = rows.groupby("label")["n"].transform("nunique") > 1
    named = rows["label"] + ", n = " + rows["n"].astype("string")
    return rows.assign(label=rows["label"].where(~several, named))


def _asked_for(results: Results, runs: str) -> str | None:
    """Return the paper's protocol where the prompts carried its annotation."""
    for run in runs.split():
        configs = results.files[run].content["configs"].values()
        if not any((one.get("metadata") or {}).get("reward") == "correct" for one in configs):
            return None
    return FINETUNED


def nothing(results: Results) -> pd.DataFrame:
    """Return no rows: no run measures it."""
    return frame([])


def pass_at(
    *rows: str, best: tuple[str, ...] | None = None, titles: tuple[str, ...] = ()
) -> TextTable:
    """Return a table of pass@k, benchmarks side by side."""
    return TextTable(rows, ("data_set", "at"), percent, best, titles, BENCHMARKS)


FIGURES = (
    Figure(
        "fig_1",
        "The architecture, from the model's configuration, and gains over n = 1 with 90 % "
        "bootstrap intervals over problems.",
        overview,
        diagrams.overview,
        "`lm_eval --model mtp --model_args pretrained=FOLDER --tasks mbpp_mtp -o RESULTS` and draw "
        "where FOLDER's config.json or params.json can be read; for gains, with n = 1, too",
        ("fig_3",),
        paper_overview,
        one_of_each,
        least=2,
    ),
    Figure(
        "fig_3",
        "Gain of n heads over n = 1 by model size, in points; the baseline's score stands at each "
        "bar, 90 % bootstrap intervals over problems.",
        size_gains,
        Gains(),
        SIZES,
        ("fig_3",),
        with_baselines,
        least=2,
    ),
    Figure(
        "fig_4",
        "CodeContests: pass@k at the best temperature.",
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
        ("fig_4",),
        protocols=("without annotation", FINETUNED),
    ),
    Figure(
        "table_1",
        "pass@k (%) at the temperature that is best for each cell; greedy where nothing was "
        "sampled.",
        code_scores,
        pass_at("train_data", "label", "n", best=("train_data",)),
        PAPER_CODE,
        ("table_1",),
    ),
    Figure(
        "table_s4",
        "pass@k (%) of alternative architectures.",
        architectures,
        pass_at(
            "label",
            "n",
            "head_type",
            "heads",
            "extra_layers",
            best=(),
            titles=("model", "n", "head type", "architecture", "+ layers"),
        ),
        f"{PAPER_CODE} for each architecture, told apart by `--model_args label=…`",
        ("table_s4",),
    ),
    Figure(
        "table_s6",
        "pass@k (%) after finetuning with n heads.",
        finetuned,
        pass_at("label", "n", "head_type", "extra_layers", best=()),
        f"{PAPER_CODE} with `--model_args label='… finetuned'`",
        ("table_s6",),
    ),
    Figure(
        "table_s7",
        "pass@k (%) by model size.",
        scaling,
        pass_at("label", "n", best=("label",)),
        SIZES,
        ("table_s7",),
    ),
    Figure(
        "table_s11",
        "Change of score (points) where prompts end in white space.",
        nothing,
        TextTable(("data_set", "aspect"), ("n",), lambda value: f"{100 * value:+.2f}"),
        "a benchmark of your own: no task here changes the prompts' white space",
        ("table_s11",),
    ),
    Figure(
        "table_s12",
        "The temperatures of table 1, each the best one of its cell.",
        temperatures,
        TextTable(
            ("train_data", "label", "n"),
            ("data_set", "at"),
            lambda value: f"{value:g}",
            order=BENCHMARKS,
        ),
        PAPER_CODE,
        ("table_s12",),
    ),
)
