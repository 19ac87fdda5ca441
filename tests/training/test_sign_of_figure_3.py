"""Study 3: its trainings, its numbers from results made by hand, its outcome; all of it, tiny."""

import json
import math
from itertools import product

import numpy as np
import pytest

from mtp_harness.results.tidy import read_runs
from mtp_harness.scoring.bootstrap import Estimate

from ..figures.runs import table, write_run
from ..scripts import ROOT, script
from .studies import parameters, run, sign_of_figure_3, trainings

N_PROBLEMS = 60
SIZES = {"1M": 1_300_000, "15M": 15_000_000, "100M": 100_000_000}


def gaps(*values, half=0.01):
    return [Estimate(value, value - half, value + half) for value in values]


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        (gaps(0.10, 0.05, 0.01), "agree"),
        (gaps(0.10, 0.05, -0.20), "agree"),
        (gaps(0.10, 0.05, 0.05), "inconclusive"),  # does not fall
        (gaps(0.005, 0.003, 0.001), "inconclusive"),  # falls, but the first interval has 0
        (gaps(0.10, 0.12, 0.05), "inconclusive"),
        (gaps(-0.10, -0.20, -0.30), "disagree"),
        (gaps(-0.10, 0.20, 0.10), "disagree"),
        (gaps(0.10, 0.11, 0.12), "disagree"),  # rises
        (gaps(-0.005, -0.004, -0.006), "inconclusive"),
    ],
)
def test_the_outcome_is_by_the_rule(differences, outcome):
    assert sign_of_figure_3.verdict(differences) == outcome


def nats(size, n, seed, problem):
    """Head 1's nats of a problem: `loss` bits per byte more for each head, less in large models."""
    loss = {"1M": 0.04, "15M": 0.02, "100M": 0.01}[size]
    per_byte = 1.2 + 0.3 * math.sin(problem) + loss * (n - 1) * (1 + 0.5 * math.cos(3 * problem))
    return (per_byte + 0.002 * seed * (n - 1)) * length(problem) * math.log(2)


def length(problem):
    return 80 + 7 * problem


def write_results(folder, keys, **told):
    for size, n, seed in keys:
        samples = []
        for problem in range(N_PROBLEMS):
            mine = "humaneval" if problem % 3 == 0 else "mbpp"
            sums = {name: [0, 0, 0, 0] for name in ("humaneval", "mbpp")}
            each = length(problem)
            sums[mine] = [nats(size, n, seed, problem), each, each, each]
            scores = {f"{name}_bits_per_byte_1": value for name, value in sums.items()}
            ids = {name: f"{name}{problem}" for name in ("doc_hash", "prompt_hash")}
            samples.append({**scores, **ids, "filter": "none", "resps": [[""]], "arguments": []})
        rows = [[name, 1, "bits_per_byte", 1.0] for name in ("humaneval", "mbpp")]
        write_run(
            folder,
            f"bytes-{size}-n{n}",
            n,
            parameters=SIZES[size] + n,
            tables={"mtp_solutions": {"by_offset": table("data_set offset", rows)}},
            samples={"mtp_solutions": samples},
            train_seed=seed,
            **told,
        )


EVERY = list(product(SIZES, (1, 2, 4), (0, 1)))


def by_hand(size, n, seed, problems):
    """The difference in bits per byte over some problems, in a plain sum."""
    every = range(N_PROBLEMS)
    own, its = (np.array([nats(size, heads, seed, p) for p in every]) for heads in (n, 1))
    n_bytes = np.array([length(p) for p in every])[problems].sum()
    return (own[problems].sum() - its[problems].sum()) / n_bytes / math.log(2)


def test_differences_are_those_of_plain_sums_and_draws(tmp_path):
    write_results(tmp_path, EVERY)
    rows = sign_of_figure_3.differences(read_runs([tmp_path]))
    draws = np.random.default_rng(7).integers(N_PROBLEMS, size=(1000, N_PROBLEMS))
    both = rows[rows["data_set"] == "HumanEval and MBPP"]
    assert len(both) == 3 * 2 * 3  # sizes, n, two seeds and their mean
    for _, row in both.iterrows():
        size, n = row["label"].removeprefix("bytes-"), row["n"]
        seeds = (0, 1) if row.isna()["train_seed"] else (row["train_seed"],)
        value = np.mean([by_hand(size, n, seed, slice(None)) for seed in seeds])
        assert row["value"] == pytest.approx(value, abs=1e-12)
        assert row.isna()["low"] == (len(seeds) == 1)
        if len(seeds) == 2 and (size, n) == ("15M", 4):
            drawn = [np.mean([by_hand(size, n, seed, some) for seed in seeds]) for some in draws]
            ends = np.quantile(drawn, [0.05, 0.95])
            assert (row["low"], row["high"]) == pytest.approx(ends, abs=0.1 * np.ptp(ends))
    alone = rows[(rows["data_set"] == "mbpp") & (rows["train_seed"] == 1) & (rows["n"] == 4)]
    some = [p for p in range(N_PROBLEMS) if p % 3]
    for size, value in zip(SIZES, alone["value"], strict=True):  # the smallest first
        assert value == pytest.approx(by_hand(size, 4, 1, some), abs=1e-12)


def test_the_program_says_and_writes_the_outcome(tmp_path, capsys):
    results, out = tmp_path / "results", tmp_path / "out"
    write_results(results, EVERY)
    (results / "parts").mkdir()
    for seconds in (60, 90):
        part = {"part": "1M", "work": "a", "gpu": str(seconds), "seconds": seconds}
        (results / "parts" / f"{seconds}.json").write_text(json.dumps(part))
    assert sign_of_figure_3.main([str(results), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert "\noutcome: agree\ncost: 2.5 minutes\n" in said
    gap = by_hand("1M", 4, 0, slice(None))
    assert f"{gap:+.3f}, " in said.splitlines()[4]
    assert sorted(path.name for path in out.iterdir()) == [
        "sign_of_figure_3.csv",
        "sign_of_figure_3.png",
    ]


def test_an_unfinished_study_has_no_outcome(tmp_path, capsys):
    write_results(tmp_path, [("1M", 1, 0), ("1M", 4, 0)])
    sign_of_figure_3.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "outcome: unfinished: 16 models are missing, first 100M, n = 1, seed 0" in said


def test_a_model_measured_twice_is_refused(tmp_path):
    for revision in ("a", "b"):
        write_results(tmp_path, [("1M", 1, 0)], git_revision=revision)
    with pytest.raises(ValueError, match="measured the same model"):
        sign_of_figure_3.read(read_runs([tmp_path]))


@pytest.mark.parametrize("size", SIZES)
def test_models_of_a_size_differ_in_n_and_seed_alone(size, tmp_path):
    found = trainings("sign_of_figure_3.sh", tmp_path, size)
    assert [(label, seed) for label, seed, _ in found] == [
        (f"bytes-{size}-n{n}", seed) for seed in (0, 1) for n in (1, 2, 4)
    ]
    counts = [parameters(settings) for _, _, settings in found]
    assert max(counts) <= 1.01 * min(counts) and 0.9 <= counts[0] / SIZES[size] <= 1.1
    shared = set()
    for label, _, settings in found:
        assert label.endswith(f"n{settings.n}")
        assert settings.steps * settings.rows * settings.context == 98_304_000
        assert settings.peak_lr * settings.width == pytest.approx(0.768)
        assert settings.final_lr_ratio == 0.03
        own = vars(settings)
        shared.add(str({k: v for k, v in own.items() if k not in ("n", "ffn", "device")}))
    assert len(shared) == 1


def test_a_part_can_be_one_model(tmp_path):
    ((label, seed, _),) = trainings("sign_of_figure_3.sh", tmp_path, "100M", "1", "4")
    assert (label, seed) == ("bytes-100M-n4", 1)
    (part,) = (tmp_path / "results" / "parts").iterdir()
    assert json.loads(part.read_text())["part"] == "100M 1 4"


def test_another_size_is_refused(tmp_path):
    done = run("sign_of_figure_3.sh", tmp_path, "2M")
    assert done.returncode == 2 and done.stderr == "no size 2M; expected 1M, 15M or 100M\n"


@pytest.mark.slow  # six trainings and six runs of the harness
def test_the_whole_study_runs_tiny(tmp_path, capsys):
    done = run("sign_of_figure_3.sh", tmp_path, "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    sign_of_figure_3.main([str(tmp_path / "results"), "-o", str(out)])
    assert "outcome: unfinished" in capsys.readouterr().out
    record = json.loads((out / "sign_of_figure_3.json").read_text())
    assert [len(record["trainings"]), len(record["parts"])] == [6, 1]
    seeds = {one["recipe"]["seed"] for one in record["trainings"].values()}
    hashes = {one["recipe"]["data_sha256"] for one in record["trainings"].values()}
    assert seeds == {0} and len(hashes) == 1
    before = sorted((tmp_path / "results").rglob("results_*.json"))
    run("sign_of_figure_3.sh", tmp_path, "--tiny")  # what is finished is not done again
    assert sorted((tmp_path / "results").rglob("results_*.json")) == before
    imported = script(ROOT / "figures" / "import_results.py").main(
        [str(tmp_path / "results"), "--into", str(tmp_path / "in")]
    )
    assert imported == 0 and len(list((tmp_path / "in").rglob("results_*.json"))) == 6
