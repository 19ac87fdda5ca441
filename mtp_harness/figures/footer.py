"""The small print below every figure: where its numbers come from, and how they were measured."""

from collections.abc import Iterator, Mapping
from textwrap import fill

import pandas as pd
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as Canvas

from mtp_harness.figures import reading, words
from mtp_harness.figures.series import is_paper
from mtp_harness.figures.style import GREY
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.sizes import rounded

DECODING = ("prompt_tokens", "new_tokens", "batch")
PER_TOKEN = ("mtp_heads", "mtp_positions", "mtp_perplexity", *reading.DECODED, "mtp_speed")
"""Probes whose numbers are of tokens, which are not the same for all vocabularies."""
LOSSES = ("bits_per_byte", "cross_entropy")

LINE = 0.115
"""Height of a line, inches; figures have room for one."""


def write(
    canvas: Canvas,
    shown: pd.DataFrame,
    files: Mapping[str, ResultFile],
    protocols: tuple[str, str],
    left_out: str,
    more: str = "",
) -> None:
    """Write the footer of a figure.

    Args:
        canvas: Of the figure.
        shown: The table behind it.
        files: The runs, by hash.
        protocols: How runs are asked where their rows do not say it, and how the paper asked.
        left_out: Why numbers of runs are not drawn.
        more: What the figure's caption says beyond its title.
    """
    own, paper = shown[~is_paper(shown)], shown[is_paper(shown)]
    in_bytes = reading.counts_bytes(own, files)
    parts = [more, *_marks(canvas, shown)]
    if len(own):
        said = _of_runs(own, files, in_bytes and len(paper) > 0)
        parts += [words.in_bytes(one) if in_bytes else one for one in said]
    parts += [f"Not drawn: {left_out}"] if left_out else []
    parts += [_of_paper(paper)] if len(paper) else []
    parts += _differs(own, paper, *protocols, in_bytes) if len(own) and len(paper) else []
    width, height = canvas.get_size_inches()
    text = "\n".join(
        fill(part, max(30, int(width * 18.5)), break_on_hyphens=False) for part in parts if part
    )
    canvas.set_size_inches(width, height + LINE * text.count("\n"))
    canvas.supxlabel(text, x=0.01, ha="left", fontsize=6, color=GREY)


def _marks(canvas: Canvas, shown: pd.DataFrame) -> Iterator[str]:
    """Yield what bars of error, bands and single points on the figure are."""
    drawn = [one for axes in canvas.axes for one in axes.collections]
    known = shown[shown["low"].notna()]
    if drawn and len(known):
        bands = any(isinstance(one, PolyCollection) for one in drawn)
        over = ["timed trials" if task == "mtp_speed" else "documents" for task in known["task"]]
        said = "problems" if known["at"].notna().all() else " or ".join(sorted(set(over)))
        yield f"{'Bands' if bands else 'Error bars'}: 90 % bootstrap intervals over {said}"
    if shown["train_seed"].nunique() > 1:
        yield "Points: trainings with different seeds; lines: their mean"


def _of_runs(
    own: pd.DataFrame, files: Mapping[str, ResultFile], beside_tokens: bool
) -> Iterator[str]:
    timed = own["task"] == "mtp_speed"  # where the baseline is in the run itself
    size = own["parameters"].map(rounded, na_action="ignore")
    labels = own.assign(size=size).sort_values(["size", "label"])["label"]
    named = words.listed([*labels.dropna(), *own.loc[~timed, "baseline"].dropna()])
    hardware = [name for name in dict.fromkeys(own["hardware"].dropna()) if name not in named]
    speed, decoded = _settings(own[timed]), _of_answers(own, files)
    if speed and decoded:
        speed, decoded = f"speedup: {speed}", f"tokens per forward: {decoded}"
    named += " (byte-level)" if beside_tokens else ""
    told = [f"Models: {named}", ", ".join(hardware), speed, decoded, _samples(own), _points(own)]
    yield "; ".join(filter(None, told))
    tasks = reading.tasks_of(own, files)
    counted = reading.answers(tasks)
    for name, said in (
        ("Sequential heads from offset 3 on", _readings(own)),
        ("Documents", [*reading.parts(tasks), *reading.probed(own, tasks)]),
        ("Empty answers", reading.of_answers(counted, "empty")),
        (
            "Looped answers (fewer than half of their 8-grams differ)",
            reading.of_answers(counted, "looped"),
        ),
        ("Per token, and not comparable between vocabularies", _vocabularies(tasks)),
        ("Losses from offset 2 on are over the tokens that a drafter can say", _said(own, tasks)),
    ):
        if text := "; ".join(dict.fromkeys(said)):
            yield f"{name}: {text}"
    yield from (f"Note: {note}" for note in dict.fromkeys(own["note"].dropna()))


def _of_paper(rows: pd.DataFrame) -> str:
    printed = ", ".join(dict.fromkeys(rows["source"]))
    settings = ", ".join(filter(None, (_settings(rows), _samples(rows))))
    bold = "; bold as printed" if rows["bold"].notna().any() else ""
    return f"Paper: {printed}, Gloeckle et al. 2024{f' ({settings})' if settings else ''}{bold}"


def _differs(
    own: pd.DataFrame, paper: pd.DataFrame, asked: str, paper_asked: str, in_bytes: bool
) -> Iterator[str]:
    """Yield in what runs and the paper beside them were asked differently."""
    runs, its = [], []
    ways = list(dict.fromkeys(own["protocol"].dropna())) or [asked]
    if paper_asked and ways != [paper_asked]:
        runs += ways
        its.append(paper_asked)
    for name in (*DECODING, *(["n_samples"] if own["at"].notna().any() else [])):
        ours, theirs = (sorted(set(rows[name].dropna())) for rows in (own, paper))
        if len(theirs) == 1 and ours and ours != theirs:
            lengths = " or ".join(words.entry(name, one) for one in ours)
            runs.append(words.in_bytes(lengths) if in_bytes else lengths)
            its.append(words.entry(name, theirs[0]))
    if its:
        yield f"Protocol differs: runs {', '.join(runs)}; the paper {', '.join(its)}"


def _settings(rows: pd.DataFrame) -> str:
    """Return in words how answers were decoded, as far as it is the same in all rows."""
    shared = [name for name in DECODING if rows[name].nunique() == 1]
    return ", ".join(words.entry(name, rows[name].dropna().iloc[0]) for name in shared)


def _samples(rows: pd.DataFrame) -> str:
    """Return in words of how many answers to a problem pass@k is."""
    counts = sorted(set(rows.loc[rows["at"].notna(), "n_samples"].dropna()))
    plural = "" if counts == [1] else "s"
    return f"{' or '.join(map(str, counts))} answer{plural} a problem" if counts else ""


def _readings(own: pd.DataFrame) -> Iterator[str]:
    """Yield how sequential heads beyond the first module were read, and of which models."""
    far = own[own["offset"].fillna(own["k"]) > 2]
    for name, rows in far.groupby("reading"):
        yield f"{name} ({words.listed(rows['label'])})"


def _points(rows: pd.DataFrame) -> str:
    """Return in words of how many tokens a point is, where each is of one position."""
    counts = rows.loc[rows["position"].notna(), "count"].dropna()
    return f"{counts.min()} to {counts.max()} tokens a point" if len(counts) else ""


def _of_answers(own: pd.DataFrame, files: Mapping[str, ResultFile]) -> str:
    """Return in words how tasks decoded answers of their own, which tables leave to the file."""
    said = []
    decoded = own.loc[own["task"].isin(reading.DECODED), ["run", "task"]].drop_duplicates()
    for run, task in decoded.itertuples(index=False, name=None):
        file = files[run]
        abouts = reading.sets_of(file, task).values()
        sources = " and ".join(str(about["source"]) for about in abouts if about.get("source"))
        lengths = [one for one in reading.new_tokens(file, task) if one is not None]
        told = [f"prompts of {sources}" if sources else ""]
        told += [f"at most {max(lengths)} new tokens" if lengths else ""]
        told += [f"batch size {batch}" if (batch := file.mtp.get("batch_size")) else ""]
        said.append(", ".join(filter(None, told)))
    return "; ".join(filter(None, dict.fromkeys(said)))


def _said(own: pd.DataFrame, tasks: list[reading.Task]) -> Iterator[str]:
    """Yield how many tokens drafters can say whose losses are shown."""
    losses = own[own["metric"].isin(LOSSES) & (own["offset"] > 1)]
    for file, _ in tasks:
        said = file.mtp.get("draft_vocabulary")
        if said and file.sha256 in set(losses["run"]):
            yield f"{said:,} ({words.listed([file.label])})"


def _vocabularies(tasks: list[reading.Task]) -> list[str]:
    """Return the vocabularies of models that count in different tokens; nothing for one."""
    sizes: dict[int, list[str]] = {}
    for file, task in tasks:
        if task in PER_TOKEN and type(size := file.mtp.get("vocab_size")) is int:
            sizes.setdefault(size, []).append(file.label)
    told = [f"{size:,} ({words.listed(labels)})" for size, labels in sizes.items()]
    return told if len(told) > 1 else []
