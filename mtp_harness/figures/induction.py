"""Recall of names that were read before, and which of it compares."""

import pandas as pd

from mtp_harness.figures import words
from mtp_harness.results.tidy import Results, table

TWO_TOKENS = "names of two tokens"
"""The paper's, for which its models' vocabulary was made."""


def induction(results: Results) -> pd.DataFrame:
    """Return how often head 1 knows a name that it has read before.

    `protocol` says of how many tokens the names are, or bytes: byte models have no names of two.
    """
    rows = table(results, "mtp_induction", "by_data_set", "accuracy")
    rows = rows[rows["offset"].fillna(1) == 1].reset_index(drop=True)
    lengths = table(results, "mtp_induction", "by_data_set", "name_tokens")
    by_place = lengths.drop_duplicates(["run", "data_set"]).set_index(["run", "data_set"])["value"]
    places = zip(rows["run"], rows["data_set"], strict=True)
    asked = [_names(by_place.get(place)) for place in places]
    return rows.assign(protocol=pd.array(asked, dtype="string"))


def _names(length: float | None) -> str:
    if length is None:
        return "names of unknown length"
    return TWO_TOKENS if length == 2 else f"names of {length:g} bytes"


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Give names of several lengths panels of their own: their recall does not compare."""
    asked = rows["protocol"].fillna(TWO_TOKENS)
    if asked.nunique() < 2:
        return rows
    own = [words.entry("data_set", name) for name in rows["data_set"]]
    named = [f"{name}, {how}" for name, how in zip(own, asked, strict=True)]
    return rows.assign(data_set=pd.array(named, dtype="string"))


def stories(results: Results) -> pd.DataFrame:
    """Return the same on stories."""
    rows = induction(results)
    return rows[rows["data_set"] == "stories"].reset_index(drop=True)
