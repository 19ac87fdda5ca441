"""Advice on k against closed forms, and against a server that is simulated token by token."""

import json
from math import exp, log, sqrt

import numpy as np
import pandas as pd
import pytest

from mtp_harness.cli import main
from mtp_harness.figures.catalogue import draw_all
from mtp_harness.results import advice
from mtp_harness.results.tidy import read_runs

from ..figures.runs import table, write_run

ALPHA = {"json": 0.9, "story": 0.1}
"""Chance that a draft is right, given that those before it are."""

HEADS, BATCHES = (1, 2, 3, 4), (1, 8, 64)


def forwards(alpha, k):
    """Tokens of a step, in closed form: 1 + a + … + a^(k-1)."""
    return (1 - alpha**k) / (1 - alpha)


def seconds(batch, k):
    """Weights are read once; each token of each row takes arithmetic."""
    return 0.004 + 0.00005 * batch * k


def write(folder, width=1.0, **told):
    """Write a run of both tasks; ends of intervals lie `width` times above and below."""
    by_k = [
        [name, k, "tokens_per_forward", v := forwards(a, k), v / width, v * width, 100]
        for name, a in ALPHA.items()
        for k in HEADS
    ]
    cells = [
        ["self", b, 512, k, "seconds_per_step", v := seconds(b, k), v / width**2, v * width**2, 10]
        for b in BATCHES
        for k in HEADS
    ]
    cells.append(["n1", 1, 512, 1, "seconds_per_step", 9.0, 9.0, 9.0, 10])  # another model's
    tables = {
        "mtp_speculative": {"by_k": table("category k", by_k)},
        "mtp_speed": {"by_cell": table("model batch prompt_tokens k", cells)},
    }
    return [
        write_run(folder, tables={task: one}, dtype="float32", **told)
        for task, one in tables.items()
    ]


def advised(*folders):
    return advice.advise(advice.rates(read_runs(folders)))


def simulated(alpha, k, batch, rng, n_steps=4000):
    """Tokens per second of a server whose every slot is always taken, one draft after the other."""
    tokens = clock = 0.0
    for _ in range(n_steps):
        clock += seconds(batch, k)
        for _ in range(batch):
            tokens += 1  # head 1's own
            for _ in range(k - 1):
                if rng.random() >= alpha:
                    break
                tokens += 1
    return tokens / clock


def test_rates_are_those_of_a_server_simulated_token_by_token(tmp_path):
    write(tmp_path)
    (found,) = advised(tmp_path)
    assert [(c.category, c.batch) for c in found.cells] == [(n, b) for n in ALPHA for b in BATCHES]
    rng = np.random.default_rng(0)
    for cell in found.cells:
        for k, rate in cell.rates.items():
            n_steps = 20_000 // cell.batch
            expected = simulated(ALPHA[cell.category], k, cell.batch, rng, n_steps)
            assert rate.value == pytest.approx(expected, rel=0.02)


def test_best_k_and_plain_decoding_by_closed_form(tmp_path):
    write(tmp_path)
    (found,) = advised(tmp_path)
    best = {(c.category, c.batch): c.best for c in found.cells}
    for (category, batch), k in best.items():
        by_hand = {j: forwards(ALPHA[category], j) / seconds(batch, j) for j in HEADS}
        assert k == max(by_hand, key=by_hand.get)
    assert best["json", 1] == 4 and best["story", 64] == 1  # both ends occur
    wins = [(c.category, c.batch) for c in found.cells if c.plain_wins]
    assert wins == [place for place, k in best.items() if k == 1]
    assert all(not cell.alike for cell in found.cells)  # no interval has a width


def test_one_k_for_all_costs_the_seconds_of_equal_tokens(tmp_path):
    write(tmp_path)
    (found,) = advised(tmp_path)
    took = {  # seconds for 1000 tokens of each cell
        (n, b, k): 1000 * seconds(b, k) / (b * forwards(a, k))
        for n, a in ALPHA.items()
        for b in BATCHES
        for k in HEADS
    }
    assert [(one.batch, one.k) for one in found.one_k] == [
        (b, k) for b in (*BATCHES, None) for k in HEADS
    ]
    for one in found.one_k:
        places = [(n, b) for n in ALPHA for b in BATCHES if one.batch in (None, b)]
        least = {place: min(took[*place, k] for k in HEADS) for place in places}
        total = sum(took[*place, one.k] for place in places)
        assert one.extra_time == pytest.approx(total / sum(least.values()) - 1)
        losses = {place: 1 - least[place] / took[*place, one.k] for place in places}
        assert one.worst_loss == pytest.approx(max(losses.values()))
        assert losses[one.worst[1:]] == pytest.approx(one.worst_loss)


def test_errors_of_both_factors_add_in_quadrature_and_decide_what_is_alike(tmp_path):
    width = 1.05
    write(tmp_path, width)
    (found,) = advised(tmp_path)
    factor = exp(sqrt(log(width) ** 2 + log(width**2) ** 2))
    for cell in found.cells:
        for rate in cell.rates.values():
            assert rate.low == pytest.approx(rate.value / factor)
            assert rate.high == pytest.approx(rate.value * factor)
        top = cell.rates[cell.best].value
        near = [k for k in HEADS if k != cell.best and cell.rates[k].value * factor**2 >= top]
        assert cell.alike == near
    assert {len(cell.alike) for cell in found.cells} >= {0, 1}


def test_intervals_cover_what_they_say():
    """Of factors drawn with normal errors of their logarithms, 90 % lie in the product's."""
    rng = np.random.default_rng(1)
    sigma, z = (0.03, 0.08), 1.6448536
    drawn = rng.normal(0, sigma, (200_000, 2)) @ [1, -1]
    ends = (pd.Series([exp(z * s)]) for s in sigma)
    reach = advice._quadrature(*ends).item()
    assert np.mean(np.abs(drawn) < reach) == pytest.approx(0.9, abs=0.004)


def test_numbers_without_an_interval_have_none_and_are_alike(tmp_path):
    steps = [["self", 1, 8, k, "seconds_per_step", 1.0] for k in (1, 2)]
    kept = [["code", k, "tokens_per_forward", 1.0 * k] for k in (1, 2)]
    write_run(
        tmp_path,
        n=2,
        tables={
            "mtp_speculative": {"by_k": table("category k", kept)},
            "mtp_speed": {"by_cell": table("model batch prompt_tokens k", steps)},
        },
    )
    (found,) = advised(tmp_path)
    (cell,) = found.cells
    assert cell.best == 2 and cell.alike == [1] and np.isnan(cell.rates[2].low)


def test_the_command_writes_a_table_and_json(tmp_path, capsys):
    write(tmp_path / "runs")
    out = tmp_path / "advice.json"
    assert main(["advise", str(tmp_path / "runs"), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("json") and " 64 " in line]
    rates = {k: 64 * forwards(0.9, k) / seconds(64, k) for k in HEADS}
    assert f"{rates[4]:,.0f} [{rates[4]:,.0f}-{rates[4]:,.0f}]*" in row
    assert row.endswith(f"{rates[4] / rates[1]:.2f}x")
    assert "Plain decoding (k = 1) is fastest in 1 of 6 cells: story at batch 64" in said
    (one,) = json.loads(out.read_text())
    assert one["model"] == "a model" and one["hardware"] == "a processor"
    last = one["cells"][2]
    assert (last["category"], last["batch"], last["best"], last["plain_wins"]) == (
        "json", 64, 4, False,
    )  # fmt: skip
    assert last["rates"][3]["tokens_per_second"] == pytest.approx(rates[4])
    assert one["one_k"][-1]["worst"].keys() == {"prompt_tokens", "category", "batch"}


def test_the_map_has_gains_over_plain_decoding_and_the_best_k_in_bold(tmp_path):
    write(tmp_path)
    (drawn,) = draw_all(read_runs([tmp_path]), ["fig_advice"]).drawn
    shown = drawn.table
    assert len(shown) == len(ALPHA) * len(BATCHES) * 3 and drawn.pictures["png"]
    for _, row in shown.iterrows():
        alpha, batch = ALPHA[row["category"]], row["batch"]
        by_hand = {k: forwards(alpha, k) / seconds(batch, k) for k in HEADS}
        assert row["value"] == pytest.approx(by_hand[row["k"]] / by_hand[1] - 1)
        assert (row["bold"] is not pd.NA) == (row["k"] == max(by_hand, key=by_hand.get))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hardware": {"cpu": "another"}}, "no model with both"),
        ({"weights_sha256": "b"}, "differ in weights_sha256 (a and b)"),
        ({"draft_threshold": 0.5}, "differ in draft_threshold (None and 0.5)"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(tmp_path, capsys, other, said):
    kept, _ = write(tmp_path / "one", weights_sha256="a")
    _, steps = write(tmp_path / "other", **{"weights_sha256": "a", **other})
    assert main(["advise", str(kept), str(steps)]) == 2
    assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_two_runs_of_one_category_are_refused_and_named(tmp_path, capsys):
    write(tmp_path / "one")
    kept, _ = write(tmp_path / "other", documents={"mtp_speculative": {"json": {"sha256": "c"}}})
    assert main(["advise", str(tmp_path / "one"), str(kept)]) == 2
    told = capsys.readouterr().err
    assert "both have tokens_per_forward of a model, json, k = 1" in told and str(kept) in told


def test_results_without_a_measurement_name_the_command(tmp_path, capsys):
    write_run(tmp_path, metrics={"some_task": {"acc": 0.5}})
    assert main(["advise", str(tmp_path)]) == 2
    assert "run `lm_eval --model mtp --tasks mtp_speculative,mtp_speed" in capsys.readouterr().err
