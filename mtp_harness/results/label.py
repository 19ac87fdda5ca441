"""What a model is called: one rule for every table, figure and page.

`model_args label=…` is its label. Without one it is the last part of the model's name, and as many
parts as tell it apart where another model of the same results is called so, too:

    /ckpt/run1/7B                      7B
    /ckpt/run1/7B and /ckpt/run2/7B    run1/7B and run2/7B
    /ckpt/7B, drafter=/d/tuned         7B + tuned

What another engine than this package's decoded says so, `7B (vllm)`, and is never taken for the
same model.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Model(NamedTuple):
    """What results say of their model's name.

    Attributes:
        label: `label=…` of the model arguments; empty where it was not given.
        name: A folder, or a name on the hub.
        drafter: Likewise, of heads that are not the model's own; empty where they are.
    """

    label: str
    name: str
    drafter: str = ""

    @property
    def parts(self) -> list[str]:
        """The parts of its name."""
        return [part for part in self.name.split("/") if part] or ["model"]

    @property
    def drafter_alone(self) -> "Model":
        """The drafter, as if it were a model."""
        return Model("", self.drafter)


def model_of(content: Mapping[str, Any]) -> Model:
    """Return how a results file calls its model."""
    mtp = content["config"].get("mtp") or {}
    name = content.get("model_name") or mtp.get("pretrained") or ""
    engine = mtp.get("engine")  # absent: this package's own, or the harness's
    by = f" ({_clean(engine.get('name'))})" if isinstance(engine, Mapping) else ""
    label = _clean(mtp.get("label") or "")
    return Model(label and label + by, _clean(name) + by, _clean(mtp.get("drafter") or ""))


def model_of_folder(name: str) -> Model:
    """Return the model that the harness called a folder after: `__ckpt__run1__7B`."""
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
    """Return as many parts of a model's name, from the end, as no other model's label has."""
    own = model.parts
    others = [other for other in models if other.parts != own]
    for count in range(1, len(own)):
        label = "/".join(own[-count:])
        if not any(label == (o.label or "/".join(o.parts[-count:])) for o in others):
            return label
    return "/".join(own)


def _clean(name: object) -> str:
    """Return a name on one line, without half characters, which JSON may hold."""
    return " ".join(str(name).split()).encode("utf-8", "replace").decode()
