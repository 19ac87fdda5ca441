"""Induction, arithmetic and GSM8K as in the paper; heads, positions and loss beyond it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mtp_harness.figures import words
from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import Select, put, with_most_heads
from mtp_harness.figures.series import Entry
from mtp_harness.figures.style import GREY
from mtp_harness.results.tidy import Results, table

INDUCTION = "`lm_eval --model mtp --tasks mtp_induction -o RESULTS`"
ARITHMETIC = "`lm_eval --model mtp --tasks mtp_arithmetic -o RESULTS`"
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9)
REACH = 4
"""Positions on either side of a position in its running mean."""

FEWEST = 100
"""A share of fewer tokens than this is not shown."""

EXPRESSIONS = ("expressions as this package writes them", "does not say how it writes them")

TWO_TOKENS = "names of two tokens"
"""The paper's names: its models' vocabulary was made for them."""

HEAD_METRICS = ("accuracy", "accuracy_cond", "bits_per_byte", "confidence", "tf_agree")
"""Metrics of `mtp_heads`, as shown from left to right."""

RULES = ("accept_greedy", "accept_sampled", "accept_same_noise")
"""Metrics of `mtp_acceptance`: engines, with the likeliest and a sampled draft, and our rule."""

IN_DOMAIN = 5
"""Most operations in training; more are out of domain."""


def induction(results: Results) -> pd.DataFrame:
    """Return how often head 1 recalls a name that it has read before.

    `protocol` says how many tokens or bytes the names have: byte-level models have none of two.
    """
    rows = table(results, "mtp_induction", "by_data_set", "accuracy")
    rows = rows[rows["offset"].fillna(1) == 1]
    lengths = table(results, "mtp_induction", "by_data_set", "name_tokens")
    by_place = lengths.groupby(["run", "data_set"])["value"].first()
    places = zip(rows["run"], rows["data_set"], strict=True)
    return put(rows, protocol=[_names(by_place.get(place)) for place in places])


def _names(length: float | None) -> str:
    if length is None:
        return "names of unknown length"
    return TWO_TOKENS if length == 2 else f"names of {length:g} bytes"


def stories(results: Results) -> pd.DataFrame:
    """Return the same on stories."""
    rows = induction(results)
    return rows[rows["data_set"] == "stories"]


def apart(rows: pd.DataFrame) -> pd.DataFrame:
    """Put names of different lengths into separate panels: their recall is not comparable."""
    asked = rows["protocol"].fillna(TWO_TOKENS)
    if asked.nunique() < 2:
        return rows
    own = rows["data_set"].map(lambda name: words.entry("data_set", name))
    return put(rows, data_set=own + ", " + asked)


def arithmetic(results: Results, pause: bool) -> pd.DataFrame:
    """Return accuracy by number of operations, with or without pause tokens."""
    rows = table(results, "mtp_arithmetic", "by_operations", "accuracy")
    return rows[(rows["pause_tokens"].fillna(0) > 0) == pause]


def domains(axes: Axes) -> None:
    """Mark where operations exceed those in training."""
    axes.axvline(IN_DOMAIN + 0.5, color=GREY, linewidth=0.7, linestyle=":")
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 5.5, "color": GREY}
    for middle, text in ((3, "in-domain"), (8, "out-of-domain")):
        axes.text(middle, 1.0, text, transform=axes.get_xaxis_transform(), **look)


def gsm8k(results: Results) -> pd.DataFrame:
    """Return pass@k on GSM8K by temperature."""
    values = results.values
    sampled = (values["temperature"] > 0) & values["at"].notna()
    same = ["label", "n", "train_tokens", "train_seed", "metric", "temperature", "n_samples"]
    return with_most_heads(values[(values["task"] == "gsm8k_mtp") & sampled], same)


TRAINING = ["label", "n", "parameters", "train_seed"]
"""Columns that the checkpoints of one training share."""


def last_heads(results: Results) -> pd.DataFrame:
    """Return each head's metrics on real text; of several checkpoints of a training, the last.

    Its label then has its step. Runs without a known step are kept.
    """
    rows = heads(results)
    steps = rows.groupby(TRAINING, dropna=False)["train_step"]
    last, several = steps.transform("max"), steps.transform("nunique") > 1
    of_step = rows["label"] + ", step " + last.astype("string")
    rows = put(rows, label=rows["label"].where(~several | rows["train_step"].isna(), of_step))
    return rows[rows["train_step"].isna() | (rows["train_step"] == last).fillna(True)]


def heads_by_step(results: Results) -> pd.DataFrame:
    """Return the same for trainings with several checkpoints, at each of them."""
    rows = heads(results)
    steps = rows.groupby(TRAINING, dropna=False)["train_step"].transform("nunique")
    return rows[(steps > 1) & rows["train_step"].notna()]


def heads(results: Results) -> pd.DataFrame:
    """Return each head's metrics on real text, with one module's other reading as another line."""
    again = [f"chained_{name}" for name in ("accuracy", "accuracy_cond")]
    rows = table(results, "mtp_heads", "by_offset", *HEAD_METRICS, *again)
    rows = rows[rows["offset"].notna()]
    reading = rows["reading"].where(~rows["metric"].isin(again), "chained")
    return put(rows, reading=reading, metric=rows["metric"].str.removeprefix("chained_"))


def by_temperature(results: Results) -> pd.DataFrame:
    """Return acceptance by each rule of sampling, and at temperature 0, where all are equal.

    At temperature 0, a draft is accepted if it is head 1's own choice (`tf_agree`).
    """
    rows = table(results, "mtp_acceptance", "by_offset", *RULES)
    greedy = table(results, "mtp_heads", "by_offset", "tf_agree")
    same = ["label", "n", "train_tokens", "train_step", "train_seed", "data_set", "documents"]
    greedy = greedy[greedy["offset"] > 1].merge(rows[same].drop_duplicates(), on=same)
    cold = [put(greedy, metric=rule, temperature=0.0) for rule in RULES if len(rows)]
    return pd.concat([rows, *cold], ignore_index=True)


def positions(results: Results) -> pd.DataFrame:
    """Return each head's accuracy by position in the window."""
    return _in_panels(table(results, "mtp_positions", "by_bucket", "accuracy"))


def classes(results: Results) -> pd.DataFrame:
    """Return each head's accuracy by class of token; all parts of a token together, if known."""
    rows = table(results, "mtp_positions", "by_class", "accuracy")
    if (rows["part"] == "all").any():
        rows = rows[rows["part"] == "all"]
    return _in_panels(rows)


def _in_panels(rows: pd.DataFrame) -> pd.DataFrame:
    """Return shares of enough tokens, with the models of one kind of text side by side."""
    enough = rows[(rows["count"] >= FEWEST).fillna(True)]
    return enough.sort_values("data_set", kind="stable")


def by_position(results: Results) -> pd.DataFrame:
    """Return bits per byte by position in the window, running means over positions.

    Nats per token become bits per byte by the bytes per token of the whole data set, as do the ends
    of intervals. Near the ends of the window the mean is over fewer positions, equally many on
    either side. The mean of intervals is at least as wide as the interval of the mean.
    """
    nats = table(results, "mtp_perplexity", "by_position", "cross_entropy")
    whole = table(results, "mtp_perplexity", "by_offset", "cross_entropy", "bits_per_byte")
    place = ["run", "data_set", "offset"]
    both = whole.pivot_table(index=place, columns="metric", values="value", aggfunc="first")
    if nats.empty or not {"cross_entropy", "bits_per_byte"} <= set(both.columns):
        return nats.iloc[:0]
    factor = (both["bits_per_byte"] / both["cross_entropy"]).rename("factor").reset_index()
    bits = nats.merge(factor, on=place).sort_values([*place, "position"], kind="stable")
    ends = ["value", "low", "high"]
    bits[ends] = bits[ends].mul(bits.pop("factor"), axis="index")
    smooth = [_smooth(own[ends]) for _, own in bits.groupby(place, sort=False)]
    bits[ends] = pd.concat(smooth)
    return put(bits, metric="bits_per_byte")


def _smooth(ends: pd.DataFrame) -> pd.DataFrame:
    """Return running means over 2 × REACH + 1 rows, over fewer near both ends."""
    last = len(ends) - 1
    reach = [min(REACH, place, last - place) for place in range(len(ends))]
    means = [ends.iloc[at - r : at + r + 1].mean() for at, r in enumerate(reach)]
    return pd.DataFrame(means, ends.index, dtype="Float64")


def _map(rows: tuple[str, ...], row_words: Callable[[Entry], str], ylabel: str) -> Heat:
    return Heat(
        rows,
        ("offset",),
        ("data_set", "label"),
        row_words,
        lambda column: str(column[0]),
        form="{:.0f}",
        xlabel="head",
        ylabel=ylabel,
        field=(0.4, 0.19),
    )


def _span(row: Entry) -> str:
    return f"{row[0]}–{row[1]}"


def _class(row: Entry) -> str:
    of_class, part = row
    return str(of_class) if part in (None, "all") else f"{of_class}, {part}"


def _pauses(entry: Any) -> str:
    letter = {5: "(a) ", 10: "(b) "}.get(entry)
    return f"{letter}{entry} pause tokens" if letter else str(entry)


def _of_names(
    name: str, caption: str, select: Select, paper: tuple[str, ...] = (), **look: Any
) -> Figure:
    shared: dict[str, Any] = {
        "log_x": True,
        "ticks": SIZES,
        "percent": True,
        "ylabel": "accuracy (%)",
        "share_x": "all",
        "share_y": "all",
        "wrap": 2,
        "size": (2.6, 2.0),
    }
    lines = Lines("parameters", told=(), columns="data_set", **shared, **look)
    protocols = ("", TWO_TOKENS)
    return Figure(
        name, caption, select, lines, INDUCTION, paper, together=apart, protocols=protocols
    )


def _of_operations(name: str, caption: str, pause: bool = False, **look: Any) -> Figure:
    lines = Lines("operations", percent=True, **look)
    command = ARITHMETIC + (""" with `--metadata '{"pause_tokens": 5}'`""" if pause else "")
    select = partial(arithmetic, pause=pause)
    return Figure(name, caption, select, lines, command, protocols=EXPRESSIONS)


FIGURES = (
    _of_names(
        "fig_7",
        "Induction on children stories, by model size. How often head 1 completes a name that it "
        "read before: the paper's second token of two, or the bytes after a name's first.",
        stories,
        ylim=(0.0, 52.0),
    ),
    _of_names(
        "fig_s14",
        "Induction by model size, on several kinds of text. How often head 1 completes a name that "
        "it read before: the paper's second token of two, or the bytes after a name's first.",
        induction,
        ("fig_7", "fig_s14"),
        ylim=(0.0, 100.0),
        order=("stories", "books and stories"),
    ),
    _of_operations(
        "fig_8",
        "Polynomial arithmetic, by number of operations. Share of right answers; more than five "
        "operations did not occur in training (out-of-domain).",
        size=(3.1, 2.5),
        decorate=domains,
    ),
    _of_operations(
        "fig_s15",
        "Polynomial arithmetic with pause tokens before the answer. Share of right answers.",
        pause=True,
        share_y="all",
        columns="pause_tokens",
        size=(3.1, 2.5),
        panel_words=_pauses,
    ),
    _of_operations(
        "fig_s16",
        "Polynomial arithmetic, by number of operations and model size. Share of right answers.",
        told=(),
        columns="parameters",
        ylim=(0.0, 100.0),
        size=(2.6, 2.3),
        decorate=domains,
    ),
    Figure(
        "fig_s13",
        "GSM8K by temperature. Share of problems solved (8-shot, on the final answer) by one of 1, "
        "10 or 100 answers; columns: tokens of training.",
        gsm8k,
        Lines(
            "temperature",
            rows="metric",
            columns="train_tokens",
            order=("pass@1", "pass@10", "pass@100"),
            percent=True,
            ylabel="%",
            solid=True,
            size=(2.6, 1.7),
        ),
        "`lm_eval --model mtp --tasks mtp_paper_gsm8k -o RESULTS`",
    ),
    Figure(
        "fig_heads",
        "What each head knows of real text. Head k predicts k tokens ahead. Accuracy of all tokens "
        "and, where measured, after right drafts; bits per byte: the loss, lower is better; mean "
        "confidence: probability of the head's own choice; agreement: how often it says what head "
        "1 says once it is there.",
        last_heads,
        Lines(
            "offset",
            colour="n",
            rows="data_set",
            columns="metric",
            told=("label", "reading"),
            order=HEAD_METRICS,
            share_x="all",
            share_y="col",
            size=(1.9, 1.7),
        ),
        "`lm_eval --model mtp --tasks mtp_heads -o RESULTS`",
    ),
    Figure(
        "fig_heads_by_step",
        "What each head knows of real text, by training step. Metrics as in fig_heads.",
        heads_by_step,
        Lines(
            "train_step",
            colour="offset",
            rows="data_set",
            columns="metric",
            told=("label", "n", "reading", "train_seed"),
            order=HEAD_METRICS,
            share_x="all",
            share_y="col",
            size=(1.9, 1.7),
        ),
        "`lm_eval --model mtp --model_args pretrained=CHECKPOINT,label=…,train_step=… --tasks "
        "mtp_heads -o RESULTS` for each checkpoint, or `mtp-harness run SUITE --watch PATTERN`",
    ),
    Figure(
        "fig_temperature",
        "How many drafts are accepted by temperature (%), by three rules. Expected along a text, "
        "one draft at every token: by the engines' rule, if a head drafts its likeliest token or "
        "samples one, and by our rule, which gives the same text for every k. At temperature 0 "
        "all agree.",
        by_temperature,
        Lines(
            "temperature",
            colour="offset",
            rows="data_set",
            columns="metric",
            order=RULES,
            ylabel="%",
            share_x="all",
            share_y="all",
            size=(1.9, 1.5),
        ),
        "`lm_eval --model mtp --tasks mtp_heads,mtp_acceptance -o RESULTS` with `--metadata "
        """'{"documents": "built-in", "temperature": 0.6}'` and other temperatures""",
    ),
    Figure(
        "fig_positions",
        "Accuracy (%) of each head, by position in the window. Head k predicts k tokens "
        f"ahead. A number is shown for {FEWEST} tokens or more.",
        positions,
        _map(("position_from", "position_to"), _span, "position (tokens)"),
        "`lm_eval --model mtp --tasks mtp_positions -o RESULTS`",
    ),
    Figure(
        "fig_classes",
        "Accuracy (%) of each head, by class of token. Head k predicts k tokens ahead; the "
        "class is that of the token to be predicted. A number is shown for "
        f"{FEWEST} tokens or more.",
        classes,
        _map(("class", "part"), _class, "class"),
        "`lm_eval --model mtp --tasks mtp_positions -o RESULTS`",
    ),
    Figure(
        "fig_perplexity",
        "Loss of each head, by position in the window. Bits per byte, lower is better; lines and "
        f"bands are running means over {2 * REACH + 1} positions, fewer at both ends.",
        by_position,
        Lines(
            "position",
            colour="offset",
            told=(),
            rows="data_set",
            columns="label",
            share_x="all",
            share_y="all",
            from_zero=True,
        ),
        "`lm_eval --model mtp --tasks mtp_perplexity -o RESULTS`",
    ),
)
