r"""Lexemes of a text and their classes: code by Python's own tokenizer, text by a pattern.

Code: keyword, identifier, number, string (an f-string is one, whatever is inside), comment,
operator, newline (line ends, indentation, backslashes that join lines), whitespace (within a line),
untokenisable (text after an error, and characters that Python does not allow).

Text: word, number, punctuation, space.

Classes exclude each other. They are grouped into three kinds of token: "all code" (keyword,
identifier, number, operator), "all text" (string, comment; word and number of texts) and "all
special" (the rest).
"""

import io
import keyword
import re
import token as kinds
import tokenize
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

CODE_CLASSES = tuple(
    "keyword identifier number string comment operator newline whitespace untokenisable".split()
)
TEXT_CLASSES = ("word", "number", "punctuation", "space")
ROLL_UP: dict[str, dict[str, tuple[str, ...]]] = {
    "code": {
        "all code": ("keyword", "identifier", "number", "operator"),
        "all text": ("string", "comment"),
        "all special": ("newline", "whitespace", "untokenisable"),
    },
    "text": {"all text": ("word", "number"), "all special": ("punctuation", "space")},
}
CLASSES = {"code": CODE_CLASSES, "text": TEXT_CLASSES}

_TEXT = re.compile(r"(?P<space>\s+)|(?P<number>\d[\w.,]*(?<=\w))|(?P<word>[^\W_]\w*)|[^\w\s]+|_+")
_GAP = re.compile(r"(?P<newline>\\?\r?\n|\f)|(?P<whitespace>[^\S\n]+)|[^\s\\]+|\\")
_OF_TYPE = {kinds.NUMBER: "number", kinds.STRING: "string", kinds.COMMENT: "comment"}
_OF_TYPE[kinds.OP] = "operator"
_STARTS = {getattr(kinds, "FSTRING_START", -1), getattr(kinds, "TSTRING_START", -1)}
_ENDS = {getattr(kinds, "FSTRING_END", -1), getattr(kinds, "TSTRING_END", -1)}


class Lexeme(NamedTuple):
    """Characters `begin`..`end`-1 of a text, and their class."""

    begin: int
    end: int
    name: str


def lexemes(text: str, kind: str) -> list[Lexeme]:
    """Return the lexemes of a text of a kind (`code` or `text`), which cover it without gaps."""
    if kind == "code":
        return list(_of_code(text))
    return [
        Lexeme(*match.span(), match.lastgroup or "punctuation") for match in _TEXT.finditer(text)
    ]


def _of_code(text: str) -> Iterator[Lexeme]:
    at, at_line_start = 0, True
    for begin, end, name in _python_tokens(text):
        if begin > at:
            yield from _gap(text, at, begin, at_line_start)
        yield Lexeme(begin, end, name)
        at, at_line_start = end, text[end - 1] == "\n"
    if at < len(text):
        yield from _gap(text, at, len(text), at_line_start)


def _gap(text: str, begin: int, end: int, at_line_start: bool) -> Iterator[Lexeme]:
    """Yield what is between two tokens: white space, joined lines, and text outside any token.

    White space at the start of a line is indentation, even if Python ignores it.
    """
    for match in _GAP.finditer(text, begin, end):
        name = match.lastgroup or "untokenisable"
        if name == "whitespace" and at_line_start:
            name = "newline"
        at_line_start = name == "newline"
        yield Lexeme(*match.span(), name)


def _python_tokens(text: str) -> Iterator[Lexeme]:
    """Yield Python's tokens that have characters, up to the first error."""
    lines = list(io.StringIO(text, newline=""))  # lines as the tokenizer counts them
    starts = [0, *accumulate(map(len, lines))]
    depth = begin = 0
    try:
        for one in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            first = starts[min(one.start[0] - 1, len(lines))] + one.start[1]
            last = starts[min(one.end[0] - 1, len(lines))] + one.end[1]
            if one.type in _STARTS:
                begin, depth = (first if not depth else begin), depth + 1
            elif one.type in _ENDS:
                depth -= 1
                if not depth:
                    yield Lexeme(begin, last, "string")
            elif not depth and last > first and (name := _class_of(one)):
                yield Lexeme(first, last, name)
    except (tokenize.TokenError, SyntaxError):
        return


def _class_of(one: tokenize.TokenInfo) -> str | None:
    """Return a token's class; None if `_gap` decides."""
    if one.type == kinds.NAME:
        return "keyword" if keyword.iskeyword(one.string) else "identifier"
    return _OF_TYPE.get(one.type)
