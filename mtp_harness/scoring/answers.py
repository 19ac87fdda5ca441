"""Finds the source code in a model's answer: fenced blocks of instruct models, or plain code.

An answer that is valid Python as a whole is code, whatever its strings contain. Any other answer
with a line that opens with three backticks or tildes is read as Markdown (CommonMark, section 4.5):
its code is the first fenced block that defines the wanted function, or else the first block. If
code comes before a first fence without a language, the prompt opened a block, the fence closes it,
and the code is what comes before the fence. A block that the token budget cut off counts as it is.
An answer without a fence is code from its first character on.

Different from CommonMark: a fence line inside a triple-quoted string of the block's code does not
close the block, and a fence after a list item may be indented by any number of spaces.
"""

import ast
import builtins
import io
import re
from collections.abc import Iterator
from typing import NamedTuple, cast

from mtp_harness.data.python_source import parse

_ITEM = r"(?:[-*+]|\d{1,9}[.)])[ \t]+"
_LIST = re.compile(rf"^[ \t]*{_ITEM}", re.MULTILINE)
# An info string after backticks contains no backticks; otherwise it is code inside a line.
_FENCE = re.compile(
    rf"^(?P<indent>[ \t]*(?:{_ITEM})*)(?P<marks>`{{3,}}(?=[^`\n]*$)|~{{3,}})(?P<info>[^\n]*)\n?",
    re.MULTILINE,
)
_TILDES = re.compile(r"^([ \t]*)~{3,}", re.MULTILINE)
_PYTHON = re.compile(r"[ \t{.]*py(thon)?[23]?\b", re.IGNORECASE)
_QUOTES = ('"""', "'''")


class Block(NamedTuple):
    """The text between two fences of an answer, without the indentation of the first."""

    code: str
    language: str  # the text after the opening fence


def code_of(answer: str, wanted: str = "") -> str:
    """Return the code in an answer.

    If no function name is given, a block marked as Python comes before others.
    """
    fences = list(_FENCE.finditer(answer))
    if not fences or _parsed(answer):
        return answer
    first = _first(answer, fences)
    before = answer[: first.start()]
    blocks = list(_blocks(answer, [fence for fence in fences if fence.start() >= first.start()]))
    if _is_code(before) and _comes_first(before, first, blocks, wanted):
        return before
    if not blocks:
        return answer
    if not any(block.code.strip() for block in blocks):
        return before
    return _chosen(blocks, wanted)


def below(front: str, code: str) -> str:
    """Return code after a preamble, with the code's future imports above both.

    Future imports are legal only at the top of a file, after comments, a docstring and other future
    imports; those elsewhere in the code stay where they are, as an error.
    """
    tree = (_tree(code) if "__future__" in code else None) or ast.Module([], [])
    last = 0
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            last = node.end_lineno or 0
        elif number or ast.get_docstring(tree, clean=False) is None:
            break
    lines = io.StringIO(code, newline="").readlines()
    head = "".join(lines[:last])
    return head + "\n" * (head != "") + front + "".join(lines[last:])


def normalised(code: str) -> str:
    """Return code as exact match compares it: no trailing white space, no empty lines."""
    lines = (line.rstrip() for line in code.expandtabs(4).splitlines())
    return "\n".join(line for line in lines if line)


def _first(answer: str, fences: list[re.Match[str]]) -> re.Match[str]:
    """Return the first fence that is not inside a string of the code before it."""
    for fence in fences:
        before = answer[: fence.start()]
        if _is_code(before):
            return fence
        if not _in_string(before):
            break
    return fences[0]


def _comes_first(before: str, first: re.Match[str], blocks: list[Block], wanted: str) -> bool:
    """Return whether the code before the first fence is the answer's code."""
    bare = not first["info"].strip()
    if not wanted:
        return bare
    continues = before.lstrip("\r\n")[:1] in (" ", "\t")  # the prompt's function continues
    if continues or _holds(before, wanted):
        return True
    return bare and not any(_holds(block.code, wanted) and _parsed(block.code) for block in blocks)


def _chosen(blocks: list[Block], wanted: str) -> str:
    if wanted:
        fitting = [block for block in blocks if _holds(block.code, wanted, indented="")]
        fitting += [block for block in blocks if _holds(block.code, wanted)]
    else:
        fitting = [block for block in blocks if _PYTHON.match(block.language)]
    return (fitting or blocks)[0].code


def _holds(code: str, name: str, indented: str = r"[ \t]*") -> bool:
    """Return whether code defines a function or a method."""
    found = re.search(rf"^{indented}(async )?def {re.escape(name)}\b", code, re.MULTILINE)
    return found is not None


def _blocks(answer: str, fences: list[re.Match[str]]) -> Iterator[Block]:
    """Yield the text between fences."""
    place = 0
    while opening := next((f for f in fences if f.start() >= place and _opens(answer, f)), None):
        code, place = _block(answer, opening, [f for f in fences if f.start() >= opening.end()])
        yield Block(code, opening["info"])


def _opens(answer: str, fence: re.Match[str]) -> bool:
    """Return whether a line may open a block: four spaces make it text, except in a list."""
    indent = fence["indent"]
    return _width(indent) < 4 or bool(indent.strip() or _LIST.search(answer, 0, fence.start()))


def _block(answer: str, opening: re.Match[str], after: list[re.Match[str]]) -> tuple[str, int]:
    """Return the code of a block and where the text after it begins."""
    marks, start, width = opening["marks"], opening.end(), _width(opening["indent"])
    unclosed = _unindented(answer[start:], opening["indent"]), len(answer)
    found = None
    for fence in after:
        if not fence["marks"].startswith(marks) or fence["indent"].strip():
            continue
        here = _unindented(answer[start : fence.start()], opening["indent"]), fence.end()
        closes = not fence["info"].strip() and _width(fence["indent"]) <= max(3, width)
        found = found or (here if closes else None)
        if _parsed(here[0]):
            return here if closes else (here[0], fence.start())
        if found and not _in_string(here[0]):
            return found
    return unclosed if found is None or _parsed(unclosed[0]) else found


def _unindented(code: str, indent: str) -> str:
    """Return a block's lines without the indentation of its opening fence."""
    if not indent:
        return code
    return re.sub(rf"^(?:{re.escape(indent)}| {{1,{_width(indent)}}})", "", code, flags=re.M)


def _width(indent: str) -> int:
    return len(indent.expandtabs(4))


def _in_string(code: str) -> bool:
    """Return whether code may end inside a triple-quoted string; text and comments count, too."""
    return any(code.count(quotes) % 2 for quotes in _QUOTES)


def _is_code(text: str) -> bool:
    """Return whether text is Python that does something; words and headings can be Python, too."""
    return any(map(_acts, _parsed(text) or []))


def _acts(node: ast.stmt) -> bool:
    if isinstance(node, ast.AnnAssign):  # `Language: Python`
        return node.value is not None
    if not isinstance(node, ast.Expr):
        return True
    calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return any(isinstance(f, ast.Name) and hasattr(builtins, f.id) for f in calls)


def _parsed(text: str) -> list[ast.stmt] | None:
    """Return the statements of Python source, which may be the inside of a function.

    None for other text, and for text without statements.
    """
    text = _TILDES.sub(r"\1```", text)  # `~~~ x` is an expression; no code has it
    if tree := _tree(text):
        return tree.body or None
    if tree := _tree(f"if 1:\n{text}"):
        first, *others = tree.body
        return [*cast(ast.If, first).body, *others]
    return None


def _tree(source: str) -> ast.Module | None:
    try:
        return parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
