"""Functions of the running Python's standard library, to summarise in one line: no download.

A document is a function's source without its docstring, `head` its lines before the docstring, and
the reference summary the docstring's first line. Functions are used if that line is a sentence
(four words or more, ending in a full stop), if they have three more lines of code or more, and if
they have 1500 characters or fewer; of equal first lines, the first is used. `SEED` orders them: the
first `N_SHOTS` are few-shot examples, the next `N_TEST` the test split. Other Pythons have other
functions: the results name the version and hash the documents.
"""

import ast
import platform
import random
from collections.abc import Iterator

from mtp_harness.data.corpus import Corpus, code_corpus
from mtp_harness.data.python_source import parse
from mtp_harness.data.rows import Splits, splits

SEED = 0
N_SHOTS = 16
N_TEST = 200
_MIN_WORDS = 4
_MIN_LINES = 3
_MAX_CHARACTERS = 1500

MADE_FROM = f"standard library of Python {platform.python_version()}, seed {SEED}"


def load(**_metadata: object) -> Splits:
    """Return the splits `test` and `shots`, rows of `id`, `head`, `document` and `summary`.

    Raises:
        FileNotFoundError: This Python does not have its library's source.
    """
    rows = functions(code_corpus())
    random.Random(SEED).shuffle(rows)
    return splits({"test": rows[N_SHOTS : N_SHOTS + N_TEST], "shots": rows[:N_SHOTS]}, MADE_FROM)


def functions(corpus: Corpus) -> list[dict[str, str]]:
    """Return the documented functions of a corpus of Python source, in its order."""
    found: dict[str, dict[str, str]] = {}
    for file in corpus.documents:
        for row in _of_file(file.name, file.text):
            found.setdefault(row["summary"], row)
    return list(found.values())


def _of_file(name: str, text: str) -> Iterator[dict[str, str]]:
    try:
        tree = parse(text)
    except SyntaxError:  # the library has broken files to test its tools with
        return
    lines = text.split("\n")
    found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in sorted(found, key=lambda node: node.lineno):
        summary = (ast.get_docstring(node) or "").split("\n")[0].strip()
        head, body = _around_docstring(node, lines)
        if (
            summary.endswith(".")
            and len(summary.split()) >= _MIN_WORDS
            and head
            and body.count("\n") + 1 >= _MIN_LINES
            and len(head) + len(body) < _MAX_CHARACTERS
        ):
            yield {
                "id": f"{name}:{node.lineno}",
                "head": head,
                "document": f"{head}\n{body}",
                "summary": summary,
            }


def _around_docstring(
    node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]
) -> tuple[str, str]:
    """Return a function's lines before and after its first statement, indented from column 0.

    Both are empty if a line, for example of a long string, is indented less than the function.
    """
    first, margin = node.body[0], node.col_offset
    assert first.end_lineno is not None and node.end_lineno is not None
    if any(line[:margin].strip() for line in lines[node.lineno - 1 : node.end_lineno]):
        return "", ""

    def text(start: int, end: int) -> str:
        return "\n".join(line[margin:] for line in lines[start:end]).strip("\n")

    return text(node.lineno - 1, first.lineno - 1), text(first.end_lineno, node.end_lineno)
