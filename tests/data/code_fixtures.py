"""Small problems in the columns of the real data sets, made by hand."""

import json
from pathlib import Path
from typing import Any

MBPP = [
    {
        "task_id": number,
        "text": "Write a function to add two numbers.",
        "code": f"import math\r\ndef add_{number}(a, b):\r\n    return a + b",
        "test_list": [
            f"assert add_{number}(1, 2) == 3",
            f"assert add_{number}(2, 2) == math.floor(4.5)",
            f"assert add_{number}(0, 0) == 0",
        ],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for number in (1, 2, 3, 4, 11, 12, 600)
]
TREE = {
    "task_id": 13,
    "text": "Write a function to find the depth of a tree.",
    "code": "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
    "def depth(n):\n    return 1 + depth(n.left) if n else 0",
    "test_list": ["assert depth(root) == 2"],
    "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)",
    "challenge_test_list": [],
}

SUM_SCRIPT = "print(sum(map(int, input().split())))\n"


def apps_row(number: int, difficulty: str, tests: dict[str, Any], **fields: str) -> dict[str, Any]:
    return {
        "problem_id": number,
        "question": "Add the numbers.",
        "solutions": json.dumps([SUM_SCRIPT]),
        "input_output": json.dumps(tests) if tests else "",
        "difficulty": difficulty,
        "url": "",
        "starter_code": "",
        **fields,
    }


APPS = [
    apps_row(4000, "introductory", {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}),
    apps_row(
        4001,
        "introductory",
        {"fn_name": "pair", "inputs": [[[1, 2]], [[3]]], "outputs": [[[1, 2]], [3]]},
        starter_code="class Solution:\n    def pair(self, xs):\n",
        solutions=json.dumps(
            [
                "class Solution:\n    def pair(self, xs):\n"
                "        return (xs[0], xs[1]) if len(xs) > 1 else xs[0]\n"
            ]
        ),
    ),
    apps_row(4002, "introductory", {}),
    apps_row(3000, "interview", {"inputs": ["1\n"], "outputs": ["1\n"]}),
]

CODE_CONTESTS = [
    {
        "name": "1_A. Sum",
        "description": "Add the numbers.",
        "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
        "private_tests": {"input": ["5 6\n"], "output": ["11\n"]},
        "generated_tests": {"input": [], "output": []},
        "source": 2,
        "difficulty": 7,
        "solutions": {
            "language": [2, 3, 1],
            "solution": ["int main() {}", SUM_SCRIPT, "print raw_input()"],
        },
        "incorrect_solutions": {"language": [3], "solution": ["print(3)"]},
        "time_limit": {"seconds": 2, "nanos": 0},
    }
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_all(folder: Path) -> Path:
    write(folder / "mbpp.jsonl", [*MBPP, TREE])
    write(folder / "apps_test.jsonl", APPS)
    write(folder / "code_contests_test.jsonl", CODE_CONTESTS)
    return folder
