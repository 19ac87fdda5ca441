"""A suite file: which models, which tasks, which settings.

models:
  - label: n4
    model_args: {pretrained: mtp-bytes-n4}
  - label: n4-ntp
    model_args: {pretrained: mtp-bytes-n4, draft_heads: 1}
tasks:
  - mtp_quick                                   # a task, a tag, or a group, which is expanded
  - task: mbpp_mtp
    limit: 50                                   # settings of this task alone
    metadata: {n_samples: 20, temperature: 0.8, k: [1, 10]}
settings: {batch_size: 16, seed: 1234}          # of all tasks
output: results/                                # or -o; default: the suite's name
include_path: my_tasks/                         # folder with your own tasks
"""

import difflib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mtp_harness.files import expanded, user_path
from mtp_harness.harness.rules import Rule, as_whole, is_whole, whole


def _is_batch_size(value: Any) -> bool:
    return is_whole(value, 1) or re.fullmatch(r"auto(:\d+)?", str(value)) is not None


def _read_seed(value: Any) -> Any:
    return [as_whole(one) for one in value] if isinstance(value, list) else as_whole(value)


def _is_seed(value: Any) -> bool:
    several = value if isinstance(value, list) and len(value) == 4 else [value]
    return all(type(one) is int for one in several)


def _is_limit(value: Any) -> bool:
    return is_whole(value, 1) or (type(value) is float and 0 < value < 1)


_MAPPING = Rule(lambda value: isinstance(value, dict), "names and values")
SETTINGS = {
    "apply_chat_template": Rule(lambda value: type(value) in (bool, str), "true or a name"),
    "batch_size": Rule(_is_batch_size, "a whole number from 1, or auto", as_whole),
    "confirm_run_unsafe_code": Rule(lambda value: type(value) is bool, "true or false"),
    "device": Rule(lambda value: isinstance(value, str), "such as cpu or cuda:0"),
    "gen_kwargs": _MAPPING,
    "limit": Rule(_is_limit, "a whole number from 1, or a share below 1", as_whole),
    "max_batch_size": whole(1),
    "metadata": _MAPPING,
    "num_fewshot": whole(0),
    "seed": Rule(
        _is_seed, "a whole number, or four: of python, numpy, torch and shots", _read_seed
    ),
    "system_instruction": Rule(lambda value: isinstance(value, str), "text"),
}
"""`lm_eval`'s flags that a suite can set, by the same names."""

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class Model(NamedTuple):
    """One column of the comparison."""

    label: str
    model_args: dict[str, Any]
    folder: str = ""  # below the output; empty if it has the label's name


class Asked(NamedTuple):
    """One task, tag or group under `tasks`, with the suite's settings in it."""

    name: str
    settings: dict[str, Any]


class Suite(NamedTuple):
    """The content of a suite file, checked as far as possible without the checkpoints."""

    name: str
    models: tuple[Model, ...]
    tasks: tuple[Asked, ...]
    output: Path
    include_path: str | None = None


def read_suite(path: Path) -> Suite:
    """Return the suite in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, or `make_suite` refuses it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is not YAML ({said}): correct it") from None
    return make_suite(content, path.stem, str(path))


def make_suite(content: Any, name: str, where: str) -> Suite:
    """Return a suite from a file's content.

    Args:
        content: as YAML or JSON has it.
        name: of the suite, and of its output folder unless `output` names another.
        where: begins every message.

    Raises:
        ValueError: a key is unknown, something is missing or empty, or a value is invalid.
    """
    known = ("models", "tasks", "settings", "output", "include_path")
    require_keys(content, known, ("models", "tasks"), where)
    models = [_model(entry, place) for entry, place in _entries(content, "models", where)]
    labels = [model.label for model in models]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{where}: two models are labelled {twice[0]}: give each its own label")
    common = _settings(content.get("settings") or {}, f"{where}: settings")
    tasks = [_asked(entry, common, place) for entry, place in _entries(content, "tasks", where)]
    for key in ("output", "include_path"):
        if not isinstance(content.get(key, ""), str):
            raise ValueError(f"{where}: {key}={content[key]!r}, expected a folder")
    output, include = user_path(content.get("output") or name), content.get("include_path")
    return Suite(name, tuple(models), tuple(tasks), output, include and expanded(include))


def merged(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return two settings merged, the second one winning; metadata key by key."""
    both = {**first, **then}
    if "metadata" in both:
        both["metadata"] = {**first.get("metadata", {}), **then.get("metadata", {})}
    return both


def _entries(content: Mapping[str, Any], key: str, where: str) -> list[tuple[Any, str]]:
    """Return the entries of a list, each with the place that messages about it begin with."""
    entries = content[key]
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{where}: {key} is {entries!r}, expected a list of at least one")
    return [(entry, f"{where}: {key}[{number}]") for number, entry in enumerate(entries)]


def _model(entry: Any, where: str) -> Model:
    require_keys(entry, ("label", "model_args"), ("label",), where)
    label, model_args = str(entry["label"]), entry.get("model_args") or {}
    if not _LABEL.fullmatch(label):
        raise ValueError(
            f"{where}: label {label!r} names a folder, expected letters, digits, and . _ + - "
            "behind the first: change it"
        )
    if not isinstance(model_args, dict) or not all(isinstance(key, str) for key in model_args):
        raise ValueError(f"{where}: model_args is {model_args!r}, expected names and values")
    for name in ("journal", "label"):
        if name in model_args:
            raise ValueError(f"{where}: model_args has {name}, which the suite sets: leave it out")
    return Model(label, model_args)


def _asked(entry: Any, common: dict[str, Any], where: str) -> Asked:
    if isinstance(entry, str):
        return Asked(entry, common)
    require_keys(entry, ("task", *SETTINGS), ("task",), where)
    own = _settings({k: v for k, v in entry.items() if k != "task"}, where)
    if not isinstance(entry["task"], str):
        raise ValueError(f"{where}: task is {entry['task']!r}, expected a name")
    return Asked(entry["task"], merged(common, own))


def _settings(given: Any, where: str) -> dict[str, Any]:
    require_keys(given, tuple(SETTINGS), (), where)
    settings = {name: SETTINGS[name].read(value) for name, value in given.items()}
    for name, value in settings.items():
        if not SETTINGS[name].fits(value):
            raise ValueError(f"{where}: {name}={value!r}, expected {SETTINGS[name].expected}")
    return settings


def require_keys(content: Any, known: Collection[str], needed: Collection[str], where: str) -> None:
    """Refuse what is not a mapping, has an unknown key, or lacks one."""
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {content!r}, expected keys out of {', '.join(known)}")
    for key in content:
        if key not in known:
            raise ValueError(f"{where} has the unknown key {key}; {suggestion(str(key), known)}")
    if missing := [key for key in needed if key not in content]:
        raise ValueError(f"{where} lacks {', '.join(missing)}: add it")


def suggestion(given: str, known: Collection[str]) -> str:
    """Return the known name that a wrong one is close to, or all names, as half a sentence."""
    near = difflib.get_close_matches(given, known, 1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
