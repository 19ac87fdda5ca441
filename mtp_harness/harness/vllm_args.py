"""Checks of the model arguments of `mtp-vllm`, before vLLM starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.harness.rules import Rule, is_name, whole
from mtp_harness.models.checkpoints.checks import local_folder, read_json
from mtp_harness.models.checkpoints.hub import looked_up
from mtp_harness.models.families import promised
from mtp_harness.models.load import is_local, resolve
from mtp_harness.models.sequential import DEFAULT_REUSED, heads_of

METHODS = ("mtp", "eagle", "eagle3", "medusa", "ngram")
VARYING = frozenset({"ngram"})
"""Methods whose number of drafts differs from step to step."""

MOST_DRAFTS = 128
"""`MAX_SPEC_LEN` of vLLM 0.32's rejection sampler, which fails at more only while it decodes."""

_INSTEAD = {
    "acceptance": "vLLM verifies every draft: leave it out, or use --model mtp",
    "draft_threshold": "vLLM drafts a fixed number of tokens: leave it out, or use --model mtp",
    "loader": "vLLM loads its own model classes: use --model mtp for a loader",
    "speculative_config": "it is made of draft_heads, method and drafter: give these",
    "per_request_spec_decode_metrics": "it is set where the engine has it: leave it out",
}
"""Arguments of other models of the harness → why they do not work here, and what to do."""

_HARMLESS = {"acceptance": ("exact",), "draft_threshold": (0, 0.0, "0", "0.0")}

_METHOD = Rule(lambda value: value in METHODS, ", ".join(METHODS))
_DRAFTER = Rule(is_name, "a folder or a name on the hub")


class Speculation(NamedTuple):
    """How vLLM drafts.

    Attributes:
        draft_heads: k; k - 1 tokens are drafted in a step.
        method: vLLM's name for it; empty for NTP.
        config: vLLM's `speculative_config`; None for NTP.
    """

    draft_heads: int
    method: str
    config: dict[str, Any] | None


def refuse_foreign(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for an argument that vLLM does not support, with an alternative."""
    for name, instead in _INSTEAD.items():
        if name in given and given[name] not in _HARMLESS.get(name, ()):
            raise ValueError(
                f"{name}={given[name]} does not work with --model mtp-vllm: {instead}."
            )
    if given.get("draft_heads") == "auto":
        raise ValueError(
            "draft_heads=auto does not work with --model mtp-vllm, whose engine starts with one k: "
            "give a number, and compare runs."
        )


def speculation(own: Mapping[str, Any], name: str, modules: int | None) -> Speculation:
    """Return how vLLM should draft.

    Args:
        own: model arguments; `draft_heads`, `method` and `drafter` are read.
        name: of the checkpoint.
        modules: the number in its configuration; None if that does not say, and vLLM may know.

    Raises:
        ValueError: an argument has an invalid value, or two do not fit together.
    """
    method, drafter = own.get("method"), own.get("drafter")
    for key, value, rule in (("method", method, _METHOD), ("drafter", drafter, _DRAFTER)):
        if value is not None:
            rule.checked(key, value)
    if drafter and method in (None, "mtp", "ngram"):
        raise ValueError(
            f"drafter={drafter} with method={method}, expected method=eagle, eagle3 or medusa: "
            "name the drafter's method."
        )
    if method in ("eagle", "eagle3", "medusa") and not drafter:
        raise ValueError(f"method={method} without drafter=, expected a folder or name: add it.")
    counted = method is None or (method == "mtp" and modules)
    default = heads_of(modules or 0) if counted else DEFAULT_REUSED
    k = own.get("draft_heads")
    k = default if k is None else whole(1).checked("draft_heads", k)
    if k == 1:
        return Speculation(1, "", None)
    if k - 1 > MOST_DRAFTS:
        raise ValueError(
            f"draft_heads={k}, expected at most {MOST_DRAFTS + 1}: vLLM verifies {MOST_DRAFTS} "
            "drafts in a step, so lower it."
        )
    if (method is None and not modules) or (method == "mtp" and modules == 0):
        asked = f"method={method}" if method else f"draft_heads={k}"
        found, more = "promises no MTP module, expected one", ""
        if modules is None:
            found = "does not give a number of MTP modules, expected one"
            more = "method=mtp if vLLM reads such modules, "
        raise ValueError(
            f"{asked}, but the configuration of {name} {found}: use draft_heads=1, {more}or name a "
            "method and its drafter (method=eagle3,drafter=…)."
        )
    config: dict[str, Any] = {"method": method or "mtp", "num_speculative_tokens": k - 1}
    if drafter:
        config["model"] = resolve(drafter)
    return Speculation(k, config["method"], config)


def modules_of(pretrained: str, revision: str | None) -> int | None:
    """Return how many modules a checkpoint's configuration promises; None if it does not say.

    Raises:
        FileNotFoundError: there is no such folder, or none with a configuration.
        ValueError: it cannot be read.
    """
    local = is_local(pretrained)
    folder = local_folder(resolve(pretrained)) if local else looked_up(pretrained, revision)
    return promised(read_json(folder / "config.json")) if folder else None


def require_folders(given: Mapping[str, Any]) -> None:
    """Raise a FileNotFoundError if a further folder is missing: vLLM looks late."""
    for name in ("drafter", "lora_local_path"):
        place = given.get(name)
        if place and is_local(place) and not Path(resolve(place)).is_dir():
            raise FileNotFoundError(
                f"{name}={place} is not a folder, expected one: check the path."
            )


_CHECKED = re.compile(r"^\d+ validation errors? for \w+ (?:Value error, )?")
_DETAILS = re.compile(r" \[type=\w+, input_value=.*?\] For further(?: information visit \S+)?")
_LONGEST = 400


def in_a_sentence(error: Exception) -> str:
    """Return the first sentences of vLLM's error on one line, without what its checks add."""
    text = " ".join(str(error).split()) or type(error).__name__
    if _CHECKED.match(text):
        text = _DETAILS.sub("", _CHECKED.sub("", text))
    short = text[:_LONGEST]
    if len(text) > _LONGEST:  # such as a list of all architectures
        short = short[: short.rfind(". ")] if ". " in short else f"{short}…"
    return short.rstrip(".")
