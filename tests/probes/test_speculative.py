"""mtp_speculative: counters of every k against plain loops, models with known heads, real runs."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mtp_harness import _startup, tasks_dir
from mtp_harness.commands.export import speculation_profile
from mtp_harness.decode.engine import Answer, Engine, Request
from mtp_harness.decode.records import DecodeRecord
from mtp_harness.errors import UserError
from mtp_harness.probes.speculative import (
    acceptance_cells,
    compare,
    decode_with_all,
    decoding_cells,
)

from ..decode.models_for_tests import Alphabet, letters, plain_greedy, prompts, random_llama


class Decoder:
    """What `MTPLM.decoder()` gives, over a model of ours."""

    def __init__(self, model, eos=()):
        self.model, self.eos = model, eos

    def engine(self, k, slots=None):
        return Engine(self.model, k, self.eos, letters, slots=slots)


def decoded(model, requests, batch_size=2, eos=()):
    lm = SimpleNamespace(
        decoder=lambda: Decoder(model, eos), batch_size=batch_size, max_batch_size=64
    )
    return decode_with_all(lm, requests, SimpleNamespace(update=lambda: None))


class Astray(Alphabet):
    """Head 1 is right, and every other head is off by one: no draft is ever verified."""

    def logits(self, offset, states):
        off = offset if offset == 1 else offset + 1
        right = (states[..., 0].long() + off) % 256
        return nn.functional.one_hot(right, 256).double()


@pytest.mark.parametrize("budget", [2, 9, 41])
def test_perfect_heads_give_k_tokens_per_step(budget):
    found = decoded(Alphabet(), [Request([97], budget), Request([10, 11], budget)])
    for by_k in found:
        for k, one in enumerate(by_k, 1):
            record = one["record"]
            assert record["n_kept"] == budget - 1 and one["tokens"] == budget
            assert record["n_verified"] == (k - 1,) * math.ceil((budget - 1) / k)
            assert one["identical"] and not one["near_ties"] and not one["errors"]


def test_useless_heads_give_one_token_per_step_and_the_same_text():
    for by_k in decoded(Astray(), [Request([97], 12)]):
        for one in by_k:
            assert one["record"]["n_verified"] == (0,) * 11 and one["identical"]


def walked(model, prompt, text, k):
    """Verified drafts of each step, from uncached logits of every prefix; `text` is NTP's."""
    verified, written = [], 1
    while written < len(text):
        prefix = torch.tensor([prompt + text[: written - 1]])
        with torch.no_grad():
            trunk = model.trunk(prefix)
            drafts = [
                int(model.logits(j, model.head(j, trunk))[0, -1].argmax()) for j in range(2, k + 1)
            ]
        right = 0
        future = plain_greedy(model, prompt + text[:written], k)
        while right < k - 1 and drafts[right] == future[right]:
            right += 1
        verified.append(right)
        written += right + 1
    return tuple(verified)


def test_counters_are_those_of_a_plain_loop():
    model = random_llama(4)
    asked = prompts(3, 10)
    found = decoded(model, [Request(prompt, 25) for prompt in asked])
    total = 0
    for prompt, by_k in zip(asked, found, strict=True):
        text = plain_greedy(model, prompt, 25)
        for k, one in enumerate(by_k, 1):
            assert one["record"]["n_verified"] == walked(model, prompt, text, k)
            assert one["identical"]
            total += sum(one["record"]["n_verified"])
    assert total > 10  # the loop had something to find


def test_a_text_that_is_not_ntps_is_an_error_where_rounding_does_not_explain_it():
    model = random_llama(2)
    request = Request(prompts(1, 10)[0], 12)
    engine = Engine(model, 2, (), letters, slots=1)
    (right,) = engine.generate([request])
    changed = list(right.tokens)
    changed[4] = (changed[4] + 1) % 10
    assert compare(engine, [request], [right], [right]) == [(0, 0)]
    wrong = Answer(changed, right.record)
    assert compare(engine, [request], [right], [wrong]) == [(0, 1)]


def record(k, verified, kept, looping=False):
    return DecodeRecord(5, 0, k, "exact", kept, tuple(verified), "length", looping, 1, 0.1, 0.2)


def test_cells_by_hand():
    # Two answers at k = 3: steps that verify 2, 0, 2 and 1; a stop cuts the first one by a token.
    records = [record(3, [2, 0, 2], 6), record(3, [1], 2, looping=True)]
    cells = {c.metric: c for c in decoding_cells(("code", 3), records)}
    assert cells["tokens_per_forward"].value == 8 / 4 and cells["tokens_per_forward"].count == 4
    assert cells["tokens_per_forward_no_loops"].value == 6 / 3
    assert cells["tokens_per_forward_mean"].value == (6 / 3 + 2 / 1) / 2
    assert cells["accept_length"].value == (3 + 1 + 3 + 2) / 4
    assert cells["accept_length_mean"].value == (7 / 3 + 2) / 2
    assert cells["looping"].value == 0.5
    rates = {(c.place[2], c.metric): (c.value, c.count) for c in acceptance_cells((0, 3), records)}
    assert rates == {
        (2, "accept_rate_prefix"): (3 / 4, 4),
        (2, "accept_rate_cond"): (3 / 4, 4),
        (3, "accept_rate_prefix"): (2 / 4, 4),
        (3, "accept_rate_cond"): (2 / 3, 3),
    }


@pytest.fixture(scope="module")
def run():
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    metadata = {"quick": True, "new_tokens": 40}
    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model="mtp",
        model_args={"device": "cpu", "batch_size": 4},
        tasks=["mtp_speculative"],
        task_manager=manager,
        limit=4,
        bootstrap_iters=0,
    )


def rows(run, table):
    found = run["config"]["mtp"]["tables"]["mtp_speculative"][table]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def test_tables_of_a_real_run_add_up(run):
    by_k = {(r["category"], r["k"], r["metric"]): r for r in rows(run, "by_k")}
    steps = {}
    for row in rows(run, "histogram"):
        steps.setdefault((row["category"], row["k"]), {})[row["n_verified"]] = row["value"]
    assert set(steps) == {(c, k) for c in ("code", "prose") for k in (1, 2, 3, 4)}
    for (category, k), counts in steps.items():
        assert set(counts) == set(range(k))
        assert sum(counts.values()) == by_k[category, k, "tokens_per_forward"]["count"]
        length = sum((v + 1) * n for v, n in counts.items()) / sum(counts.values())
        assert by_k[category, k, "accept_length"]["value"] == pytest.approx(length)
        assert by_k[category, k, "identical"]["value"] == 1
        assert by_k[category, k, "errors"]["value"] == 0
        assert by_k[category, k, "seconds"]["value"] > 0
        assert by_k[category, k, "tokens_per_forward"]["value"] <= k
    for row in rows(run, "by_offset"):
        counts = steps[row["category"], row["k"]]
        if row["metric"] == "accept_rate_prefix":
            verified = sum(n for v, n in counts.items() if v >= row["offset"] - 1)
            assert row["value"] == pytest.approx(verified / sum(counts.values()))
            assert row["low"] <= row["value"] <= row["high"]
    flat = run["results"]["mtp_speculative"]
    for k in (2, 3, 4):
        kept = n = 0
        for category in ("code", "prose"):
            row = by_k[category, k, "tokens_per_forward"]
            kept, n = kept + row["value"] * row["count"], n + row["count"]
        assert flat[f"tokens_per_forward_{k},none"] == pytest.approx(kept / n)
    about = run["config"]["mtp"]["documents"]["mtp_speculative"]
    assert about["code"]["n_documents"] == about["prose"]["n_documents"] == 2


def test_the_profile_of_a_real_run_is_a_plain_loop_over_its_samples(run):
    steps = {}
    for sample in run["samples"]["mtp_speculative"]:
        record = sample["n_documents"]["by_k"][2]["record"]  # k = 3
        steps.setdefault(sample["doc"]["data_set"], []).append(record["n_verified"])
    profile = speculation_profile(run["config"]["mtp"], 3)
    everything = [answer for answers in steps.values() for answer in answers]
    own = profile["per_category"]
    assert set(own) == set(steps) == {"code", "prose"}
    pairs = [(profile, everything), *((own[name], steps[name]) for name in own)]
    for found, answers in pairs:
        every = [verified for answer in answers for verified in answer]
        first, both = (sum(v >= drafts for v in every) for drafts in (1, 2))
        assert found["marginal_accept_rates"] == pytest.approx(
            [first / len(every), both / len(every)], abs=1e-6
        )
        assert found["conditional_accept_rates"] == pytest.approx(
            [first / len(every), both / first], abs=1e-6
        )
        assert found["mean_accept_length"] == pytest.approx(
            (len(every) + sum(every)) / len(every), abs=1e-6
        )
        means = [(len(answer) + sum(answer)) / len(answer) for answer in answers]
        assert found["mean_accept_length_per_request"] == pytest.approx(
            sum(means) / len(means), abs=1e-6
        )
        assert found["acceptance_length_histogram"] == {
            str(length): every.count(length - 1) for length in (1, 2, 3)
        }
    assert [one["num_requests"] for one in own.values()] == [2, 2]


def test_the_run_decodes_what_a_generation_task_decodes(run):
    from mtp_harness.data.humaneval import read_problems
    from mtp_harness.models.load import load_model, load_tokenizer
    from mtp_harness.models.text import shown
    from mtp_harness.probes.speculative import UNTIL

    model, tokenizer = load_model("mtp-bytes-n4", torch.float32), load_tokenizer("mtp-bytes-n4")
    prompt = tokenizer.encode(read_problems()[0]["prompt"])
    engine = Engine(model, 4, [0], shown(tokenizer))
    (answer,) = engine.generate([Request(prompt, 40, UNTIL["code"])])
    sample = next(s for s in run["samples"]["mtp_speculative"] if s["doc"]["name"] == "HumanEval/0")
    found = sample["n_documents"]["by_k"][3]["record"]
    assert found["n_verified"] == answer.record.n_verified
    assert found["n_kept"] == answer.record.n_kept


@pytest.mark.parametrize("tokens", [1, "many", 2.5])
def test_a_budget_that_decodes_nothing_is_refused(tokens):
    from lm_eval.tasks import TaskManager

    _startup.install()
    manager = TaskManager(
        include_path=tasks_dir(), include_defaults=False, metadata={"new_tokens": tokens}
    )
    task = manager.load(["mtp_speculative"])["tasks"]["mtp_speculative"]
    with pytest.raises(UserError, match=f"new_tokens={tokens}, expected a whole number from 2"):
        task.build_all_requests(limit=1, rank=0, world_size=1)
