"""Real functions with gaps for their most used local names: the induction probe's code variant."""

import ast
import math
from collections.abc import Iterator

from mtp_harness.data.corpus import Corpus
from mtp_harness.data.python_source import parse
from mtp_harness.data.stories import MIN_MENTIONS, Template, gap

_SHORTEST, _LONGEST = 400, 3000
"""Most characters of a function."""


def renamed_functions(corpus: Corpus, count: int) -> list[Template]:
    """Return functions of a code corpus, from as many documents, evenly spread.

    The two most used local names of each, with at least `MIN_MENTIONS` mentions, become gaps.
    Attributes, keywords and strings are not changed. Functions that use names in other ways
    (`global`, f-strings) are left out.
    """
    n = len(corpus.documents)
    if not n:
        return []
    stride = next(s for s in range(int(0.618 * n) | 1, 2 * n) if math.gcd(s, n) == 1)
    found: list[Template] = []
    for i in range(n):  # every document once, neighbours far apart
        document = corpus.documents[i * stride % n]
        template = next(_functions(document.name, document.text), None)
        if template is not None:
            found.append(template)
        if len(found) == count:
            break
    return found


def _functions(name: str, source: str) -> Iterator[Template]:
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = source.split("\n")
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.end_lineno:
            continue
        text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
        places = _name_places(node, text) if _SHORTEST <= len(text) <= _LONGEST else {}
        if len(places) == 2:
            yield Template(f"{name}:{node.name}", _with_gaps_at(text, places))


def _name_places(function: ast.FunctionDef, text: str) -> dict[str, list[tuple[int, int]]]:
    """Return where two local names of a function stand, as (line, column) from 0; or nothing."""
    odd = (ast.Global, ast.Nonlocal, ast.JoinedStr, ast.ClassDef, ast.FunctionDef, ast.Import)
    inside = [node for node in ast.walk(function) if node is not function]
    if not text.isascii() or any(isinstance(node, (*odd, ast.ImportFrom)) for node in inside):
        return {}
    taken = {node.name for node in inside if isinstance(node, ast.ExceptHandler) and node.name}
    taken |= {node.arg for node in inside if isinstance(node, ast.keyword) and node.arg}
    named: dict[str, list[tuple[int, int]]] = {}
    local = {node.arg for node in inside if isinstance(node, ast.arg)}
    for node in inside:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Store):
                local.add(node.id)
            named.setdefault(node.id, []).append((node.lineno, node.col_offset))
        elif isinstance(node, ast.arg):
            named.setdefault(node.arg, []).append((node.lineno, node.col_offset))
    fitting = [n for n in named if n in local - taken and len(named[n]) >= MIN_MENTIONS]
    most = sorted(fitting, key=lambda n: (-len(named[n]), n))[:2]
    first = function.lineno
    return {n: sorted((line - first, column) for line, column in named[n]) for n in most}


def _with_gaps_at(text: str, places: dict[str, list[tuple[int, int]]]) -> str:
    """Replace names by gaps, numbered by first mention."""
    order = sorted(places, key=lambda name: places[name][0])
    every = [(at, name) for name, ats in places.items() for at in ats]
    lines = text.split("\n")
    for (line, column), name in sorted(every, reverse=True):
        before, after = lines[line][:column], lines[line][column + len(name) :]
        lines[line] = before + gap(order.index(name)) + after
    return "\n".join(lines)
