"""From a model's answer to source code: fenced blocks of instruct models, and plain completions.

An answer with a line that opens with three backticks or tildes is read as Markdown: its code is the
first fenced block, or the first that defines the wanted function where several do not. A block that
the token budget cut off counts as it is. Any other answer is code from its first character on.
"""

import re

_FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})[^\n`]*$", re.MULTILINE)


def code_of(answer: str, wanted: str = "") -> str:
    """Return the code in an answer.

    Args:
        answer: What the model wrote.
        wanted: Name of the function that the code should define; empty for any.
    """
    blocks = _blocks(answer)
    if not blocks:
        return answer
    return next((block for block in blocks if wanted and defines(block, wanted)), blocks[0])


def defines(code: str, name: str) -> bool:
    """Return whether code defines a function at its top level."""
    return re.search(rf"^(async )?def {re.escape(name)}\b", code, re.MULTILINE) is not None


def normalised(code: str) -> str:
    """Return code as exact match compares it: no trailing white space, no empty lines."""
    lines = (line.rstrip() for line in code.expandtabs(4).splitlines())
    return "\n".join(line for line in lines if line)


def _blocks(answer: str) -> list[str]:
    blocks = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(answer):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]):
            blocks.append(answer[opened.end() + 1 : fence.start()])
            opened = None
    if opened is not None:
        blocks.append(answer[opened.end() + 1 :])
    return blocks
