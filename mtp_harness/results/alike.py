"""What may stand side by side in one figure: runs of the same documents, asked in the same way."""

import pandas as pd


def refuse_other_documents(own: pd.DataFrame) -> None:
    """Refuse runs of a task that read other documents, or were asked in another way.

    Timings are of machines more than of texts, and stay.

    Raises:
        ValueError: There are some.
    """
    texts = own[own["task"] != "mtp_speed"]
    named = texts.assign(read=texts["data_set"].fillna(texts["category"]))
    for (task, data_set), rows in named.groupby(["task", "read"], dropna=False):
        of = "" if pd.isna(data_set) else f" of {data_set}"
        _refuse(rows, "documents", f"its runs of {task} read different documents{of}")
    refuse_other_ways(texts)


def refuse_other_ways(own: pd.DataFrame) -> None:
    """Refuse runs of a task that were asked in several ways.

    Raises:
        ValueError: There are some.
    """
    for task, rows in own.groupby("task"):
        _refuse(rows, "asked", f"its runs of {task} were asked in several ways")


def refuse_several_dtypes(scored: pd.DataFrame) -> None:
    """Refuse curves whose steps may be those of rounding.

    Raises:
        ValueError: There are some.
    """
    for (label, data_set), rows in scored.groupby(["label", "data_set"]):
        what = f"the checkpoints of {label} were scored on {data_set} in several types"
        _refuse(rows, "dtype", what)


def _refuse(rows: pd.DataFrame, column: str, what: str) -> None:
    if rows[column].nunique() > 1:
        each = rows.drop_duplicates(column).to_dict("records")
        told = " and ".join(f"{row[column]} in {row['file']}" for row in each)
        raise ValueError(f"{what} ({told}), expected the same: run again, or leave some out")
