"""The texts of probes: what is drawn, what is left out, what is refused."""

import hashlib
import json

import pytest

from mtp_harness.data.texts import DEFAULT, QUICK, beginning, load


def sizes(rows):
    found = {}
    for row in rows:
        found[row["data_set"]] = found.get(row["data_set"], 0) + len(row["text"].encode())
    return found


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def test_quick_default_is_code_and_prose_of_this_python_in_turns():
    rows = load(quick=True)["test"]
    assert [row["data_set"] for row in rows][:6] == ["code", "prose"] * 3
    assert [row["kind"] for row in rows][:2] == ["code", "text"]
    for size in sizes(rows).values():
        assert 0.9 * QUICK.max_bytes < size <= QUICK.max_bytes
    assert max(len(row["text"].encode()) for row in rows) <= QUICK.max_document_bytes
    for row in rows:
        assert row["sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()
    assert "Python 3" in rows[0]["source"]


def test_the_same_documents_every_time_and_others_with_another_seed():
    first, again, other = (load(quick=True, seed=seed)["test"]["name"] for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)


def test_quick_is_a_cap_on_what_is_asked_for(tmp_path):
    folder = write(tmp_path / "t", **{f"{i}_txt": "x" * 999 + "\n" for i in range(300)})
    assert sizes(load(folder=folder, max_bytes=250_000)["test"]) == {"t": 250_000}
    assert sizes(load(folder=folder, max_bytes=250_000, quick=True)["test"]) == {"t": 100_000}
    assert sizes(load(folder=folder, max_bytes=5_000, quick=True)["test"]) == {"t": 5_000}
    assert DEFAULT.max_bytes > QUICK.max_bytes


def test_a_folder_of_code_and_text(tmp_path, caplog):
    folder = write(
        tmp_path / "t",
        a_py="x = 1\n",
        sub__b_txt="words\n",
        empty_txt=" \n",
        binary_txt=b"\xff\xfe",
        nul_txt="a\0b",
        _hidden="no\n",
    )
    rows = load(folder=folder)["test"]
    assert [(r["data_set"], r["kind"], r["name"], r["text"]) for r in rows] == [
        ("t_code", "code", "a.py", "x = 1\n"),
        ("t_text", "text", "sub/b.txt", "words\n"),
    ]
    assert "3 files hold no UTF-8 text" in caplog.text
    assert str(tmp_path) not in json.dumps(rows[:])


def test_a_hugging_face_data_set(tmp_path):
    (tmp_path / "test.jsonl").write_text(
        "\n".join(json.dumps({"body": text}) for text in ("one", "", "two"))
    )
    rows = load(dataset=str(tmp_path), column="body")["test"]
    assert sorted((row["name"], row["text"]) for row in rows) == [
        ("test/0", "one"),
        ("test/2", "two"),
    ]
    assert rows[0]["data_set"] == tmp_path.name and rows[0]["kind"] == "text"


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({"folder": "nowhere"}, ["folder=nowhere", "expected one"]),
        ({"max_bytes": 0}, ["max_bytes=0", "from 1"]),
        ({"max_document_bytes": "9"}, ["max_document_bytes=9", "from 1"]),
        ({"folder": "a", "dataset": "b"}, ["folder=a and dataset=b", "one of them"]),
        ({"split": "train"}, ["give dataset="]),
        ({"dataset": "nowhere/nothing"}, ["dataset=nowhere/nothing", "split=test"]),
    ],
)
def test_refusals_are_one_sentence(metadata, parts, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(**metadata)
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)


def test_wrong_columns_are_named(tmp_path):
    (tmp_path / "test.jsonl").write_text(json.dumps({"body": "x", "title": "y"}))
    with pytest.raises(ValueError, match=r"columns body, title; .*column=text"):
        load(dataset=str(tmp_path))


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="no text to read"):
        load(folder=str(tmp_path))


@pytest.mark.parametrize(
    ("text", "n_bytes", "expected"),
    [
        ("ab\ncd\n", 6, "ab\ncd\n"),
        ("ab\ncd\n", 5, "ab\n"),
        ("ab\ncd\n", 2, "ab"),
        ("äöü", 3, "ä"),  # a character is never cut
        ("\n\nabcd", 4, "\n\nab"),  # blank lines alone would be no text
    ],
)
def test_beginning(text, n_bytes, expected):
    assert beginning(text, n_bytes) == expected
