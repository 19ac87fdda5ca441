"""Documents of one's own: every shape, the built-in set, and what is wrong in one sentence."""

import ast
import gzip
import json
import re

import pytest

from mtp_harness.data.conversations import BUILT_IN, conversation, read_conversations

SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def read(tmp_path, *rows):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_conversations(path)


def test_every_shape(tmp_path):
    chat, pair, plain, text, bench, gsm = read(
        tmp_path,
        {"id": "a", "category": "small talk", "messages": SAID, "tools": [{"type": "function"}]},
        {"prompt": SAID[:1], "completion": SAID[1:]},
        {"prompt": "2 + 2 =", "completion": " 4"},
        {"text": "Once upon a time."},
        {"question_id": 81, "category": "writing", "turns": ["Write.", "Rewrite."]},
        {"question": "How many?", "answer": "Four. #### 4"},
    )
    assert (chat.id, chat.category, chat.messages) == ("a", "small talk", SAID)
    assert chat.tools == [{"type": "function"}]
    assert (pair.id, pair.category, pair.messages) == ("2", None, SAID)
    assert (plain.context, plain.text, plain.messages) == ("2 + 2 =", " 4", [])
    assert (text.context, text.text) == ("", "Once upon a time.")
    assert (bench.id, bench.category) == ("81", "writing")
    assert [one["content"] for one in bench.messages] == ["Write."]
    assert [one["content"] for one in gsm.messages] == ["How many?", "Four. #### 4"]
    assert [one.has_answer for one in (chat, pair, plain, text, bench, gsm)] == [
        *(True, True, True, True, False, True)
    ]


def test_a_compressed_file_and_blank_lines(tmp_path):
    path = tmp_path / "chat.jsonl.gz"
    path.write_bytes(gzip.compress(b'\n{"text": "x"}\n\n'))
    (one,) = read_conversations(path)
    assert (one.text, one.id) == ("x", "2")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "chat.jsonl:1 is not JSON"),
        ("[]", "chat.jsonl:1 is no JSON object, expected messages"),
        ("{}", "chat.jsonl:1 has nothing, expected messages"),
        ('{"content": "x"}', "chat.jsonl:1 has content, expected messages"),
        ('{"messages": []}', "must be a list of objects with role and content"),
        ('{"messages": [{"role": "user"}]}', "must be a list of objects with role and content"),
        ('{"prompt": "x", "completion": ""}', "must be a list of objects"),
        ("", "holds no line"),
    ],
)
def test_a_line_of_no_shape_is_named(tmp_path, line, said):
    (tmp_path / "chat.jsonl").write_text(line)
    with pytest.raises(ValueError, match=said) as caught:
        read_conversations(tmp_path / "chat.jsonl")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="documents=nowhere.jsonl: no such file"):
        read_conversations("nowhere.jsonl")
    with pytest.raises(ValueError, match="has role"):
        conversation({"role": "user"}, "x:1", 1)


def test_the_built_in_set_has_ten_of_each_category_and_they_are_what_they_say():
    found = read_conversations(BUILT_IN)
    names = ["code", "json", "dialogue", "summary", "arithmetic", "story"]
    assert [one.category for one in found] == [name for name in names for _ in range(10)]
    assert len({one.id for one in found}) == 60
    for one in found:
        answer = one.messages[-1]["content"]
        if one.category == "json":
            json.loads(answer)
        if one.category == "code":
            ast.parse(re.fullmatch(r"```python\n(.*)\n```", answer, re.DOTALL)[1])
        if one.category == "arithmetic":
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
