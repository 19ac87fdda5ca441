import ast
import warnings

import pytest

from mtp_harness.data.python_source import parse

ODD_ESCAPE = "pattern = '\\d'\n"


def test_an_odd_escape_is_no_matter_for_the_reader():
    with pytest.warns((DeprecationWarning, SyntaxWarning), match="invalid escape"):
        expected = ast.dump(ast.parse(ODD_ESCAPE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ast.dump(parse(ODD_ESCAPE)) == expected


def test_what_is_not_python_is_refused():
    with pytest.raises(SyntaxError):
        parse("def f(:\n")
