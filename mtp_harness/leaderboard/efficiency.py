"""How much of n = 1's training data a model needs to reach n = 1's score."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from mtp_harness.results.run import Model
from mtp_harness.scoring.sample_efficiency import tokens_to_reach


def data_needed(scores: Mapping[Model, float], higher_is_better: bool) -> dict[Model, float]:
    """Return, for each family's last checkpoint, tokens needed ÷ tokens of n = 1.

    A family is a model with n > 1 heads at several training tokens: of one label, or else of one
    size. It is compared with the last checkpoint of n = 1 of the same size (within 10 %). Families
    that never reach the score, or have it already at their first checkpoint, are left out.

    Args:
        scores: Of all models, by one metric.
        higher_is_better: Whether more of it is better.
    """
    sign = 1 if higher_is_better else -1
    found = {}
    for family in _families(list(scores)):
        last = family[-1]
        target = _target(last, list(scores))
        if target is None or target.train_tokens is None:
            continue
        points = [(float(model.train_tokens or 0), sign * scores[model]) for model in family]
        tokens = tokens_to_reach(points, sign * scores[target])
        if tokens is not None:
            found[last] = tokens / target.train_tokens
    return found


def _families(models: Sequence[Model]) -> list[list[Model]]:
    """Return the checkpoints of each model, by training tokens; one k for each."""
    told = [model for model in models if model.n > 1 and model.train_tokens is not None]
    one_k = {model._replace(k=0): model for model in sorted(told, key=lambda model: model.k)}
    by_label: dict[object, list[Model]] = defaultdict(list)
    for model in one_k.values():
        by_label[model.label, model.n, model.train_seed].append(model)
    by_size: dict[object, list[Model]] = defaultdict(list)
    families = []
    for family in by_label.values():
        if len(family) > 1:
            families.append(family)
        else:
            by_size[family[0].n, family[0].parameters, family[0].train_seed] += family
    families += by_size.values()
    return [sorted(family, key=lambda model: model.train_tokens or 0) for family in families]


def _target(model: Model, models: Sequence[Model]) -> Model | None:
    alike = [other for other in models if other.n == 1 and model.is_as_large_as(other)]
    told = [other for other in alike if other.train_tokens is not None]
    return max(told, key=lambda other: other.train_tokens or 0, default=None)
