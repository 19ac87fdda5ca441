"""Adds the `mtp` model and our tasks to a stock `lm_eval`.

`mtp_harness.pth` runs at every Python start and only installs a finder, which imports this module
once `lm_eval` is imported; programs that do not use the harness load nothing of ours. After that,
when one of the modules in `HOOKS` has run, the function of `mtp_harness.plugin` named beside it is
called with that module. Errors are logged and never raised, because `lm_eval` is also used without
us.

`MTP_HARNESS_NO_AUTOLOAD=1` turns the automatic part off; `install` still works when called.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

OFF_SWITCH = "MTP_HARNESS_NO_AUTOLOAD"

# Not one module that imports them all: `lm_eval ls tasks` never reads the models, and registering
# a model before `lm_eval.models` has run hides all built-in ones.
HOOKS = {
    "lm_eval.models": "add_model",
    "lm_eval.tasks.manager": "add_tasks",
    "lm_eval.evaluator": "add_checks",
    "lm_eval._cli.run": "add_closing",
}


class HarnessFinder:
    """Finds the modules in `HOOKS` as Python would, and has our function called after they ran."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the usual spec for a module in `HOOKS`, None for every other module."""
        if name not in HOOKS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _call_after(spec.loader, name)
        return spec


def _call_after(loader: Loader, name: str) -> None:
    """Make `loader` call our hook after it has run module `name`.

    The loader object stays the one that Python made, so that reading sources still works.
    """
    run_module = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        run_module(module)
        if module.__name__ == name:  # one loader serves many modules in a zip archive
            _call_hook(module)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def _call_hook(module: ModuleType) -> None:
    try:
        from mtp_harness import plugin

        getattr(plugin, HOOKS[module.__name__])(module)
    except Exception as error:
        logging.getLogger("mtp_harness").warning(
            "mtp_harness could not add itself to %s (%s: %s); reinstall it, or set %s=1",
            module.__name__,
            type(error).__name__,
            error,
            OFF_SWITCH,
        )


def install() -> None:
    """Make `lm_eval` find us in this process, whatever the off switch says."""
    if any(isinstance(finder, HarnessFinder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, HarnessFinder())
    for name in HOOKS:
        if name in sys.modules:
            _call_hook(sys.modules[name])


if os.environ.get(OFF_SWITCH, "") in ("", "0"):
    install()
