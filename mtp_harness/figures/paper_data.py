"""The paper's numbers, `paper/NAME.csv`, in the same tidy table as runs.

One file per table or figure of Gloeckle et al. 2024, as printed: `source` names it, `unit` says if
numbers are percentages, `baseline` that they are differences to n = 1. Values of figures were read
off the vector coordinates of the plots, and their `source` says "digitised": ±0.05 of a
percentage, ±0.003 of a ratio.
"""

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from mtp_harness.results import schema
from mtp_harness.results.tidy import frame

FOLDER = Path(__file__).parent / "paper"


def read(*chosen: str) -> pd.DataFrame:
    """Return the rows of one or more of the files, with shares instead of percentages."""
    rows = []
    for name in chosen:
        with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
            rows += [_row(line) for line in csv.DictReader(lines)]
    return frame(rows)


def _row(line: dict[str, str]) -> dict[str, Any]:
    scale = 100 if line.pop("unit", "") == "percent" else 1
    row: dict[str, Any] = {key: text for key, text in line.items() if text}
    for name, text in row.items():
        if schema.COLUMNS[name] == "Int64":
            row[name] = int(text)
        elif schema.COLUMNS[name] == "Float64":
            row[name] = float(text) / (scale if name in ("value", "low", "high") else 1)
    return row | {"at": schema.at(row["metric"])}
