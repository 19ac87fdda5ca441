"""`model_args loader=module:function`: the user's own function that loads a model.

The function is called with one positional argument, the `pretrained` argument of the run (a str, or
None if the run has none), and returns a `MultiHeadModel`. It decides about dtype; the model is then
moved to the run's device and set to evaluation mode. The tokenizer is given separately, by
`tokenizer=…`.
"""

import importlib
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from mtp_harness.models.checkpoints.checks import one_line
from mtp_harness.models.interface import MultiHeadModel


def load_with(spec: str, pretrained: str | None) -> MultiHeadModel:
    """Load a model with the user's function `module:function`.

    The current folder is importable, as with `python -m`. Exceptions of the function itself are
    passed on unchanged.

    Raises:
        ValueError: `spec` does not name a function that can be imported, or the function did not
            return a `MultiHeadModel`.
    """
    model = find_loader(spec)(pretrained)
    if not isinstance(model, MultiHeadModel):
        kind = type(model)
        raise ValueError(
            f"loader={spec} returned a {kind.__module__}.{kind.__qualname__}, expected a "
            "MultiHeadModel: derive the model from mtp_harness.models.MultiHeadModel"
        )
    return model


def find_loader(spec: str) -> Callable[[str | None], Any]:
    """Return the function that `module:function` names."""
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise ValueError(
            f"loader={spec!r}, expected module:function, for example my_package.my_module:load"
        )
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise ValueError(
            f"loader={spec}: importing {module_name} failed with {type(error).__name__} "
            f"({one_line(error)}), expected a module in {here} or an installed one: correct the "
            "name or the module"
        ) from error
    try:
        function: Any = attrgetter(function_name)(module)
    except AttributeError as error:
        raise ValueError(
            f"loader={spec}: {module_name} ({getattr(module, '__file__', 'built in')}) has no "
            f"{function_name}, expected a function of that name: correct the name"
        ) from error
    if not callable(function):
        raise ValueError(
            f"loader={spec}: {function_name} is a {type(function).__name__}, expected a function"
        )
    return function  # type: ignore[no-any-return]
