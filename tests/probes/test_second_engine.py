"""What an engine with one k at a time answers; here our own `Engine` stands for vLLM.

`tests/test_vllm.py` has vLLM itself.
"""

from types import SimpleNamespace

import pytest

from mtp_harness.decode.engine import Engine
from mtp_harness.errors import UserError
from mtp_harness.probes import second_engine
from mtp_harness.probes.pooled import Measured
from mtp_harness.probes.speculative import SpeculativeQuestion, decode_with_all
from mtp_harness.probes.speed import SELF, SpeedQuestion
from mtp_harness.probes.speed_task import cells_of

from ..decode.models_for_tests import letters, random_llama


class Stand:
    """Decodes with heads 1..k until it is started with others; time is counted, not taken."""

    pretrained, rank, max_length, most_heads, n_rows = "stand", 0, 60, 3, 2

    @staticmethod
    def tokenizer(text, **_):
        return {"input_ids": [ord(c) % 10 for c in text]}

    def __init__(self, counts=True):
        self.model, self.counts, self.started, self.fed = random_llama(3), counts, [], []

    @property
    def k(self):
        return self.started[-1] if self.started else 2

    def with_heads(self, k):
        self.started.append(k)

    def prompt(self, context, budget, where):
        return [ord(c) % 10 for c in context], 0

    def decode(self, requests):
        return Engine(self.model, self.k, (), letters, slots=2).generate(requests)

    def timed(self, prompts, new_tokens):
        self.fed.append((self.k, new_tokens, prompts))
        steps = -(-(new_tokens - 1) // self.k)
        return 0.5 + 0.1 * steps, [steps] * len(prompts) if self.counts else None


def requests(*arguments):
    return [SimpleNamespace(args=one, task_name="t", doc_id=i) for i, one in enumerate(arguments)]


def test_every_k_is_started_once_and_decodes_what_our_own_task_decodes():
    lm = Stand()
    asked = [("abcd", "code"), ("ef", "prose"), ("ghi", "code")]
    found = second_engine.speculative(
        lm, requests(*((text, SpeculativeQuestion(kind, 20)) for text, kind in asked)), quiet=True
    )
    assert lm.started == [2, 1, 3]  # the engine that runs comes first
    engines = SimpleNamespace(
        model=lm.model, engine=lambda k, slots: Engine(lm.model, k, (), letters, slots=slots)
    )
    own = SimpleNamespace(decoder=lambda: engines, batch_size=2, max_batch_size=2)
    for place, (text, _) in enumerate(asked):
        request = second_engine.request_of(
            lm, lm.prompt, requests((text, SpeculativeQuestion("code", 20)))[0]
        )
        [expected] = decode_with_all(own, [request], SimpleNamespace(update=lambda: None))
        for at, its in zip(found[place]["by_k"], expected, strict=True):
            assert at["record"]["n_verified"] == its["record"]["n_verified"]
            assert at["record"]["n_kept"] == 19 and at["identical"] and at["errors"] is None


def test_prompts_cut_by_tokens_are_refused():
    asked = requests(("abcd", SpeculativeQuestion("code", 20, prompt_tokens=3)))
    with pytest.raises(UserError, match="cuts prompts to a number of tokens.* --model mtp:"):
        second_engine.speculative(Stand(), asked, quiet=True)


def cell(**changed):
    asked = SpeedQuestion(2, 5, 13, trials=2)
    return SpeedQuestion(**{**vars(asked), **changed})


def cells(measured):
    sizes = {"batch": 2, "prompt_tokens": 5, "new_tokens": 13}
    found = cells_of(Measured(**measured, **sizes))
    return {(one.place[-1], one.metric): one.value for one in found}


def test_decoding_is_the_long_call_less_the_short_one():
    lm = Stand()
    [found] = second_engine.speed(lm, requests(("cell", cell(heads=(1, 3)))), quiet=True)
    assert [(run["model"], run["k"], run["trial"]) for run in found["runs"]] == [
        (SELF, k, trial) for k in (1, 3) for trial in (0, 1)
    ]
    # The first does not count, every call has the prompts of its trial, and every k has the same.
    assert [(k, n) for k, n, _ in lm.fed] == [
        (k, n) for k in (1, 3) for _ in range(3) for n in (1, 13)
    ]
    first, second = [prompts for _, _, prompts in lm.fed[:6:2]][1:]
    assert first != second and [prompts for *_, prompts in lm.fed[8:12]] == [
        first,
        first,
        second,
        second,
    ]
    values = cells(found)
    assert values[1, "seconds_prefill"] == pytest.approx(0.5)
    assert values[1, "seconds_decoding"] == pytest.approx(1.2)  # 12 steps of .1 s
    assert values[3, "seconds_decoding"] == pytest.approx(0.4)
    assert values[3, "seconds_per_step"] == pytest.approx(0.1)
    assert values[3, "tokens_per_forward"] == 3 and values[3, "speedup"] == pytest.approx(3)
    assert values[3, "tokens_per_second"] == pytest.approx(24 / 0.4)
    assert not {"bandwidth_share", "peak_memory"} & {metric for _, metric in values}


def test_an_engine_that_does_not_count_tells_times_alone():
    [found] = second_engine.speed(Stand(counts=False), requests(("c", cell())), quiet=True)
    metrics = {metric for _, metric in cells(found)}
    assert "speedup" in metrics and not metrics & {"seconds_per_step", "tokens_per_forward"}


def test_cells_that_do_not_fit_are_reported():
    asked = requests(("a", cell(batch=3)), ("b", cell(prompt_tokens=46)))
    rows, length = second_engine.speed(Stand(), asked, quiet=True)
    assert {one["reason"] for one in rows["not_measured"]} == {
        "3 rows are more than the engine decodes together (2)"
    }
    # 46 + 13 = 59 tokens; what is drafted at the end needs room, too.
    assert [one["k"] for one in length["not_measured"]] == [3]
    assert length["not_measured"][0]["reason"] == "61 tokens do not fit into a context of 60"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"baseline": "other"}, "baseline=other does not work .* compare two runs"),
        ({"heads": (1, 4)}, "heads=4, but stand has n = 3: choose from 1 to 3"),
    ],
)
def test_what_one_engine_cannot_time_is_refused(changed, sentence):
    lm = Stand()
    with pytest.raises(UserError, match=sentence):
        second_engine.speed(lm, requests(("c", cell(**changed))), quiet=True)
    assert not lm.started


def test_a_clock_that_noise_turned_back_is_one_sentence(monkeypatch):
    lm = Stand()
    monkeypatch.setattr(lm, "timed", lambda prompts, n: (1 / n, None))
    with pytest.raises(UserError, match="13 new tokens took 0.077 s .* 1.000 s, expected less"):
        second_engine.speed(lm, requests(("c", cell())), quiet=True)
