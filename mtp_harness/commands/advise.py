"""`mtp-harness advise RESULTS`: which k to serve, from acceptance and the times of steps.

lm_eval --model mtp --tasks mtp_speculative --metadata '{"documents": "built-in"}' -o results/
lm_eval --model mtp --tasks mtp_speed -o results/
mtp-harness advise results/ -o advice.json
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mtp_harness.commands.arguments import Parser
from mtp_harness.files import write_whole

if TYPE_CHECKING:
    from mtp_harness.results.advice import Advice, Cell, OneK, Rate

FIELD = 25
"""Width of a column of the tables, in characters."""


def main(argv: Sequence[str]) -> int:
    """Print which k to serve each model with; with `-o`, write it as JSON, too.

    Raises:
        FileNotFoundError: no model has both measurements.
        ValueError: the runs cannot be combined.
    """
    parser = Parser(
        "advise",
        "Say which k to decode with. Tokens per forward of each category (mtp_speculative) and "
        "seconds per step of each batch size (mtp_speed) give tokens per second; both must come "
        "from one model on one machine. `mtp-harness figures RESULTS -o OUT --only fig_advice` "
        "draws them.",
        "results/ -o advice.json",
    )
    parser.results()
    about = "write the same as JSON, too (default: the table alone)"
    parser.path("-o", "--out", metavar="FILE", about=about)
    given = parser.parse_args(argv)

    from mtp_harness.results import advice
    from mtp_harness.results.tidy import read_runs

    results = read_runs(given.results)
    found = advice.advise(advice.rates(results))
    for problem in results.problems:
        sys.stderr.write(f"{problem}\n")
    if not found:
        raise FileNotFoundError(
            f"{', '.join(given.results)} has no model with both {advice.TASKS[0]} and "
            f"{advice.TASKS[1]} (with seconds_per_step) from one machine, expected both: run "
            f"{advice.COMMAND}"
        )
    sys.stdout.write("\n".join(line for one in found for line in _text(one)))
    if given.out:
        content = json.dumps([_plain(one) for one in found], indent=2, allow_nan=False)
        write_whole(given.out, content + "\n")
    return 0


def _text(advice: Advice) -> Iterator[str]:
    yield f"{advice.model} on {advice.hardware}, {advice.dtype}"
    for prompt, cells in groupby(advice.cells, key=lambda cell: cell.prompt_tokens):
        yield from _expected(prompt, list(cells))
    yield from _costs(advice.one_k)
    plain = [_place(cell) for cell in advice.cells if cell.plain_wins]
    where = f"in {len(plain)} of {len(advice.cells)} cells: {'; '.join(plain)}"
    yield f"Plain decoding (k = 1) is fastest {where if plain else 'nowhere'}."
    yield ""


def _expected(prompt: int, cells: Sequence[Cell]) -> Iterator[str]:
    heads = sorted({k for cell in cells for k in cell.rates})
    yield ""
    yield (
        f"Expected tokens per second of decoding, [90 %], prompts of {prompt} tokens; * the best "
        "k, ~ as fast within the error"
    )
    yield _row(f"{'category':<16}{'batch':>6}", _heads(heads)) + f"{'over k = 1':>12}"
    for cell in cells:
        plain = cell.rates.get(1)
        gain = f"{cell.rates[cell.best].value / plain.value:.2f}x" if plain else "-"
        fields = [_field(cell, k) for k in heads]
        yield _row(f"{cell.category:<16}{cell.batch:>6}", fields) + f"{gain:>12}"


def _heads(heads: Sequence[int]) -> list[str]:
    return [f"k = {k} " for k in heads]


def _row(name: str, fields: Sequence[str]) -> str:
    return f"{name:<22}" + "".join(f"{one:>{FIELD}}" for one in fields)


def _field(cell: Cell, k: int) -> str:
    if k not in cell.rates:
        return "not measured "
    rate = cell.rates[k]
    ends = "" if math.isnan(rate.low + rate.high) else f" [{rate.low:,.0f}-{rate.high:,.0f}]"
    mark = "*" if k == cell.best else "~" if k in cell.alike else " "
    return f"{rate.value:,.0f}{ends}{mark}"


def _costs(costs: Sequence[OneK]) -> Iterator[str]:
    heads = sorted({cost.k for cost in costs})
    yield ""
    yield (
        "One k for all cells: extra time for the same tokens, compared with the best k of each "
        "cell; in brackets the largest loss of tokens per second in one cell"
    )
    yield _row("", _heads(heads))
    for batch, some in groupby(costs, key=lambda cost: cost.batch):
        by_k = {cost.k: cost for cost in some}
        yield _row(
            "all cells" if batch is None else f"batch {batch}",
            [
                f"{by_k[k].extra_time:+.1%} (-{by_k[k].worst_loss:.1%}) " if k in by_k else "- "
                for k in heads
            ],
        )
    everywhere = [cost for cost in costs if cost.batch is None]
    if everywhere:
        best = min(everywhere, key=lambda cost: cost.extra_time)
        yield ""
        yield (
            f"With one k everywhere, k = {best.k} costs least: {best.extra_time:.1%} more time "
            "than the best k of each cell."
        )


def _place(cell: Cell) -> str:
    close = (
        f" (k = {', '.join(map(str, cell.alike))} as fast within the error)" if cell.alike else ""
    )
    return f"{cell.category} at batch {cell.batch}, prompts of {cell.prompt_tokens}{close}"


def _plain(advice: Advice) -> dict[str, Any]:
    """Return it as JSON values, rates with their k in lists."""
    cells = [
        {
            **cell._asdict(),
            "rates": [{"k": k, **_ends(rate)} for k, rate in cell.rates.items()],
            "plain_wins": cell.plain_wins,
        }
        for cell in advice.cells
    ]
    names = ("prompt_tokens", "category", "batch")
    one_k = [
        {**cost._asdict(), "worst": dict(zip(names, cost.worst, strict=True))}
        for cost in advice.one_k
    ]
    return {**advice._asdict(), "cells": cells, "one_k": one_k}


def _ends(rate: Rate) -> dict[str, float | None]:
    return {
        f"{'' if name == 'value' else name + '_'}tokens_per_second": None
        if math.isnan(number)
        else number
        for name, number in rate._asdict().items()
    }
