"""Parses Python source of others without warnings about its style."""

import ast
import warnings


def parse(source: str) -> ast.Module:
    r"""Return the tree of a source; nothing is printed about an escape such as "\d".

    Raises:
        SyntaxError: It is not Python.
        ValueError: It holds a NUL character (Python 3.11).
        RecursionError: It is nested too deeply.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)
