"""What each head knows, beyond the paper: by offset, training step, temperature and position."""

from collections.abc import Callable

import pandas as pd

from mtp_harness.figures.figure import Figure
from mtp_harness.figures.heat import Heat
from mtp_harness.figures.lines import Lines
from mtp_harness.figures.rows import put
from mtp_harness.figures.series import Entry
from mtp_harness.results.tidy import Results, table

REACH = 4
"""Positions on either side of a position in its running mean."""

FEWEST = 100
"""A share of fewer tokens than this is not shown."""

HEAD_METRICS = ("accuracy", "accuracy_cond", "bits_per_byte", "confidence", "tf_agree")
"""Metrics of `mtp_heads`, as shown from left to right."""

RULES = ("accept_greedy", "accept_sampled", "accept_same_noise")
"""Metrics of `mtp_acceptance`: engines, with the likeliest and a sampled draft, and our rule."""

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


FIGURES = (
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
