"""The small print below every figure: where its numbers come from, and how they were measured."""

from collections.abc import Iterator, Mapping
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import words
from mtp_harness.figures.result_file import ResultFile
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.sizes import rounded
from mtp_harness.figures.style import GREY

DECODING = ("prompt_tokens", "new_tokens", "batch")
LABELS_SHOWN = 4
LINE = 0.09
"""Height of a line, inches; figures have room for two."""


def write(
    canvas: Canvas, shown: pd.DataFrame, files: Mapping[str, ResultFile], paper_protocol: str
) -> None:
    """Write the footer of a figure.

    Args:
        canvas: Of the figure.
        shown: The table behind it.
        files: The runs, by hash.
        paper_protocol: What the paper did, where runs are asked in another way.
    """
    paper = is_paper(shown)
    parts = list(_of_runs(shown[~paper], files))
    parts += _of_paper(shown[paper])
    if paper_protocol and paper.any() and not paper.all():
        own = ", ".join(dict.fromkeys(shown["protocol"].dropna()))
        parts.append(f"Protocol differs: runs {own or 'without finetuning'}; {paper_protocol}")
    width, height = canvas.get_size_inches()
    text = "\n".join(fill(part, max(30, int(width * 22))) for part in parts)
    canvas.set_size_inches(width, height + LINE * max(0, text.count("\n") - 1))
    canvas.supxlabel(text, x=0.01, ha="left", fontsize=5, color=GREY)


def _of_runs(own: pd.DataFrame, files: Mapping[str, ResultFile]) -> Iterator[str]:
    if own.empty:
        return
    measured = own[own["task"] != "mtp_speed"]  # where the baseline is in the run itself
    ordered = own.assign(size=own["parameters"].map(rounded, na_action="ignore")).sort_values(
        ["size", "label"]
    )
    labels = list(dict.fromkeys([*ordered["label"].dropna(), *measured["baseline"].dropna()]))
    more = len(labels) - LABELS_SHOWN
    between = "; " if any("," in label for label in labels) else ", "
    named = between.join(labels[:LABELS_SHOWN]) + (f" and {more} more" if more > 0 else "")
    hardware = [name for name in dict.fromkeys(own["hardware"].dropna()) if name not in named]
    told = [f"Runs: {named}", ", ".join(hardware)]
    told += [_settings(own[own["task"] == "mtp_speed"]), _of_answers(own, files), _samples(own)]
    yield "; ".join(filter(None, told))
    if parts := list(_parts_read(own)):
        yield f"Read in part: {', '.join(parts)}"
    yield from dict.fromkeys(own["note"].dropna())


def _of_paper(rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        return
    printed = ", ".join(dict.fromkeys(rows["source"]))
    settings = ", ".join(filter(None, (_settings(rows), _samples(rows))))
    yield f"Paper: {printed}, Gloeckle et al. 2024{f' ({settings})' if settings else ''}"


def _settings(rows: pd.DataFrame) -> str:
    """Return in words how answers were decoded, as far as it is the same in all rows."""
    shared = [name for name in DECODING if rows[name].nunique() == 1]
    return ", ".join(words.entry(name, rows[name].dropna().iloc[0]) for name in shared)


def _samples(rows: pd.DataFrame) -> str:
    """Return in words of how many answers to a problem pass@k is."""
    counts = sorted(set(rows.loc[rows["at"].notna(), "n_samples"].dropna()))
    plural = "" if counts == [1] else "s"
    return f"{' or '.join(map(str, counts))} answer{plural} a problem" if counts else ""


def _of_answers(own: pd.DataFrame, files: Mapping[str, ResultFile]) -> str:
    """Return in words how `mtp_speculative` decoded, which its tables leave to the file."""
    runs = own.loc[own["task"] == "mtp_speculative", "run"].unique()
    said: dict[str, None] = {}
    for file in (files[run] for run in runs):
        sets = (file.mtp.get("documents") or {}).get("mtp_speculative") or {}
        sources = [str(about["source"]) for about in sets.values() if about.get("source")]
        told_lengths = (about.get("new_tokens") for about in sets.values())
        lengths = [length for length in told_lengths if type(length) is int]
        told = [f"prompts of {' and '.join(sources)}" if sources else ""]
        told += [f"at most {max(lengths)} new tokens" if lengths else ""]
        told += [f"batch size {file.mtp['batch_size']}" if file.mtp.get("batch_size") else ""]
        said[", ".join(filter(None, told))] = None
    return "; ".join(filter(None, said))


def _parts_read(own: pd.DataFrame) -> Iterator[str]:
    """Yield the data sets of which runs read a part, such as 20 of 164."""
    names = own["data_set"].fillna(own["task"])
    counts = own["documents"].str.extract(r"(\d+) of (\d+)$")
    for name, read, there in dict.fromkeys(zip(names, counts[0], counts[1], strict=True)):
        if not pd.isna(read) and read != there:
            yield f"{words.entry('data_set', name)} {read} of {there}"
