"""Study 4: its text, its trainings, its numbers from results made by hand, its outcome; tiny."""

import json
import math
import re
from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from mtp_harness.data.arithmetic import load, problems
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.results.tidy import read_runs
from mtp_harness.scoring.bootstrap import Estimate
from mtp_harness.training import data

from ..figures.runs import table, write_run
from .studies import arithmetic, arithmetic_text, parameters, run, trainings

EVERY = list(product((1, 2, 4), (0, 1, 2)))


@pytest.fixture(scope="module")
def chunk():
    return arithmetic_text.chunk(0, 1000)


def documents(text):
    assert text[:1] == b"\0"
    return text.decode()[1:].split("\0")


def test_documents_are_what_the_task_asks_and_expects(chunk):
    for one in documents(chunk[0]):
        assert re.fullmatch(r"\([-+*@()0-6]+\)=[0-6]{5}\n", one)
    asked = load(count=1, pause_tokens=0)["test"][0]
    prompt = byte_tokenizer(128)(f"{asked['expression']}=").input_ids
    assert bytes(prompt) == f"\0{asked['expression']}=".encode()
    known = {f"{one.expression}={one.answer}\n" for one in problems(3, 1000, 1000)}
    assert len(known & set(documents(chunk[0]))) == 1000


def test_one_to_five_operations_are_equally_frequent_and_mixed(chunk):
    text, n_left_out = chunk
    m = [sum(one.count(operator) for operator in "-+*@") for one in documents(text)]
    counts = Counter(m)
    assert sorted(counts) == [1, 2, 3, 4, 5] and len(m) + n_left_out == 5000
    assert all(1000 - n_left_out <= count <= 1000 for count in counts.values())
    assert Counter(m[:500]).keys() == counts.keys()


def test_no_expression_of_the_task_is_trained_on(chunk):
    text, n_left_out = chunk
    splits = load(operations=[1, 2, 3, 4, 5], pause_tokens=0)
    asked = {one["expression"] for name in ("test", "train") for one in splits[name]}
    trained = {one.partition("=")[0] for one in documents(text)}
    assert not asked & trained
    drawn = [one.expression for m in range(1, 6) for one in problems(m, 1000, 1000)]
    assert n_left_out == sum(one in asked for one in drawn) > 0


def test_the_trainer_reads_the_text(chunk, tmp_path):
    text, n_left_out = chunk
    arithmetic_text.write(tmp_path / "text", text, n_left_out, 1)
    found = data.load(tmp_path / "text")
    assert found.data.tobytes() == text and len(found.held_out) == 0
    assert found.report["n_documents"] == 5000 - n_left_out
    assert found.report["n_bytes"] == len(text)
    again = arithmetic_text.chunk(0, 1000)[0]
    assert again == text != arithmetic_text.chunk(1, 1000)[0]


def test_models_differ_in_n_and_seed_alone_and_have_room_for_ten_operations(tmp_path):
    found = trainings("arithmetic.sh", tmp_path)
    assert [(settings.n, seed) for _, seed, settings in found] == sorted(
        EVERY, key=lambda one: one[::-1]
    )
    counts = [parameters(settings) for _, _, settings in found]
    assert max(counts) <= 1.01 * min(counts) and 5.4e6 <= counts[0] <= 6.6e6
    shared = set()
    for label, _, settings in found:
        assert label == f"arithmetic-6M-n{settings.n}"
        own = vars(settings)
        shared.add(str({k: v for k, v in own.items() if k not in ("n", "ffn", "device")}))
    assert len(shared) == 1
    longest = max(len(one.expression) for one in problems(10, 2000, 0))
    assert 1 + longest + len("=12345\n") <= found[0][2].context


@pytest.mark.parametrize("values", [(0.1, 0.2, 0.15), (-0.3, 0.1, 0.0), (0.5, 0.5, 0.6)])
def test_intervals_are_those_of_students_t(values):
    found = arithmetic.interval(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.9)
    assert found == pytest.approx((np.mean(values), *expected))
    # 2.920 is tabulated for 2 degrees of freedom and 5 % on each side.
    half = 2.920 * np.std(values, ddof=1) / math.sqrt(3)
    assert found.high - found.value == pytest.approx(half, rel=1e-4)


def gap(value, half=0.01):
    return Estimate(value, value - half, value + half)


@pytest.mark.parametrize(
    ("two", "four", "outcome"),
    [
        (0.05, 0.10, "agree"),
        (0.05, 0.005, "inconclusive"),
        (0.05, -0.005, "inconclusive"),
        (0.05, -0.10, "disagree"),
        (-0.10, 0.005, "disagree"),
    ],
)
def test_the_outcome_is_by_the_rule(two, four, outcome):
    assert arithmetic.verdict([gap(two), gap(four)]) == outcome


def accuracy(n, seed, m):
    return (0.5 + 0.08 * n + 0.02 * ((seed + 1) * n % 5)) / m


def write_results(folder, models, operations=range(1, 11), count=2000):
    for n, seed in models:
        rows = [
            [m, pauses, "accuracy", accuracy(n, seed, m) / (1 + pauses), None, None, count]
            for m in operations
            for pauses in (0, 5)
        ]
        tables = {"mtp_arithmetic": {"by_operations": table("operations pause_tokens", rows)}}
        write_run(folder, f"arithmetic-6M-n{n}", n, tables=tables, train_seed=seed)


def test_the_program_says_what_plain_arithmetic_and_scipy_give(tmp_path, capsys):
    write_results(tmp_path, EVERY)
    assert arithmetic.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "\noutcome: agree\n" in said
    inside, beyond, _ = said.split("\n\n")
    for part, ms in ((inside, range(1, 6)), (beyond, range(6, 11))):
        scores = {
            n: [np.mean([accuracy(n, s, m) for m in ms]) for s in range(3)] for n in (1, 2, 4)
        }
        two, four = part.splitlines()[3:5]
        for line, n in ((two, 2), (four, 4)):
            low, high = ttest_rel(scores[n], scores[1]).confidence_interval(0.9)
            mean = np.mean(scores[n]) - np.mean(scores[1])
            assert line.startswith(f"{n}  {np.mean(scores[n]):.3f} ")
            assert f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" in line


def test_an_unfinished_study_has_no_outcome(tmp_path, capsys):
    write_results(tmp_path, EVERY[:-1])
    arithmetic.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert "outcome: unfinished: 1 models are missing, first n = 4, seed 2" in said


def write_training(path, hardware, text="a text"):
    known = dict.fromkeys(("parameters", "versions", "wall_s"))
    known |= {"recipe": {"data_sha256": text}, "hardware": hardware, "curve": [1, 2]}
    path.write_text(json.dumps(known))


def test_a_study_on_two_machines_keeps_the_trainings_and_the_cost_of_both(tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    for place, models, seconds in (("a", EVERY[:3], 60), ("b", EVERY[3:], 90)):
        write_results(tmp_path / place, models)
        write_results(whole, models)
        for n, seed in models:
            training = tmp_path / place / f"arithmetic-6M-n{n}-seed{seed}" / "training.json"
            training.parent.mkdir()
            write_training(training, place)
        for began in (100 * seconds, 101 * seconds):  # stopped, and gone on with
            part = tmp_path / place / "parts" / f"{began}.json"
            part.parent.mkdir(exist_ok=True)
            part.write_text(
                json.dumps({"part": "0", "work": place, "gpu": "0", "seconds": seconds / 2})
            )
        arithmetic.main([str(tmp_path / place), "-o", str(out)])
        record = json.loads((out / "arithmetic.json").read_text())
        assert record["outcome"].startswith("unfinished")
    arithmetic.main([str(whole), "-o", str(out)])
    record = json.loads((out / "arithmetic.json").read_text())
    assert record["outcome"] == "agree" and record["gpu_minutes"] == 2.5
    places = [record["trainings"][f"arithmetic-6M-n{n}-seed{s}"]["hardware"] for n, s in EVERY]
    assert places == ["a"] * 3 + ["b"] * 6
    write_training(tmp_path / "b" / "arithmetic-6M-n4-seed2" / "training.json", "b", "another")
    with pytest.raises(ValueError, match="trained on another text"):
        arithmetic.main([str(tmp_path / "b"), "-o", str(out)])


def test_parts_that_share_a_gpu_cost_its_time_once():
    calls = [(0, "a", "0", 60), (30, "a", "0", 60), (40, "a", "0", 10), (30, "a", "1", 30)]
    calls += [(200, "a", "0", 30), (0, "b", "0", 20)]
    names = ("began", "work", "gpu", "seconds")
    parts = [dict(zip(names, call, strict=True)) for call in calls]
    assert arithmetic.records.minutes(parts) == (90 + 30 + 30 + 20) / 60


def test_part_of_the_operations_is_refused(tmp_path):
    write_results(tmp_path, EVERY, operations=range(1, 5))
    with pytest.raises(ValueError, match="expected each of 1 to 5 once"):
        arithmetic.main([str(tmp_path)])


@pytest.mark.slow  # two trainings and two runs of the harness
def test_the_whole_study_runs_tiny(tmp_path, capsys):
    done = run("arithmetic.sh", tmp_path, "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    arithmetic.main([str(tmp_path / "results"), "-o", str(tmp_path / "out")])
    assert "outcome: unfinished: 7 models" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "arithmetic.json").read_text())
    assert len(record["trainings"]) == 2 and record["gpu_minutes"] > 0
    files = read_runs([tmp_path / "results"]).files.values()
    assert {file.mtp["train_seed"] for file in files} == {0}
