"""A folder of runs becomes a table; what is damaged is named, and nothing is invented."""

import json
import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from mtp_harness.results import run, schema
from mtp_harness.results.tidy import frame, read_runs, to_csv

from ..figures.damage import NAME, ODD, REMOVED, WHOLE, changed, places, write

MTP = ("config", "mtp")
TABLE = (*MTP, "tables", "mtp_heads", "by_offset")
RESULTS = ("results", "humaneval_mtp")
TEXT = json.dumps(WHOLE)

DAMAGED = {
    "empty": (b"", "it is empty"),
    "blank": (b"  \n", "it is empty"),
    "half written": (TEXT[: len(TEXT) // 2].encode(), "not JSON"),
    "one byte short": (TEXT[:-1].encode(), "not JSON"),
    "two files in one": ((TEXT + TEXT).encode(), "not JSON"),
    "zeros": (b"\0" * 4096, "not JSON"),
    "no text": (b"\xff\xfe\x00\xd8", "not JSON"),
    "a model's weights": (b"\x93NUMPY\x01\x00" + bytes(range(256)), "not JSON"),
    "brackets without end": (b"[" * 200_000, "not JSON"),
    "a list": ([], "no results, configs, config"),
    "null": (None, "no results, configs, config"),
    "k of pass@k beyond all": (
        changed(*RESULTS, f"pass@{10**30},none", to=0.5),
        "expected a whole number",
    ),
    "an offset beyond all": (
        changed(*RESULTS, f"accept_rate_prefix_{10**30},none", to=0.5),
        "expected a whole number",
    ),
    "slots beyond all": (changed(*MTP, "slots", to=2**70), "slots is 118"),
    "a number": (7, "no results, configs, config"),
    "no results": (changed("results", to=REMOVED), "no results"),
    "no configs": (changed("configs", to=REMOVED), "no configs"),
    "no config": (changed("config", to=REMOVED), "no config"),
    "results are a list": (changed("results", to=[1]), "results is [1]"),
    "a task's results are a number": (changed(*RESULTS, to=3), "results.humaneval_mtp is 3"),
    "a task's settings are text": (
        changed("configs", "humaneval_mtp", to="x"),
        "configs.humaneval",
    ),
    "a metric is text": (changed(*RESULTS, "pass@1,none", to="high"), "'high', expected a finite"),
    "a metric is true": (changed(*RESULTS, "pass@1,none", to=True), "True, expected a finite"),
    "a metric is infinite": (changed(*RESULTS, "pass@1,none", to=float("inf")), "inf, expected"),
    "a metric is a list": (changed(*RESULTS, "pass@1,none", to=[0.1]), "expected a finite number"),
    "percent": (changed(*RESULTS, "pass@1,none", to=25.0), "pass@1 is 25, expected a share"),
    "a share below 0": (changed(*RESULTS, "pass@1,none", to=-0.1), "expected a share from 0 to 1"),
    "an interval the wrong way": (
        changed(*RESULTS, "pass@1_low90,none", to=0.9),
        "from 0.9 to 0.5",
    ),
    "a newer schema": (changed(*MTP, "schema", to=99), "schema 99, expected 1"),
    "a schema of words": (changed(*MTP, "schema", to="one"), "schema 'one', expected 1"),
    "settings are a list": (changed("config", "mtp", to=[1]), "config.mtp is [1]"),
    "no n": (changed(*MTP, "n_future_tokens", to=REMOVED), "no config.mtp.n_future_tokens"),
    "n in words": (changed(*MTP, "n_future_tokens", to="four"), "n_future_tokens is 'four'"),
    "n is 0": (changed(*MTP, "n_future_tokens", to=0), "expected at least 1"),
    "n is a half": (changed(*MTP, "n_future_tokens", to=2.5), "n_future_tokens is 2.5"),
    "no k": (changed(*MTP, "draft_heads", to=REMOVED), "no config.mtp.draft_heads"),
    "more heads than the model": (changed(*MTP, "draft_heads", to=5), "at most n = 4"),
    "tokens below 0": (changed(*MTP, "train_tokens", to=-1), "train_tokens is -1"),
    "a step in words": (changed(*MTP, "train_step", to="last"), "train_step is 'last'"),
    "a label that is a number": (changed(*MTP, "label", to=4), "config.mtp.label is 4"),
    "parameters below 0": (changed("config", "model_num_parameters", to=-1), "expected at least 0"),
    "documents are a list": (changed(*MTP, "documents", to=[1]), "config.mtp.documents is [1]"),
    "hardware is text": (changed(*MTP, "hardware", to="H100"), "config.mtp.hardware is 'H100'"),
    "a date in words": (changed("date", to="yesterday"), "date is 'yesterday'"),
    "steps in words": (
        changed(*MTP, "totals", "n_steps_by_verified_drafts", to=["many"]),
        "'many', expected a finite number",
    ),
    "steps below 0": (
        changed(*MTP, "totals", "n_steps_by_verified_drafts", to=[-5]),
        "steps is -5, expected 0 or more",
    ),
    "tables are a list": (changed(*MTP, "tables", to=[1]), "config.mtp.tables is [1]"),
    "a task's tables are a list": (
        changed(*MTP, "tables", "mtp_heads", to=[1]),
        "not tables by name",
    ),
    "a table without columns": (changed(*TABLE, "columns", to=REMOVED), "has no columns"),
    "a table without rows": (changed(*TABLE, "rows", to=REMOVED), "has no rows"),
    "a table without values": (
        changed(*TABLE, "columns", to="data_set offset metric low high count bin".split()),
        "has no column value",
    ),
    "a column that is a number": (changed(*TABLE, "columns", 1, to=7), "has the column 7"),
    "a short row": (changed(*TABLE, "rows", 1, to=["code"]), "has in row 2 not its 7 entries"),
    "a row without a metric": (changed(*TABLE, "rows", 0, 2, to=None), "has no metric in row 1"),
    "an offset in words": (changed(*TABLE, "rows", 0, 1, to="next"), "by_offset.offset is 'next'"),
    "an offset beyond n": (
        changed(*TABLE, "rows", 0, 1, to=9),
        "has offset 9, expected 1 to n = 4",
    ),
    "the same place twice": (changed(*TABLE, "rows", 1, 1, to=1), "two values for data_set=code"),
    "a count below 0": (changed(*TABLE, "rows", 0, 6, to=-3), "expected at least 0"),
    "a table's value is text": (changed(*TABLE, "rows", 0, 3, to="?"), "expected a finite number"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_file_is_named_and_the_others_are_read(tmp_path, kind):
    content, said = DAMAGED[kind]
    bad = write(tmp_path / "bad", content)
    write(tmp_path / "good")
    values, files, problems = read_runs([tmp_path])
    assert [file.name for file in files.values()] == ["good/" + bad.name]
    assert set(values["file"]) == {"good/" + bad.name}
    assert len(problems) == 1
    assert str(bad) in problems[0] and said in problems[0]
    assert "\n" not in problems[0] and len(problems[0]) < 600


def test_folder_and_link_in_place_of_a_file_are_named(tmp_path):
    (tmp_path / "results_folder.json").mkdir()
    (tmp_path / "results_link.json").symlink_to(tmp_path / "nowhere")
    write(tmp_path)
    values, _, problems = read_runs([tmp_path])
    assert len(values) and len(problems) == 2
    assert "results_folder.json cannot be read (is a directory)" in problems[0]
    assert "results_link.json cannot be read (no such file or directory)" in problems[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_is_closed_is_named(tmp_path):
    write(tmp_path).chmod(0)
    assert "cannot be read (permission denied)" in read_runs([tmp_path]).problems[0]


def test_nothing_to_read_is_said_with_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*nowhere: give results"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match="holds no results_….json: run `lm_eval"):
        read_runs([tmp_path])


def test_rows_of_a_whole_file(tmp_path):
    write(tmp_path)
    values, files, problems = read_runs([tmp_path])
    assert not problems and len(files) == 1
    assert list(values.columns) == list(schema.COLUMNS)
    assert {name: str(kind) for name, kind in values.dtypes.items()} == schema.COLUMNS
    assert set(values["n"]) == {4} and set(values["parameters"]) == {3863232}
    assert values["train_tokens"].isna().all()  # not told, not invented

    flat = values[values["table"] == "results"].set_index("metric")
    assert set(flat.index) == {"pass@1", "accept_rate_prefix"}  # NaN counted nothing: no row
    passed = flat.loc["pass@1"]
    assert (passed["value"], passed["low"], passed["high"], passed["count"]) == (
        0.25,
        0.125,
        0.5,
        8,
    )
    assert (passed["k"], passed["batch"], passed["temperature"]) == (4, 16, 0)
    assert passed["documents"] == "8 of 164"
    assert flat.loc["accept_rate_prefix", "offset"] == 2

    heads = values[values["task"] == "mtp_heads"]
    assert heads["offset"].tolist() == [1, 2] and heads["value"].tolist() == [0.75, 0.5]
    assert heads["low"].isna().tolist() == [False, True]
    assert heads["k"].isna().all()  # teacher-forced: no head decoded anything

    steps = values[values["metric"] == "steps"]
    assert dict(zip(steps["n_verified"], steps["value"], strict=True)) == {
        0: 10,
        1: 5,
        2: 10,
        3: 75,
    }


def test_sampled_metric_carries_its_temperature_and_task_family(tmp_path):
    content = json.loads(TEXT.replace("humaneval_mtp", "humaneval_mtp_t0.2").replace("@1", "@10"))
    content = json.loads(json.dumps(content).replace("pass@10", "pass@10_sampled"))
    task = content["configs"]["humaneval_mtp_t0.2"]
    task["generation_kwargs"] |= {"do_sample": True, "temperature": 0.2}
    task["repeats"] = 20
    write(tmp_path, content)
    values = read_runs([tmp_path]).values
    (row,) = values[values["metric"] == "pass@10"].to_dict("records")
    assert (row["task"], row["temperature"], row["n_samples"]) == ("humaneval_mtp", 0.2, 20)
    assert (row["low"], row["high"]) == (0.125, 0.5)


def test_copy_counts_once_and_a_repeated_run_counts_newest(tmp_path):
    first = write(tmp_path / "a")
    copy = write(tmp_path / "b")
    again = write(
        tmp_path / "c",
        changed("date", to=1.9e9)
        | {"results": changed(*RESULTS, "pass@1,none", to=0.375)["results"]},
    )
    values, files, problems = read_runs([tmp_path])
    assert len(files) == 2
    assert f"{copy} is a copy of {first}: it is counted once" in problems
    assert f"{first} and {again} both measured humaneval_mtp: the newer counts" in problems
    assert values[values["metric"] == "pass@1"]["value"].tolist() == [0.375]


def test_whole_numbers_where_others_stand_are_numbers(tmp_path):
    write(
        tmp_path, changed(*TABLE, "rows", 0, to=["code", 1, "tokens", 2**53 + 1, -(10**200), 0, 9])
    )
    values, _, problems = read_runs([tmp_path])
    (row,) = values[values["metric"] == "tokens"].to_dict("records")
    assert not problems
    assert (row["value"], row["low"], row["high"]) == (float(2**53 + 1), -1e200, 0.0)


def test_runs_of_other_settings_both_count(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", changed(*MTP, "draft_heads", to=1))
    values, _, problems = read_runs([tmp_path])
    passed = values[values["metric"] == "pass@1"]
    assert sorted(passed["k"]) == [1, 4]
    assert [said for said in problems if "humaneval" in said] == []


def probed(folder, label, columns, *rows):
    """Write a run whose probe has a table and columns of its own."""
    table = {"columns": [*columns.split(), "metric", "value"], "rows": [list(row) for row in rows]}
    content = changed(*MTP, "tables", to={"my_probe": {"by_layer": table}})
    content["config"]["mtp"]["label"] = label
    return write(folder, content)


def test_columns_and_tables_of_a_probe_of_ones_own_are_kept(tmp_path):
    rows = [(3, "wide", "entropy", 0.5), (4, "wide", "entropy", 0.25), (3, None, "entropy", 1.5)]
    probed(tmp_path / "a", "a", "layer kind", *rows)
    write(tmp_path / "b")
    values, _, problems = read_runs([tmp_path])
    assert not problems
    assert list(values.columns) == [*schema.COLUMNS, "layer", "kind"]
    own = values[values["task"] == "my_probe"]
    assert own["layer"].tolist() == [3, 4, 3] and str(own["layer"].dtype) == "Float64"
    assert own["kind"].isna().tolist() == [False, False, True]
    assert set(own["table"]) == {"by_layer"} and own["value"].tolist() == [0.5, 0.25, 1.5]
    assert values[values["task"] == "mtp_heads"]["layer"].isna().all()
    assert ",layer,kind\n" in to_csv(own) and ",3,wide\n" in to_csv(own)


def test_columns_of_ones_own_tell_measurements_apart(tmp_path):
    probed(tmp_path / "a", "a", "layer", (3, "entropy", 0.5))
    probed(tmp_path / "b", "a", "layer", (4, "entropy", 0.25))
    assert read_runs([tmp_path]).values["layer"].dropna().tolist() == [3, 4]
    twice = probed(tmp_path / "c", "c", "layer", (3, "entropy", 0.5), (3, "entropy", 0.7))
    (said,) = read_runs([tmp_path / "c"]).problems
    assert said.startswith(f"{twice}: my_probe has two values for metric=entropy, layer=3.0, ")


def test_numbers_of_one_run_and_words_of_another_are_words(tmp_path):
    probed(tmp_path / "a", "a", "layer", (3, "entropy", 0.5))
    probed(tmp_path / "b", "b", "layer", ("last", "entropy", 0.25), ("\ud800", "entropy", 0.25))
    probed(tmp_path / "c", "c", "layer", (None, "entropy", 0.25))
    values, _, problems = read_runs([tmp_path])
    own = values[values["task"] == "my_probe"]
    assert own["layer"].dropna().tolist() == ["3", "last", "?"] and not problems


def test_a_column_of_ones_own_that_holds_nothing(tmp_path):
    probed(tmp_path, "a", "layer", (None, "entropy", 0.5))
    values, _, problems = read_runs([tmp_path])
    assert values["layer"].isna().all() and not problems


def test_two_models_of_one_name_are_two_models(tmp_path):
    for place, name in enumerate(("/ckpt/run1/7B", "/ckpt/run2/7B", "/ckpt/run2/13B")):
        content = changed("model_name", to=name)
        write(tmp_path / str(place), content)
    values, files, problems = read_runs([tmp_path])
    assert values["label"].unique().tolist() == ["run1/7B", "run2/7B", "13B"] and not problems
    assert [file.label for file in files.values()] == ["run1/7B", "run2/7B", "13B"]
    assert [one.model.label for one in run.find([tmp_path])] == ["run1/7B", "run2/7B", "13B"]
    (tmp_path / "1" / NAME).unlink()
    assert read_runs([tmp_path]).values["label"].unique().tolist() == ["7B", "13B"]


def test_csv_keeps_missing_apart_from_zero():
    text = to_csv(frame([{"task": "a", "value": 0.0}, {"task": "b", "value": 0.1, "k": 0}]))
    assert text == "task,k,value\na,,0\nb,0,0.1\n"
    assert pd.isna(frame([{"value": 1}]).loc[0, "k"])


def test_reading_starts_fast_and_without_torch_or_the_harness(tmp_path):
    write(tmp_path)
    code = (
        "import sys; from mtp_harness.results.tidy import read_runs; "
        f"read_runs([{str(tmp_path)!r}]); "
        "print([m for m in ('torch', 'lm_eval', 'transformers', 'datasets', 'matplotlib') "
        "if m in sys.modules])"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - began
    assert done.stdout == "[]\n"
    assert wall_s < 10  # 0.6 s on an idle machine; the promise is 2


@pytest.mark.slow
def test_a_thousand_files_are_read_within_20_s(tmp_path):
    rows = [["code", 1 + i % 4, f"metric_{i}", 0.5, None, None, 9] for i in range(1000)]
    for i in range(1000):
        content = changed(*TABLE, "rows", to=rows)
        content["config"]["mtp"]["label"] = f"model {i}"
        write(tmp_path / str(i), content)
    began = time.perf_counter()
    values, files, problems = read_runs([tmp_path])
    assert time.perf_counter() - began < 20
    assert len(files) == 1000 and not problems
    assert len(values) == 1000 * (1000 + 2 + 2 + 4)


def test_no_odd_entry_anywhere_ends_in_a_traceback(tmp_path):
    n_named = 0
    for place in places(WHOLE):
        for odd in ODD:
            path = write(tmp_path, changed(*place, to=odd))
            results = read_runs([path])  # raises nothing
            n_named += bool(results.problems)
            for said in results.problems:
                assert str(path) in said and "\n" not in said
    assert n_named > 300
