"""How numbers of the leaderboard are written, in every format alike."""

from mtp_harness.leaderboard.table import DATA, SPEED, Cell, Column
from mtp_harness.scoring.bootstrap import Estimate

_SHORT = {
    "tokens_per_forward": "tokens/forward",
    "tokens_per_forward_no_loops": "without loops",
    SPEED: "tokens/s",
    DATA: "data needed",
}
HELP = {
    "tokens_per_forward": "tokens kept per trunk forward, summed over answers before dividing",
    "tokens_per_forward_no_loops": "the same over answers that do not repeat themselves",
    DATA: "training tokens at which the score of n = 1's last checkpoint is reached, ÷ its tokens",
    SPEED: "decoded by the whole run, prefills included; depends on machine and batch",
}


def title(column: Column) -> str:
    """Return a column's heading."""
    name = _SHORT.get(column.metric, column.metric)
    return name if column.filtered in ("", "none") else f"{name} ({column.filtered})"


def help_of(column: Column) -> str:
    """Return what a column holds."""
    return HELP.get(column.metric, f"{column.metric} of {column.task}")


def number(value: float, column: Column) -> str:
    """Return a value as it is shown: shares with three decimals, speeds without."""
    if column.metric == SPEED or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def interval(one: Estimate | None, column: Column) -> str:
    """Return `[low, high]`; empty where there is none."""
    if one is None:
        return ""
    return f"[{number(one.low, column)}, {number(one.high, column)}]"


def change(cell: Cell, column: Column) -> str:
    """Return the difference to the baseline with its interval; empty where there is none."""
    if cell.difference is None:
        return ""
    value = number(cell.difference.value, column)
    sign = "" if value.startswith("-") else "+"
    return f"{sign}{value} {interval(cell.difference, column)}"


def direction(cell: Cell, column: Column) -> str:
    """Return `better` or `worse` where the difference's interval leaves zero out, else nothing."""
    if cell.difference is None or column.higher_is_better is None:
        return ""
    low, high = cell.difference.low, cell.difference.high
    if low <= 0 <= high:
        return ""
    return "better" if (low > 0) is column.higher_is_better else "worse"
