"""Documents of one's own: every shape, the built-in set, and what is wrong in one sentence."""

import ast
import gzip
import json
import re

import datasets
import pytest

from mtp_harness.data.conversations import (
    BUILT_IN,
    KIND,
    QUICK,
    Conversation,
    conversation,
    load,
    read_conversations,
)
from mtp_harness.data.prompts import load as load_prompts
from mtp_harness.data.rows import to_line
from mtp_harness.data.texts import load as load_texts

SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def write(tmp_path, *rows, name="chat.jsonl"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(place, wanted="answer", quick=False):
    return list(load(place, quick, None, "test", wanted)["test"])


def one(**row):
    return conversation(row, "x:1", 1)


def test_every_shape():
    chat = one(id="a", category="small talk", messages=SAID, tools=[{"type": "function"}])
    assert (chat.id, chat.category, chat.messages) == ("a", "small talk", SAID)
    assert chat.tools == [{"type": "function"}] and chat.asked == SAID[:1]
    pair = one(prompt=SAID[:1], completion=SAID[1:], category=None)
    assert (pair.id, pair.category, pair.messages) == ("1", None, SAID)
    plain, bare = one(prompt="2 + 2 =", completion=" 4"), one(prompt="2 + 2 =", completion=None)
    assert (plain.context, plain.text, plain.messages) == ("2 + 2 =", " 4", [])
    assert (bare.context, bare.text) == ("2 + 2 =", "")
    text = one(text="Once upon a time.")
    assert (text.context, text.text) == ("", "Once upon a time.")
    gsm = one(question="How many?", answer="Four. #### 4")
    assert [said["content"] for said in gsm.messages] == ["How many?", "Four. #### 4"]
    every = (chat, pair, plain, bare, text, gsm)
    assert [doc.has_answer for doc in every] == [True, True, True, False, True, True]
    assert [doc.has_prompt for doc in every] == [True, True, True, True, False, True]
    assert all(Conversation(**json.loads(to_line(doc))) == doc for doc in every)


def test_public_sets_by_their_own_columns():
    speed = one(
        question_id="s1",
        category="coding",
        sub_category="c++",
        turns=["Write.", "Rewrite."],
        source="…",
        src_id="…",
        difficulty="easy",
        multiturn=True,
    )
    spec = one(question_id=81, category="writing", turns=["Write.", "Rewrite."], reference=["…"])
    bench = one(prompt_id=7, category="math", prompt=["Write.", "Rewrite."], reference=[])
    asked = [{"role": "user", "content": "Write."}]
    for found, name in ((speed, "s1"), (spec, "81"), (bench, "7")):
        assert (found.id, found.messages, found.n_later_turns) == (name, asked, 1)
        assert not found.has_answer


def test_rows_by_category_in_turns(tmp_path):
    place = write(
        tmp_path,
        *({"id": i, "category": c, "messages": SAID} for i, c in enumerate(("x", "x", "x", 7))),
    )
    rows = rows_of(place)
    assert [(row["data_set"], row["name"]) for row in rows] == [
        *(("x", "0"), ("7", "3"), ("x", "1"), ("x", "2"))
    ]
    assert {(row["kind"], row["source"]) for row in rows} == {(KIND, "documents chat.jsonl")}
    assert load_texts(documents=place)["test"][:] == load_prompts(documents=place)["test"][:]


def test_without_a_category_a_files_name_is_one(tmp_path):
    write(tmp_path, {"text": "a"}, name="set/one.jsonl")
    write(tmp_path, {"text": "b", "category": "c"}, name="set/two.jsonl")
    datasets.Dataset.from_list([{"question": "2 + 2?", "answer": "4"}]).to_parquet(
        tmp_path / "set" / "three.parquet"
    )
    (tmp_path / "set" / "four.jsonl.gz").write_bytes(gzip.compress(b'\n{"text": "x"}\n\n'))
    found = {one.category: one for one in read_conversations(tmp_path / "set")}
    assert set(found) == {"one", "c", "three", "four"}
    assert found["three"].messages[1] == {"role": "assistant", "content": "4"}


def test_what_is_left_out_is_counted(tmp_path, caplog):
    held = "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"
    place = write(
        tmp_path, {"turns": ["a", "b"]}, {"turns": [held]}, {"text": "t"}, {"messages": SAID}
    )
    said = "1 are placeholders, which the benchmark's own script fills"
    source = rows_of(place)[0]["source"]
    assert source == f"documents chat.jsonl (of 4: {said}; 1 have no answer)"
    (row, _) = rows_of(place, "prompt")
    assert row["source"].endswith(f"(of 4: {said}; 1 have no prompt; 1 lose later turns)")
    assert "of 4 documents 1 are placeholders" in caplog.text


def test_quick_takes_a_few_of_each_category():
    rows = rows_of(BUILT_IN, quick=True)
    assert len(rows) == 6 * QUICK and len({row["data_set"] for row in rows}) == 6
    assert rows[0]["source"] == "documents built-in"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "chat.jsonl:1 is not JSON"),
        ("[]", "chat.jsonl:1 is not a JSON object, expected messages"),
        ("{}", "chat.jsonl:1 has nothing, expected messages"),
        ('{"content": "x"}', "chat.jsonl:1 has content, expected messages"),
        ('{"messages": []}', "messages must be a list of objects with role and content"),
        ('{"messages": [{"role": "user"}]}', "messages must be a list of objects"),
        ('{"prompt": "x", "completion": ""}', "its completion is empty"),
        ('{"prompt": "x", "completion": [1]}', "completion must be a list of objects"),
        ('{"text": "x", "tools": "f"}', "tools must be a list of objects"),
        ('{"text": "x", "category": ["y"]}', "category=.'y'., expected a name"),
        ('{"text": "x", "category": "y"}\n\n{"text": "x"}', "1 of 2 documents have no category"),
        (
            '{"turns": ["x"]}',
            "of 1 documents 1 have no answer, expected at least one with an answer",
        ),
        ("", "holds no document, expected one JSON object a line"),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, line, said):
    (tmp_path / "chat.jsonl").write_text(line)
    with pytest.raises(ValueError, match=said) as caught:
        rows_of(str(tmp_path / "chat.jsonl"))
    assert "\n" not in str(caught.value)


def test_places_that_hold_nothing_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"documents=nowhere.jsonl: no such file"):
        read_conversations("nowhere.jsonl")
    with pytest.raises(ValueError, match=r"holds no file, expected .jsonl"):
        read_conversations(tmp_path)
    (tmp_path / "chat.json").write_text("[]")
    with pytest.raises(ValueError, match=r"is of another kind, expected .jsonl"):
        read_conversations(tmp_path / "chat.json")
    with pytest.raises(ValueError, match="of 1 documents 1 have no prompt"):
        rows_of(write(tmp_path, {"text": "x"}), "prompt")
    with pytest.raises(ValueError, match="folder=.* and documents=.*: expected one of them"):
        load_texts(folder=str(tmp_path), documents=BUILT_IN)


def test_a_data_set_of_the_hub(monkeypatch):
    rows = datasets.Dataset.from_list([{"question_id": "a", "category": "c", "turns": ["Hi"]}])
    asked = []

    def loaded(*args, **kwargs):
        asked.append((args, kwargs))
        return rows

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    (found,) = load("nvidia/SPEED-Bench", False, "qualitative", "test", "prompt")["test"]
    assert (found["data_set"], found["source"]) == ("c", "documents nvidia/SPEED-Bench")
    assert asked == [(("nvidia/SPEED-Bench", "qualitative"), {"split": "test"})]

    def offline(*_, **__):
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match="documents=a/b, split=test cannot be loaded .Couldn't"):
        read_conversations("a/b")


def test_the_built_in_set_has_ten_of_each_category_and_they_are_what_they_say():
    found = read_conversations(BUILT_IN)
    names = ["code", "json", "dialogue", "summary", "arithmetic", "story"]
    assert [document.category for document in found] == [name for name in names for _ in range(10)]
    assert len({document.id for document in found}) == 60
    for document in found:
        answer = document.messages[-1]["content"]
        if document.category == "json":
            json.loads(answer)
        if document.category == "code":
            ast.parse(re.fullmatch(r"```python\n(.*)\n```", answer, re.DOTALL)[1])
        if document.category == "arithmetic":
            check_equations(answer)


def check_equations(text):
    """Every `a op b = c` of plain numbers holds."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.findall(
        rf"(?<![\d.])(?<![+−×÷] ){number} ([+−×÷]) {number} = {number}(?!\d| [×+])", text
    )
    assert found, text
    for left, sign, right, result in found:
        a, b, c = float(left), float(right), float(result)
        assert {"+": a + b, "−": a - b, "×": a * b, "÷": a / b}[sign] == pytest.approx(c), text
