"""Every task YAML is found under its name, and every function it names exists.

The harness drops a YAML that it cannot read without a word, so a typo would remove a task.
"""

from collections import Counter
from functools import cache

import pytest
import yaml
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from mtp_harness import tasks_dir
from mtp_harness.commands.data import HARNESS_REPOSITORIES
from mtp_harness.errors import UserError

from .data.code_fixtures import write_all
from .data.text_fixtures import write_texts

FILES = sorted(tasks_dir().rglob("*.yaml"))


class Reader(yaml.SafeLoader):
    """Reads a YAML by itself: neither the harness's loader nor its `include`."""


Reader.add_multi_constructor("!", lambda loader, tag, node: node.value)


@cache
def index():
    return TaskManager(include_path=str(tasks_dir()), include_defaults=False).task_index


def read(path):
    return yaml.load(path.read_text(), Loader=Reader)


def names(path):
    """The name or names that a YAML defines; a group's members have files of their own."""
    written = read(path)
    return written["group"] if "group" in written else written["task"]


def test_there_are_tasks():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_yaml_is_in_the_index(path):
    assert index()[names(path)].yaml_path.resolve() == path.resolve()


def test_no_name_is_used_twice():
    assert [name for name, n in Counter(map(names, FILES)).items() if n > 1] == []


def test_index_holds_nothing_else():
    defined = {name for name, entry in index().items() if entry.yaml_path is not None}
    assert defined == set(map(names, FILES))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_functions_of_yaml_exist(path):
    load_yaml(path, resolve_func=True)


def test_no_python_file_hides_a_function():
    # The harness looks for `a.b` as a/b.py beside the YAML before it imports the module a.b.
    assert list(tasks_dir().rglob("*.py")) == []


def members(name):
    """The names below a group, whatever groups lie between; of a task, its own."""
    path = next((path for path in FILES if names(path) == name), None)
    below = read(path)["task"] if path else name
    if isinstance(below, str):
        return {below}
    inner = (one if isinstance(one, str) else one["task"] for one in below)
    return {found for one in inner for found in members(one)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_task_is_built_where_its_documents_are_at_hand(path, monkeypatch, tmp_path):
    if stock := [name for name in HARNESS_REPOSITORIES if name in members(names(path))]:
        pytest.skip(f"needs the hub for the harness's own {', '.join(stock)}")
    monkeypatch.setenv("MTP_HARNESS_DATA", str(write_texts(write_all(tmp_path))))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False)
    try:
        built = manager.load([names(path)])
    except UserError as missing:
        pytest.skip(str(missing))
    assert built["tasks"]


@pytest.mark.slow  # reads thousands of YAMLs
def test_the_harness_has_its_own_tasks_that_our_groups_name():
    found = TaskManager().task_index
    repositories = {
        name: load_yaml(found[name].yaml_path)["dataset_path"] for name in HARNESS_REPOSITORIES
    }
    assert repositories == HARNESS_REPOSITORIES
