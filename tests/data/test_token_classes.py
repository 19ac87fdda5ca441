"""Token classes by hand, and against another lexer on the standard library."""

import keyword
import sys
from collections import Counter

import pytest
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Literal, Name, Number, Operator, Punctuation, String

from mtp_harness.data.corpus import code_corpus, prose_corpus
from mtp_harness.data.token_classes import CLASSES, ROLL_UP, lexemes


def classes(text, kind="code"):
    return [(text[one.begin : one.end], one.name) for one in lexemes(text, kind)]


def test_code_by_hand():
    text = "if x:\n    y = f\"a{b!r:>{w}}\" + r'q'  # hi\n\tz = (1 +\n      2.5e3)\\\n  + 0\n"
    assert classes(text) == [
        ("if", "keyword"),
        (" ", "whitespace"),
        ("x", "identifier"),
        (":", "operator"),
        ("\n", "newline"),
        ("    ", "newline"),
        ("y", "identifier"),
        (" ", "whitespace"),
        ("=", "operator"),
        (" ", "whitespace"),
        ('f"a{b!r:>{w}}"', "string"),
        (" ", "whitespace"),
        ("+", "operator"),
        (" ", "whitespace"),
        ("r'q'", "string"),
        ("  ", "whitespace"),
        ("# hi", "comment"),
        ("\n", "newline"),
        ("\t", "newline"),
        ("z", "identifier"),
        (" ", "whitespace"),
        ("=", "operator"),
        (" ", "whitespace"),
        ("(", "operator"),
        ("1", "number"),
        (" ", "whitespace"),
        ("+", "operator"),
        ("\n", "newline"),
        ("      ", "newline"),
        ("2.5e3", "number"),
        (")", "operator"),
        ("\\\n", "newline"),
        ("  ", "newline"),
        ("+", "operator"),
        (" ", "whitespace"),
        ("0", "number"),
        ("\n", "newline"),
    ]


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('x = """abc\nde', ("de", "untokenisable")),  # cut inside a string
        ("f(1, [2", ("2", "number")),  # cut inside brackets: all tokens before are there
        ("x = $", ("$", "untokenisable")),
        ("if x:\n        y\n    z", ("z", "untokenisable")),  # an indentation that never was
        ("match x:\n    case é: pass", ("pass", "keyword")),  # soft keywords are names
        ("x = 'a\\\nb'", ("'a\\\nb'", "string")),
        ("", None),
    ],
)
def test_ends_of_code(text, last):
    found = classes(text)
    assert "".join(part for part, _ in found) == text
    assert (found[-1] if found else None) == last


def test_text_by_hand():
    assert classes("It's 3.14, x86_64: 1,000! a_b\n", "text") == [
        ("It", "word"),
        ("'", "punctuation"),
        ("s", "word"),
        (" ", "space"),
        ("3.14", "number"),
        (",", "punctuation"),
        (" ", "space"),
        ("x86_64", "word"),
        (":", "punctuation"),
        (" ", "space"),
        ("1,000", "number"),
        ("!", "punctuation"),
        (" ", "space"),
        ("a_b", "word"),
        ("\n", "space"),
    ]


@pytest.mark.parametrize("kind", ["code", "text"])
def test_lexemes_cover_a_text_without_a_gap(kind):
    corpus = code_corpus() if kind == "code" else prose_corpus()
    for document in corpus.documents[::40]:
        at = 0
        for one in lexemes(document.text, kind):
            assert one.begin == at < one.end and one.name in CLASSES[kind]
            at = one.end
        assert at == len(document.text)


def test_roll_up_takes_every_class_once():
    for kind, names in CLASSES.items():
        members = [name for group in ROLL_UP[kind].values() for name in group]
        assert sorted(members) == sorted(names)


def by_pygments(kind):
    """Return the classes that a token type of pygments may have here; None where it has no view."""
    if kind in Comment:
        return {"comment"}
    if kind in String:
        return {"string"}
    if kind in Number:
        return {"number"}
    if kind in Operator and kind is not Operator.Word or kind in Punctuation:
        return {"operator"}
    return None


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="lexers differ on newer syntax")
def test_characters_are_classed_as_another_lexer_does():
    """Pygments knows no grammar either; it reads doc strings and text as parts of several types."""
    agree = Counter()
    for document in code_corpus().documents[::25]:
        text = document.text
        ours = [""] * len(text)
        for one in lexemes(text, "code"):
            ours[one.begin : one.end] = [one.name] * (one.end - one.begin)
        lexer = PythonLexer(stripnl=False, ensurenl=False)
        for at, kind, part in lexer.get_tokens_unprocessed(text):
            for i, character in enumerate(part):
                expected = by_pygments(kind)
                if kind in Keyword or kind in Operator.Word:
                    expected = {"keyword"} if keyword.iskeyword(part) else {"identifier"}
                elif kind in Name and part.isidentifier() and not keyword.iskeyword(part):
                    expected = {"identifier"}
                if expected and not character.isspace() and kind not in Literal.String.Interpol:
                    agree[ours[at + i] in expected] += 1
    assert agree[True] > 0.995 * agree.total() > 100_000
