"""Which k to serve: acceptance by category and the times of steps, as tokens per second.

    tokens per second = batch × tokens per forward of the category ÷ seconds of a step of the batch

The first factor that is measured comes from `mtp_speculative`, the second from `mtp_speed`. It is
the rate of decoding while every place of the batch is taken; prefills come on top.

    90 % interval   both are measured apart, so the logarithms of their errors add in quadrature
    alike           k whose interval meets that of the best k. Every k decodes the same prompts, so
                    a paired comparison would tell more of them apart: this errs towards "alike"
    one k for all   the seconds that it takes if all cells write equally many tokens, over the
                    seconds that the best k of each cell takes, less 1
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mtp_harness.results.tidy import Results, table

MACHINE = ("hardware", "dtype")
MODEL = [*"label n parameters train_tokens train_step train_seed".split(), *MACHINE]
"""What a run of each task share if one can be asked about the other."""

CELL = ["prompt_tokens", "category", "batch"]
TASKS = ("mtp_speculative", "mtp_speed")
COMMAND = f"`lm_eval --model mtp --tasks {','.join(TASKS)} -o RESULTS`"
_SETTINGS = ("weights_sha256", "draft_threshold", "acceptance")


class Rate(NamedTuple):
    """Tokens per second with a 90 % interval; its ends are NaN where a factor has none."""

    value: float
    low: float
    high: float


class Cell(NamedTuple):
    """What to expect of one category in batches of one size behind prompts of one length."""

    prompt_tokens: int
    category: str
    batch: int
    rates: dict[int, Rate]  # by k
    best: int  # the k with the highest rate
    alike: list[int]  # other k that these measurements do not tell apart from it

    def loss(self, k: int) -> float:
        """Return the share of the best rate that another k gives away."""
        return 1 - self.rates[k].value / self.rates[self.best].value

    @property
    def plain_wins(self) -> bool:
        """Whether decoding without drafts is expected to be fastest."""
        return self.best == 1


class OneK(NamedTuple):
    """What it costs to use one k in several cells."""

    batch: int | None  # the cells' batch size; None for all of them
    k: int
    extra_time: float  # of the same tokens, over the best k of each cell, as a share
    worst_loss: float  # the largest share of its rate that a cell gives away
    worst: tuple[int, str, int]  # that cell's (prompt tokens, category, batch)


class Advice(NamedTuple):
    """What to serve a model with, on one machine."""

    model: str
    hardware: str
    dtype: str
    cells: list[Cell]
    one_k: list[OneK]


def rates(results: Results) -> pd.DataFrame:
    """Return expected tokens per second as a tidy table, by `MODEL`, `CELL` and k.

    No rows where no model has both measurements of one machine.

    Raises:
        ValueError: two runs measured one category with one k, or the two runs of a model are of
            other weights or drafted otherwise.
    """
    forwards = table(results, TASKS[0], "by_k", "tokens_per_forward")
    steps = table(results, TASKS[1], "by_cell", "seconds_per_step")
    steps = steps[steps["baseline"].isna()]
    _refuse_doubled(forwards, [*MODEL, "category", "k"], results)
    _refuse_doubled(steps, [*MODEL, "prompt_tokens", "batch", "k"], results)
    names = ["run", "value", "low", "high"]
    some = steps[[*MODEL, "prompt_tokens", "batch", "k", *names]]
    kept = forwards.drop(columns=["prompt_tokens", "batch"])
    joined = kept.merge(some, on=[*MODEL, "k"], suffixes=("", "_step"))
    _refuse_strangers(joined, results)
    value = joined["batch"] * joined["value"] / joined["value_step"]
    slower, faster = joined["high_step"], joined["low_step"]
    low = value * np.exp(-_quadrature(joined["value"] / joined["low"], slower / joined.value_step))
    high = value * np.exp(_quadrature(joined["high"] / joined["value"], joined.value_step / faster))
    found = joined.assign(
        value=value,
        low=low,
        high=high,
        metric="tokens_per_second",
        task="+".join(TASKS),
        run=joined["run"] + " " + joined["run_step"],
        count=pd.array([pd.NA] * len(joined), dtype="Int64"),
    )[forwards.columns]
    return found.sort_values([*CELL, "k"], kind="stable").reset_index(drop=True)


def advise(rates: pd.DataFrame) -> list[Advice]:
    """Return what to serve each model of `rates` with."""
    found = []
    for _, own in rates.groupby(MODEL, dropna=False, sort=False):
        cells = [
            _cell(int(prompt), str(category), int(batch), rows)
            for (prompt, category, batch), rows in own.groupby(CELL, sort=True)
        ]
        label, hardware, dtype = (_said(own[name].iloc[0]) for name in ("label", *MACHINE))
        found.append(Advice(label, hardware, dtype, cells, list(_one_k(cells))))
    return found


def _cell(prompt_tokens: int, category: str, batch: int, rows: pd.DataFrame) -> Cell:
    numbers = rows[["value", "low", "high"]].to_numpy(float, na_value=np.nan)
    by_k = {int(k): Rate(*map(float, one)) for k, one in zip(rows["k"], numbers, strict=True)}
    best = max(by_k, key=lambda k: by_k[k].value)
    alike = [k for k, rate in by_k.items() if k != best and not rate.high < by_k[best].low]
    return Cell(prompt_tokens, category, batch, by_k, best, alike)


def _one_k(cells: Sequence[Cell]) -> Iterator[OneK]:
    """Yield costs by batch size, then of all cells; no k that was not measured in all of them."""
    batches = sorted({cell.batch for cell in cells})
    for batch in [*batches, None] if len(batches) > 1 else [None]:
        some = [cell for cell in cells if batch in (None, cell.batch)]
        fastest = sum(1 / cell.rates[cell.best].value for cell in some)
        for k in sorted(set.intersection(*(set(cell.rates) for cell in some))):
            seconds = sum(1 / cell.rates[k].value for cell in some)
            worst = max(some, key=lambda cell: cell.loss(k))
            place = (worst.prompt_tokens, worst.category, worst.batch)
            yield OneK(batch, k, seconds / fastest - 1, worst.loss(k), place)


def _quadrature(*ratios: "pd.Series[float]") -> "pd.Series[float]":
    squares = [np.log(one.astype(float)) ** 2 for one in ratios]
    return np.sqrt(sum(squares))


def _said(entry: object) -> str:
    return "" if pd.isna(entry) else str(entry)


def _refuse_doubled(rows: pd.DataFrame, place: list[str], results: Results) -> None:
    doubled = rows[rows.duplicated(place, keep=False)]
    if doubled.empty:
        return
    _, same = next(iter(doubled.groupby(place, dropna=False, sort=False)))
    first = same.iloc[0]
    both = " and ".join(_files(same["run"], results))
    what = first["category"] if pd.notna(first["category"]) else f"batch size {first['batch']}"
    raise ValueError(
        f"{both} both have {first['metric']} of {first['label']}, {what}, k = {first['k']}, "
        "expected one of them: name one of these files alone"
    )


def _refuse_strangers(joined: pd.DataFrame, results: Results) -> None:
    """Refuse pairs of runs of one name that are not of one model and way of drafting."""
    for _, pair in joined[["label", "run", "run_step"]].drop_duplicates().iterrows():
        one, other = (results.files[pair[name]].mtp for name in ("run", "run_step"))
        for name in _SETTINGS:
            if one.get(name) != other.get(name):
                files = " and ".join(_files([pair["run"], pair["run_step"]], results))
                raise ValueError(
                    f"{files} are both of {pair['label']} but differ in {name} "
                    f"({one.get(name)} and {other.get(name)}), expected the same model drafting "
                    "the same way: run both tasks on one, or give the models a label= of their own"
                )


def _files(runs: Iterable[str], results: Results) -> list[str]:
    return [str(results.files[run].path) for run in dict.fromkeys(runs)]
