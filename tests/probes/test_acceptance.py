"""`mtp_acceptance` in whole runs, against plain loops over float64 logits."""

import math

import pytest

from mtp_harness.errors import UserError

from . import runs
from .test_standard_rule import same_noise

MODELS = {
    "parallel": lambda folder: runs.tiny(4),
    "one module": lambda folder: runs.family_model(folder / "module", heads=4),
    "n = 1": lambda folder: runs.tiny(1, replicated=False),
}
TEMPERATURE = 0.7


def warped(probabilities):
    weights = [p ** (1 / TEMPERATURE) for p in probabilities]
    return [weight / math.fsum(weights) for weight in weights]


def expected(model, n):
    """Return the table by plain loops; steps by walking every way that drafts can fall."""
    sums = {}
    kept, steps = 0, 0.0

    def add(name, value):
        sums[name] = sums.get(name, 0.0) + value

    for text in runs.TEXTS.values():
        tokens, p = runs.reader(model, text, 64)
        last = len(tokens) - 1
        chance = {}
        for t in range(last):
            for i in range(2, min(n, last - t) + 1):
                own, draft = warped(p(t + i - 1, 1)), warped(p(t, i))
                add(("accept_greedy", i), own[draft.index(max(draft))])
                add(("accept_sampled", i), math.fsum(map(min, own, draft)))
                add(("accept_same_noise", i), same_noise(own, draft))
                add(("states", i), 1)
                chance[t, i] = min(1.0, draft[tokens[t + i]] / own[tokens[t + i]])

        def walk(state, weight, end=last - 1, chance=chance):
            if state >= end:
                return 0.0
            total, reach = weight, weight
            useful = min(n - 1, end - state - 1)
            for j in range(useful):
                through = reach * chance[state, j + 2]
                total += walk(state + 1 + j, reach - through)
                reach = through
            return total + walk(state + 1 + useful, reach)

        kept += max(0, last - 1)
        steps += walk(0, 1.0)
    table = {
        (name, i): value / sums["states", i]
        for (name, i), value in sums.items()
        if name != "states"
    }
    return table | {("expected_tokens_per_forward", None): kept / steps}


@pytest.mark.parametrize("kind", MODELS)
def test_every_number_is_a_plain_loops(tmp_path, kind):
    short = {"one.py": "a = 1\nb\n", "two.py": "aab = (1\n", "few.py": "ab"}
    model = MODELS[kind](tmp_path)
    lm = runs.harness_model(model, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "TEXTS", short)
        folder = runs.write_texts(tmp_path / "texts", short)
        results = runs.run(lm, "mtp_acceptance", folder=folder, temperature=TEMPERATURE)
        wanted = expected(model, model.n_future_tokens)
    values = runs.table(results, "mtp_acceptance", "by_offset")
    found = {
        (metric, offset): value
        for (_, _, offset, metric), value in values.items()
        if metric != "expected_accept_rate_prefix"
    }
    assert found == {key: pytest.approx(value, abs=1e-5) for key, value in wanted.items()}
    rates = [v for (*_, metric), v in values.items() if metric == "expected_accept_rate_prefix"]
    assert {temperature for _, temperature, *_ in values} == {TEMPERATURE}
    assert len(rates) == model.n_future_tokens - 1 and rates == sorted(rates, reverse=True)


def test_greedy_acceptance_is_another_task(tmp_path):
    lm = runs.harness_model(runs.tiny(2), tmp_path)
    folder = runs.write_texts(tmp_path / "texts")
    with pytest.raises(UserError, match="mtp_acceptance: temperature=0, expected .* mtp_heads"):
        runs.run(lm, "mtp_acceptance", folder=folder, temperature=0)
