"""Imports point one way, and each third-party library has its home.

    cli -> pipeline -> lm, figures
    lm -> decode, probes -> models        task classes -> scoring, probes, data, sandbox
    figures -> scoring (intervals), tracking; neither torch nor lm_eval

Imports under `if TYPE_CHECKING:` do not run and do not count; imports inside functions do.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mtp_harness"

# unit -> the units it may import. A unit is a folder or a module right below the package.
ALLOWED = {
    "__init__": set(),
    "_startup": {"plugin"},
    "files": set(),
    "harness_files": set(),
    "shots": set(),
    "numbers": set(),
    "response_cache": set(),
    "tables": set(),
    "task_options": {"files", "numbers"},
    "plugin": {"_startup", "files", "sandbox", "shots", "tables", "task_options"},
    "models": {"files"},
    "sandbox": set(),
    "data": {"files"},
    "figures": {"scoring", "tracking", "files", "harness_files"},
    "leaderboard": {"figures", "scoring", "tracking", "files", "harness_files"},
    "report": {"figures", "leaderboard", "scoring", "files"},
    "provenance": set(),
    "export": {"files", "harness_files"},
    "decode": {"models"},
    "training": {"data", "files", "models", "provenance"},
    "probes": {
        "data",
        "decode",
        "models",
        "numbers",
        "plugin",
        "scoring",
        "tables",
        "task_options",
    },
    "scoring": {
        "data",
        "decode",
        "files",
        "harness_files",
        "numbers",
        "plugin",
        "sandbox",
        "shots",
        "tables",
        "task_options",
    },
    "ordinary": {"decode", "generation_args"},
    "totals": {"decode"},
    "model_args": {"files", "numbers"},
    "generation_args": {"numbers"},
    "measure": {"data", "decode", "files", "models", "probes", "provenance"},
    "progress": {"decode"},
    "generation": {"models", "decode", "plugin", "progress", "model_args", "generation_args"},
    "lm": {
        "files",
        "generation",
        "models",
        "decode",
        "probes",
        "plugin",
        "ordinary",
        "provenance",
        "response_cache",
        "totals",
        "model_args",
    },
    "tracking": {"harness_files", "files"},
    "pipeline": {
        "files",
        "harness_files",
        "lm",
        "figures",
        "plugin",
        "models",
        "model_args",
        "generation_args",
        "numbers",
        "sandbox",
        "scoring",
        "task_options",
        "tracking",
    },
    "verify": {"measure", "models", "decode", "data", "sandbox", "scoring", "provenance", "files"},
    "demo": {
        "files",
        "harness_files",
        "measure",
        "models",
        "decode",
        "probes",
        "data",
        "provenance",
    },
    "cli": {
        "pipeline",
        "lm",
        "figures",
        "leaderboard",
        "report",
        "models",
        "training",
        "data",
        "sandbox",
        "scoring",
        "demo",
        "measure",
        "plugin",
        "export",
    },
}
USES_HARNESS = {"lm", "generation", "ordinary", "plugin", "_startup", "cli", "demo", "pipeline"}
HOMES = {
    "transformers": {"models", "training", "lm", "measure", "demo"},
    "matplotlib": {"figures"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


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
            above = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


def imported_units(path: Path) -> set[str]:
    """The units of ours that a file imports, its own left out."""
    dotted = [name.split(".") for name in imported(path)]
    units = {parts[1] for parts in dotted if parts[0] == "mtp_harness" and len(parts) > 1}
    existing = {unit(file) for file in FILES}
    return (units & existing) - {unit(path)}


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
    assert unit(path) in ALLOWED, f"{unit(path)} has no place in ALLOWED yet"
    assert imported_units(path) <= ALLOWED[unit(path)]


def test_allowed_imports_hold_no_circle():
    # plugin and _startup are one thing in two files: the light half and the rest.
    above = {name: below - {"_startup"} for name, below in ALLOWED.items()}
    while above:
        bottom = {name for name, below in above.items() if not below & set(above)}
        assert bottom, f"these import each other: {sorted(above)}"
        above = {name: below for name, below in above.items() if name not in bottom}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_libraries_stay_at_home(path):
    used = libraries(path)
    for library, homes in HOMES.items():
        assert library not in used or unit(path) in homes
    if unit(path) == "figures":
        assert not used & {"torch", "lm_eval"}
    if "lm_eval" in used:
        assert unit(path) in USES_HARNESS or defines_part_of_the_harness(path)


def test_package_itself_imports_nothing_heavy():
    assert libraries(PACKAGE / "__init__.py") <= {"__future__", "pathlib", "typing"}
