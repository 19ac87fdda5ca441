"""Expressions are read back by Python's own parser and evaluated with whole polynomials in Z."""

import re
from collections import Counter

import pytest

from mtp_harness import tasks_dir
from mtp_harness.data import arithmetic
from mtp_harness.data.arithmetic import composed, multiplied, problems


class Whole:
    """A polynomial over the integers of any degree; nothing is cut or reduced on the way."""

    def __init__(self, coefficients):
        self.c = list(coefficients)

    def __neg__(self):
        return Whole([-a for a in self.c])

    def __add__(self, other):
        size = max(len(self.c), len(other.c))
        padded = [c + [0] * (size - len(c)) for c in (self.c, other.c)]
        return Whole([a + b for a, b in zip(*padded, strict=True)])

    def __mul__(self, other):
        total = [0] * (len(self.c) + len(other.c) - 1)
        for i, a in enumerate(self.c):
            for j, b in enumerate(other.c):
                total[i + j] += a * b
        return Whole(total)

    def __matmul__(self, other):
        total, power = Whole([0]), Whole([1])
        for a in self.represented():  # sum of a_i * other^i, powers first: not Horner
            total, power = total + Whole([a]) * power, power * other
        return total

    def represented(self):
        """The representative of degree below 5 with coefficients 0 … 6."""
        return [a % 7 for a in (self.c + [0] * 5)[:5]]


def value_of(expression):
    python = re.sub(r"\d{5}", lambda found: f"Whole({list(map(int, found[0]))})", expression)
    return "".join(map(str, eval(python, {"Whole": Whole}).represented()))


@pytest.mark.parametrize("operations", range(11))
def test_answers_are_those_of_whole_polynomials(operations):
    for problem in problems(operations, 40, seed=3):
        text = problem.expression
        assert sum(text.count(operator) for operator in "-+*@") == operations
        assert value_of(text) == problem.answer


def test_products_and_compositions_by_hand():
    # (1 + X)(3 + X^4) = 3 + 3X + X^4 + X^5, and X^5 = 0.
    assert multiplied((1, 1, 0, 0, 0), (3, 0, 0, 0, 1)) == (3, 3, 0, 0, 1)
    # f = 2 + X^2 of g = 1 + X: 2 + 1 + 2X + X^2.
    assert composed((2, 0, 1, 0, 0), (1, 1, 0, 0, 0)) == (3, 2, 1, 0, 0)
    # X^4 of 1 + X, modulo 7: 1 4 6 4 1.
    assert composed((0, 0, 0, 0, 1), (1, 1, 0, 0, 0)) == (1, 4, 6, 4, 1)


def test_values_in_the_documentation():
    written = arithmetic.__doc__ + (tasks_dir() / "arithmetic" / "README.md").read_text()
    solved = re.findall(r"(\([-+*@()\d]+\))=(\d{5})", written)
    assert len(solved) == 2
    for expression, answer in solved:
        assert value_of(expression) == answer


def test_draws_are_uniform_and_depend_on_the_seed_alone():
    drawn = problems(1, 4000, seed=0)
    assert drawn == problems(1, 4000, seed=0) != problems(1, 4000, seed=1)
    assert drawn[:10] == problems(1, 10, seed=0)
    operators = Counter(re.search(r"[-+*@]", one.expression)[0] for one in drawn)
    digits = Counter("".join(re.findall(r"\d", "".join(one.expression for one in drawn))))
    # Within five standard deviations of a quarter and a seventh.
    assert all(abs(n - 1000) < 5 * (4000 * 3 / 16) ** 0.5 for n in operators.values())
    total = sum(digits.values())
    assert all(abs(n - total / 7) < 5 * (total * 6 / 49) ** 0.5 for n in digits.values())
    assert len(digits) == 7 and len(operators) == 4


def test_trees_of_all_shapes_come_up():
    shapes = Counter(re.sub(r"\d", "", one.expression) for one in problems(2, 4000, seed=0))
    # A binary root has its other operation on either side with chance 1/2, after 3/4.
    left = sum(
        n for shape, n in shapes.items() if shape.startswith("((") and not shape.endswith("))")
    )
    right = sum(n for shape, n in shapes.items() if shape.endswith("))") and shape[1] in "+*@")
    assert abs(left - 1500) < 150 and abs(right - 1500) < 150


def test_the_first_problems_stay_what_they_are():
    # Kept so that a change of the generator does not go unnoticed: it needs a new VERSION.
    again = [one.expression for one in problems(2, 2, seed=0)]
    assert again == ["(12632+(66325+40106))", "(-(40663@11403))"]
