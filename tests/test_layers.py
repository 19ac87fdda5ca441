"""Imports point one way, and each third-party library has its home.

    cli → commands → pipeline, training
    lm → probes → harness → decode → models
    tasks (YAML) → scoring, probes, data, sandbox
    figures, leaderboard, report → results, scoring (statistics)

Everything that loads a module counts: imports at the top, imports inside functions, and targets
written as text, such as "mtp_harness.lm:MTPLM". Imports under `if TYPE_CHECKING:` do not run and do
not count.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "mtp_harness"
MOST_AT_THE_TOP = 8

# unit -> the units it may import. A unit is a folder or a module right below the package.
ALLOWED = {
    "__init__": {"probes"},
    "errors": set(),
    "files": set(),
    "results": {"errors", "files"},
    "sandbox": set(),
    "data": {"errors", "files", "results"},
    "models": {"errors", "files"},
    "decode": {"errors", "models"},
    "harness": {"errors", "files", "decode", "models", "sandbox"},
    "scoring": {"data", "decode", "errors", "harness", "results", "sandbox"},
    "probes": {"data", "decode", "errors", "harness", "models", "results", "scoring"},
    "lm": {"errors", "files", "harness", "models", "probes"},
    "vllm": {"decode", "errors", "files", "harness", "models", "probes"},
    "plugin": {"errors", "files", "harness", "lm", "results", "sandbox", "vllm"},
    "_startup": {"plugin"},
    "training": {"files", "models"},
    "figures": {"errors", "files", "results", "scoring"},
    "leaderboard": {"errors", "results", "scoring"},
    "report": {"errors", "files", "leaderboard", "results", "scoring"},
    "pipeline": {
        *("_startup", "errors", "files", "harness", "models", "results", "sandbox", "scoring"),
    },
    "commands": {
        *("_startup", "data", "decode", "errors", "figures", "files", "harness", "leaderboard"),
        *("models", "pipeline", "probes", "report", "results", "sandbox", "scoring", "training"),
        "vllm",
    },
    "cli": {"commands", "errors"},
}
AS_TEXT = {("pipeline", "cli")}
"""Programs started by their module's name: a process of its own, not an import."""

USES_HARNESS = {"lm", "vllm", "harness", "plugin", "_startup", "commands", "pipeline"}
HOMES = {
    "transformers": {"models", "training", "lm", "commands"},
    "matplotlib": {"figures", "commands"},
    "argparse": {"cli", "commands"},
}
LIGHT = {"results", "figures", "leaderboard", "report"}
"""Import neither torch nor lm_eval."""

FILES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, without the bodies of `if TYPE_CHECKING:`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def imported(path: Path) -> set[str]:
    """The dotted names a file imports, `from a import b` as both a and a.b."""
    names = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(CHECKOUT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def named_in_text(path: Path) -> set[str]:
    """The modules of ours that a file names in its texts; docstrings are no targets."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }
    found = {name for text in texts for name in re.findall(r"mtp_harness(?:\.\w+)+", text)}
    # f"mtp_harness.commands.{name}" ends in a folder: all of it can be meant.
    return {name for name in found if name in MODULES}


def edges(path: Path) -> set[str]:
    """The modules of ours that a file loads, itself left out."""
    return (imported(path) & MODULES.keys() | named_in_text(path)) - {dotted(path), "mtp_harness"}


def libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} - {"mtp_harness"}


def defines_part_of_the_harness(path: Path) -> bool:
    """Whether a file has a class that the harness calls: a task or a filter."""
    bases = [
        ast.unparse(base)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    ]
    return any(base.endswith(("Task", "Filter")) for base in bases)


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_down(path):
    home = unit(dotted(path))
    assert home in ALLOWED, f"{home} has no place in ALLOWED yet"
    above = {name for name in edges(path) if unit(name) not in ALLOWED[home] | {home}}
    assert not {name for name in above if (home, unit(name)) not in AS_TEXT}


def test_allowed_imports_hold_no_circle():
    above = dict(ALLOWED)
    while above:
        bottom = {name for name, below in above.items() if not below & set(above)}
        assert bottom, f"these import each other: {sorted(above)}"
        above = {name: below for name, below in above.items() if name not in bottom}


def test_no_two_modules_load_each_other():
    """Not even by a late import: a circle hides which of the two is the lower one."""
    loads = {
        name: {target for target in edges(path) if (unit(name), unit(target)) not in AS_TEXT}
        for name, path in MODULES.items()
    }
    before = -1
    while before != len(loads):  # take away what loads nothing, and what nothing loads
        before = len(loads)
        loaded = set().union(*loads.values())
        loads = {
            name: below & loads.keys()
            for name, below in loads.items()
            if below & loads.keys() and name in loaded
        }
    assert not loads


def test_the_top_level_is_short():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_libraries_stay_at_home(path):
    used, home = libraries(path), unit(dotted(path))
    for library, homes in HOMES.items():
        assert library not in used or home in homes
    if home in LIGHT:
        assert not used & {"torch", "lm_eval"}
    if "lm_eval" in used:
        assert home in USES_HARNESS or defines_part_of_the_harness(path)


def test_package_itself_imports_nothing_heavy():
    assert libraries(PACKAGE / "__init__.py") <= {"__future__", "pathlib", "typing"}
