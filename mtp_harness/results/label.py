"""The name of a model: one rule for every table, figure and page.

`model_args label=…` is its label. Otherwise it is the last part of the model's name, with more
parts if another model of the same results has the same last part:

    /ckpt/run1/7B                      7B
    /ckpt/run1/7B and /ckpt/run2/7B    run1/7B and run2/7B
    /ckpt/7B, drafter=/d/tuned         7B + tuned

A model decoded by another engine than this package's gets its name, `7B (vllm)`, and is never taken
for the same model.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Model(NamedTuple):
    """The parts of a model's name in results."""

    label: str  # `label=…` of the model arguments; empty if not given
    name: str  # a folder, or a name on the hub
    drafter: str = ""  # likewise, for heads that are not the model's own; otherwise empty

    @property
    def parts(self) -> list[str]:
        """The parts of its path."""
        return [part for part in self.name.split("/") if part] or ["model"]

    @property
    def drafter_alone(self) -> "Model":
        """The drafter, as if it were a model."""
        return Model("", self.drafter)


def model_of(content: Mapping[str, Any]) -> Model:
    """Return a results file's name of its model."""
    mtp = content["config"].get("mtp") or {}
    name = content.get("model_name") or mtp.get("pretrained") or ""
    engine = mtp.get("engine")  # absent: this package's own, or the harness's
    by = f" ({_clean(engine.get('name'))})" if isinstance(engine, Mapping) else ""
    label = _clean(mtp.get("label") or "")
    return Model(label and label + by, _clean(name) + by, _clean(mtp.get("drafter") or ""))


def model_of_folder(name: str) -> Model:
    """Return the model that the harness named a folder after: `__ckpt__run1__7B`."""
    return Model("", _clean(name.replace("__", "/")))


def labels_of(models: Iterable[Model]) -> dict[Model, str]:
    """Return the label of each of the models that stand side by side."""
    models = set(models)
    drafters = {model.drafter_alone for model in models if model.drafter}

    def named(model: Model) -> str:
        own = _shortest(model, models)
        return f"{own} + {_shortest(model.drafter_alone, drafters)}" if model.drafter else own

    return {model: model.label or named(model) for model in models}


def _shortest(model: Model, models: Iterable[Model]) -> str:
    """Return the end of a model's name, with as many parts as make it unique."""
    own = model.parts
    others = [other for other in models if other.parts != own]
    for count in range(1, len(own)):
        label = "/".join(own[-count:])
        if not any(label == (o.label or "/".join(o.parts[-count:])) for o in others):
            return label
    return "/".join(own)


def _clean(name: object) -> str:
    """Return a name on one line, without half characters, which JSON may contain."""
    return " ".join(str(name).split()).encode("utf-8", "replace").decode()
