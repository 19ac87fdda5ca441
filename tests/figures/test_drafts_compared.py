"""The outcome of the study of sequential and parallel heads, from small results made by hand."""

import csv
import json
import math
import shutil

import pytest

from mtp_harness.scoring.bootstrap import Estimate

from ..scripts import ROOT, script
from .runs import table, write_run

STUDIES = ROOT / "figures" / "studies"
STEPS = 10
N = 40
SHARE = {"parallel": 25, "chained": 30, "reused": 28}
"""Bytes that a kind has per ten steps, on average."""


@pytest.fixture(scope="module")
def study():
    return script(STUDIES / "drafts_compared.py")


def documents(metrics):
    """Return samples of metrics; each is a function of the document's number."""
    hashes = {
        "filter": "none",
        "doc_hash": "d",
        "prompt_hash": "p",
        "arguments": [],
        "resps": [[""]],
    }
    return [hashes | {name: one(i) for name, one in metrics.items()} for i in range(N)]


def write(folder, kind, seed, kept, loops=(), width=192):
    """Write a model's runs: `kept` is how many bytes document i's answer has in `STEPS` steps."""
    speculative = {
        "looping": lambda i: [int(i in loops), 1],
        # An answer that loops would change every number.
        "tokens_per_forward_4": lambda i: [1e6 if i in loops else kept(i), STEPS],
    }
    heads = {}
    for name, mine in (("code", lambda i: i % 2), ("prose", lambda i: 1 - i % 2)):
        heads[f"{name}_text_walk_tokens_per_forward"] = lambda i, mine=mine: [
            mine(i) * kept(i),
            mine(i) * STEPS,
        ]
        heads[f"{name}_bits_per_byte_1"] = lambda i, mine=mine: [
            mine(i) * part for part in (100 * math.log(2), 50, 50, 100)
        ]
    cells = [["self", size, 512, 4, "speedup", size / 8, 0.1, 9.0, 5] for size in (1, 16)]
    told = {"n": 4, "parameters": 1000 + width, "train_seed": seed}
    label = f"{kind}-{width}"
    accuracies = {"code_accuracy_1": 0.8, "code_accuracy_2": 0.7}
    write_run(
        folder / label / "drafts",
        label,
        metrics={"mtp_speculative": {}, "mtp_heads": accuracies},
        samples={"mtp_speculative": documents(speculative), "mtp_heads": documents(heads)},
        **told,
    )
    if seed == 0:
        speed = {"mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells)}}
        write_run(folder / label / "speed", label, tables=speed, **told)


def noisy(share, i):
    """Bytes of document i: documents differ far more than two kinds on one document."""
    return share + 7 * i


def write_all(folder, shares=None, **more):
    shares = shares or {0: SHARE, 1: SHARE}
    for seed, own in shares.items():
        for kind, share in own.items():
            write(folder, kind, seed, lambda i, share=share: noisy(share, i), **more)
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for number, seconds in enumerate((90, 150)):
        part = {"part": "x", "work": "a", "gpu": str(number), "seconds": seconds}
        (folder / "parts" / f"{number}.json").write_text(json.dumps(part))


def lines(study, folder, capsys, *options):
    assert study.main([str(folder), *options]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_better_kind_is_named_by_paired_differences(study, tmp_path, capsys):
    write_all(tmp_path)
    said = lines(study, tmp_path, capsys)
    at = said.index("outcome of width 192, chained minus parallel: chained drafts better")
    # The same in every document, so the interval has no width, however they differ.
    both = "+0.500 [+0.500, +0.500] (40)"
    assert said[at + 1] == f"  tokens_per_forward, seeds 0 and 1 (documents): {both}, {both}"
    assert said[at + 2].endswith(f"(documents): {both}, {both}")
    assert "+0.000 [+0.000, +0.000] (40)" in said[at + 3] and "bits_per_byte" in said[at + 3]
    assert "outcome of width 192, reused minus parallel: reused drafts better" in said
    assert "outcome of width 192, reused minus chained: chained drafts better" in said
    assert said[-1] == "cost: 4.0 minutes"
    (line,) = (one.split() for one in said if one.startswith("chained   0"))
    mean = sum(noisy(30, i) for i in range(N)) / (N * STEPS)
    expected = ["chained", "0", "1,192", *[f"{mean:.3f}"] * 2, "1.000", "0.800", "0.700"]
    assert line == [*expected, "0.125", "2.000"]


def test_seeds_that_disagree_or_an_interval_with_0_decide_nothing(study, tmp_path, capsys):
    write_all(tmp_path, {0: SHARE, 1: SHARE | {"chained": 20, "reused": 25}})
    said = lines(study, tmp_path, capsys)
    assert "outcome of width 192, chained minus parallel: inconclusive" in said  # +.5 and -.5
    assert "outcome of width 192, reused minus parallel: inconclusive" in said  # +.3 and 0
    assert "outcome of width 192, reused minus chained: inconclusive" in said


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (((0.1, 0.2), (0.01, 0.5)), "b drafts better"),
        (((-0.2, -0.1), (-0.3, -0.01)), "a drafts better"),
        (((0.1, 0.2), (0.0, 0.5)), "inconclusive"),
        (((0.1, 0.2), (-0.3, -0.1)), "inconclusive"),
        (((-0.2, 0.0), (-0.3, -0.1)), "inconclusive"),
        (((0.1, 0.2), (float("nan"), float("nan"))), "inconclusive"),
    ],
)
def test_both_seeds_must_exclude_0_on_the_same_side(study, ends, expected):
    assert study.outcome([Estimate(0.0, *one) for one in ends], "a", "b") == expected


def test_prompts_that_either_kind_continues_in_a_loop_are_left_out(study, tmp_path):
    loops = {"parallel": {0, 1}, "chained": {1, 2, 3}}
    for kind, own in loops.items():
        write(tmp_path, kind, 0, lambda i, kind=kind: noisy(SHARE[kind], i), loops=own)
    found = study.read(tmp_path)
    measure = study.MEASURES["tokens_per_forward"]
    one, two = (
        study.sums_of(found[kind, 192, 0, "mtp_speculative"], measure)
        for kind in ("parallel", "chained")
    )
    assert (len(one), len(two)) == (N - 2, N - 3)
    both, n_documents = study.pooled(measure, one, two)
    assert n_documents == N - 4 and both.value == pytest.approx(0.5)
    alone, _ = study.pooled(measure, two)
    kept = [noisy(30, i) for i in range(N) if i not in loops["chained"]]
    assert alone.value == pytest.approx(sum(kept) / (len(kept) * STEPS))


def test_figure_and_table_are_written(study, tmp_path, capsys):
    write_all(tmp_path / "in")
    lines(study, tmp_path / "in", capsys, "-o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "fig_drafts_compared.png").read_bytes()[1:4] == b"PNG"
    with (tmp_path / "out" / "fig_drafts_compared.csv").open() as file:
        rows = list(csv.DictReader(file))
    (row,) = (
        one
        for one in rows
        if (one["seed"], one["kind"], one["base"], one["measure"])
        == ("1", "reused", "chained", "tokens_per_forward")
    )
    assert float(row["value"]) == pytest.approx(-0.2) and row["n_documents"] == "40"
    speedups = {one["at"] for one in rows if one["measure"] == "speedup"}
    assert speedups == {"batch 1", "batch 16"}


def test_a_study_that_is_done_has_outcomes_alone(monkeypatch, study, tmp_path, capsys):
    monkeypatch.setattr(study, "WIDTHS", (192,))
    write_all(tmp_path)
    outcomes = [one for one in lines(study, tmp_path, capsys) if one.startswith("outcome")]
    assert len(outcomes) == 3 and all("width 192" in one for one in outcomes)
    for timed in tmp_path.glob("*/speed"):
        shutil.rmtree(timed)
    (last,) = (one for one in lines(study, tmp_path, capsys) if one.startswith("outcome: "))
    assert "3 measurements are missing, first mtp_speed of parallel-192, seed 0" in last


def test_what_is_not_measured_is_said(study, tmp_path, capsys):
    write_all(tmp_path, {0: SHARE})
    said = lines(study, tmp_path, capsys)
    (line,) = (one for one in said if one.startswith("outcome"))
    assert line == (
        "outcome: unfinished: 21 measurements are missing, first mtp_speculative of parallel-192, "
        "seed 1"
    )
    # What there is stands as it is, and decides nothing.
    at = said.index("chained minus parallel, undecided")
    assert said[at + 1] == "  tokens_per_forward, seed 0 (documents): +0.500 [+0.500, +0.500] (40)"
    write(tmp_path, "parallel", 1, lambda i: noisy(25, i))
    assert lines(study, tmp_path, capsys)[: at + 2] == said[: at + 2]


def test_the_committed_table_is_what_the_results_give(study, tmp_path):
    kept = STUDIES / "results" / "sequential_and_parallel"
    if not kept.is_dir():
        pytest.skip(f"needs {kept}: the study was not run yet")
    study.main([str(kept), "-o", str(tmp_path)])
    name = "fig_drafts_compared.csv"
    assert (tmp_path / name).read_text() == (STUDIES / "results" / name).read_text()


@pytest.mark.parametrize("damage", ["twice", "another", "other documents"])
def test_results_that_are_not_the_studys_are_refused(study, tmp_path, damage):
    write_all(tmp_path)
    if damage == "twice":
        write(tmp_path, "reused", 1, lambda i: 1)
        expected = "both measured mtp_"
    elif damage == "another":
        write_run(tmp_path, "mtp-bytes-n4", metrics={"mtp_heads": {"x": 1.0}})
        expected = "expected a label such as parallel-192 and a seed"
    else:
        for path in (tmp_path / "reused-192" / "drafts").glob("samples_mtp_heads_*"):
            path.write_text(path.read_text().replace('"doc_hash": "d"', '"doc_hash": "e"'))
        expected = "read other documents of mtp_heads"
    with pytest.raises(ValueError, match=expected):
        study.main([str(tmp_path)])
