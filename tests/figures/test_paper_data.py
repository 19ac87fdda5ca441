"""The paper's numbers, against the notes they were taken from and against each other."""

import re
from pathlib import Path

import pandas as pd
import pytest

from mtp_harness.figures import paper_data

NOTES = Path(__file__).resolve().parents[3] / "shared" / "paper.md"

HEADINGS = {
    "table_1": "Table 1",
    "fig_3": "Figure 3",
    "fig_4": "Figure 4",
    "fig_5": "Figure 5",
    "fig_s10": "Figure S10",
    "fig_s13": "Figure S13",
    "fig_s14": "Figure S14",
    "fig_s15": "Figure S15",
    "fig_s16": "Figure S16",
    "table_s14": "Table S14",
    **{f"table_s{i}": f"Table S{i}" for i in range(2, 13)},
}


def test_batches_times_steps_of_table_s13_are_its_tokens():
    rows = paper_data.read("table_s13")
    each = rows.pivot(index=["train_data", "label"], columns="metric", values="value")
    assert len(each) == 26 and each.notna().all(axis=None)
    counted = each["batch size (2^20 tokens)"] * 2**20 * each["steps"] / 1e9
    off = (counted - each["tokens (B)"]).abs() > 0.06
    assert list(each.index[off]) == [("codecontests", "7B")]  # 3.41, printed 3.6


DIAGRAMS = {"fig_2", "fig_s11"}


def cell(data: pd.DataFrame, **where) -> float:
    for name, value in where.items():
        data = data[data[name] == value]
    (value,) = data["value"]
    return float(value)


@pytest.mark.parametrize("name", HEADINGS)
def test_numbers_are_those_of_the_notes_as_often_as_there(name):
    if not NOTES.is_file():
        pytest.skip(f"needs {NOTES}")
    text = NOTES.read_text().replace("−", "-").replace("**", "").replace("*", "")
    section = re.split(r"^###? ", text, flags=re.M)
    (body,) = [part for part in section if re.match(rf"{HEADINGS[name]}\b", part)]
    printed = []
    for line in body.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            for field in line.strip("| ").split("|"):
                printed += [abs(float(one)) for one in re.findall(r"-?(?:\d+\.\d+|\.\d+)", field)]
                printed += [float(one) for one in re.findall(r"^ *(\d+) *$", field)]
    held = (paper_data.FOLDER / f"{name}.csv").read_text().splitlines()
    columns = held[0].split(",")
    places = [columns.index(end) for end in ("value", "low", "high") if end in columns]
    own = []
    for line in held[1:]:
        entries = re.findall(r'"[^"]*"|[^,]+|(?<=,)(?=,|$)', line)
        own += [abs(float(entries[place])) for place in places if entries[place]]
    missing = [value for value in own if value not in printed and value not in (0, 1, 100)]
    assert not missing
    assert len(own) >= 14


def test_every_file_is_of_the_paper_and_has_a_figure():
    from mtp_harness.figures.catalogue import FIGURES

    shown = {name for figure in FIGURES.values() for name in figure.paper}
    assert {path.stem for path in paper_data.FOLDER.glob("*.csv")} == shown | {
        "table_s7"
    }  # figure 3's baselines


def test_percentages_become_shares():
    assert cell(
        paper_data.read("table_1"),
        train_data="1T tokens (4 epochs)",
        n=4,
        metric="pass@1",
        data_set="humaneval",
    ) == pytest.approx(0.316)


def test_headline_claims_follow_from_the_data():
    # Abstract: 12 % more problems on HumanEval and 17 % more on MBPP at 13B.
    sizes = paper_data.read("table_s7")
    for data_set, more in (("humaneval", 1.12), ("mbpp", 1.17)):
        own, base = (
            cell(sizes, label="13B", n=n, data_set=data_set, metric="pass@1") for n in (4, 1)
        )
        assert own / base == pytest.approx(more, abs=0.005)
    # Section 3.2: 3.05 times as fast on code; 6.4 times with 8-byte prediction.
    assert cell(paper_data.read("table_s2"), category="code", k=4, metric="speedup") == 3.05
    assert cell(paper_data.read("table_s3"), n=8, k=8, metric="speedup") == 6.39


def test_figures_agree_with_the_tables_they_share():
    # Figure 3's gains are table S7's differences; both are rounded to one decimal.
    gains, sizes = paper_data.read("fig_3"), paper_data.read("table_s7")
    for _, row in gains.iterrows():
        where = {key: row[key] for key in ("label", "data_set", "metric")}
        difference = cell(sizes, n=4, **where) - cell(sizes, n=1, **where)
        assert float(row["value"]) == pytest.approx(difference, abs=0.0012)
        assert row["low"] <= row["value"] <= row["high"]
    # Figure S10 at batch 42 is table S2's code column; latency is one over throughput.
    batches, tabulated = paper_data.read("fig_s10"), paper_data.read("table_s2")
    for k in (1, 2, 3, 4):
        speedup = cell(batches, batch=42, k=k, metric="speedup")
        stated = cell(tabulated, category="code", k=k, metric="speedup")
        assert speedup == pytest.approx(stated, abs=0.006)
        latency = cell(batches, batch=42, k=k, metric="latency over k = 1")
        assert latency == pytest.approx(1 / speedup, abs=0.001)
    # Figure 5 is the mean of figure S12's panels, at both ends.
    mean, each = paper_data.read("fig_5"), paper_data.read("fig_s12")
    for n in (1, 2, 4):
        for step in (2500, 25000):
            panels = each[(each["n"] == n) & (each["train_step"] == step)]["value"]
            assert len(panels) == 7
            assert cell(mean, n=n, train_step=step) == pytest.approx(panels.mean(), abs=0.0005)
    # Figure S16's 100M means are figure 8's, over two runs.
    runs, means = paper_data.read("fig_8"), paper_data.read("fig_s16")
    for n in (1, 2, 4):
        for m in range(1, 7):
            own = runs[(runs["n"] == n) & (runs["operations"] == m)]["value"].mean()
            assert cell(means, label="100M", n=n, operations=m) == pytest.approx(own, abs=0.0011)


def test_averages_of_summaries_are_averages():
    each = paper_data.read("table_s8")
    each = each[(each["metric"] == "rougeL") & (each["aspect"] == "f1")]
    stated = paper_data.read("table_s10")
    for n in (1, 2, 4):
        for tokens in (200_000_000_000, 500_000_000_000):
            own = each[(each["n"] == n) & (each["train_tokens"] == tokens)]["value"]
            assert len(own) == 8
            mean = cell(stated, n=n, train_tokens=tokens, metric="rougeL", aspect="f1")
            assert mean == pytest.approx(own.mean(), abs=1e-4)


def test_epochs_of_summaries_are_whole_and_no_percentages():
    epochs = paper_data.read("table_s8")
    epochs = epochs[epochs["metric"] == "epoch"].sort_values(["train_tokens", "n"])
    assert len(epochs) == 8 * 6 and set(epochs["value"]) == {1, 2, 3}
    for name, printed in (("multi_news", [1, 3, 3, 2, 3, 2]), ("samsum", [3] * 6)):
        assert epochs[epochs["data_set"] == name]["value"].tolist() == printed


def test_orders_of_training_are_those_of_section_1_4():
    parallel = paper_data.read("fig_2")
    assert int(parallel["value"].max()) == 6
    causal = paper_data.read("fig_s11")
    assert sorted(causal["value"]) == list(range(1, 11))
    heads = causal[causal["metric"].str.contains("loss 2 to|loss 1 to")]
    assert heads.sort_values("value")["metric"].tolist() == [  # the furthest head first
        "backward: loss 2 to head 2",
        "backward: loss 1 to head 1",
    ]
