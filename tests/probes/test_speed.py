"""mtp_speed: what is decoded, in which order, what it reads; and what is made of the seconds."""

import gc
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lm_eval.tasks import TaskManager

from mtp_harness import _startup, tasks_dir
from mtp_harness.data.corpus import Corpus, Document
from mtp_harness.data.grid import load
from mtp_harness.decode.engine import Engine
from mtp_harness.errors import UserError
from mtp_harness.models.load import load_model
from mtp_harness.probes import speed
from mtp_harness.probes.hardware import PeakMemory, Traffic, read_bandwidth, weight_bytes
from mtp_harness.probes.pooled import Measured
from mtp_harness.probes.speed import SELF, Contender, SpeedQuestion, measure
from mtp_harness.probes.speed_task import cells_of

from ..decode.models_for_tests import Alphabet, hybrid, letters, random_llama


def contender(model, k, batch, name=SELF, max_length=4096):
    corpus = Corpus("code", "3", (Document("a", "abcdefghij" * 400),))
    prompts = speed.Prompts(corpus, lambda text: [ord(c) % 10 for c in text])
    return Contender(name, Engine(model, k, (), letters, slots=batch), prompts, max_length)


def test_every_row_decodes_its_whole_budget_and_trials_alternate():
    model = Alphabet()  # its text runs through 0, which would be the end of text
    cell = SpeedQuestion(3, 7, 300, trials=3)
    rivals = [contender(model, k, 3) for k in (1, 2, 4)]
    found = measure(cell, [*rivals, contender(model, 1, 3, "other")])
    order = [(run["trial"], run["model"], run["k"]) for run in found["runs"]]
    forth = [(SELF, 1), (SELF, 2), (SELF, 4), ("other", 1)]
    assert order == [(t, *one) for t in (0, 1, 2) for one in (forth[::-1] if t == 1 else forth)]
    for run in found["runs"]:
        assert run["n_kept"] == 3 * 299 and run["steps"] == [-(-299 // run["k"])] * 3
        assert 0 < run["decode_s"] and 0 < run["prefill_s"]
        assert run["prefill_s"] + run["decode_s"] < run["wall_s"]
    assert found["heads"] == [1, 2, 4] and found["not_measured"] == []


def test_the_models_end_of_text_ends_nothing():
    model, eos = Alphabet(), tuple(range(256))  # whatever it writes would be the end
    decoder = SimpleNamespace(
        model=model, engine=lambda k, slots: Engine(model, k, eos, letters, slots=slots)
    )
    lm = SimpleNamespace(decoder=lambda: decoder, max_length=4096, pretrained="alphabet")
    cell = SpeedQuestion(2, 7, 20, trials=1)
    rivals = speed._contenders(lm, cell, contender(model, 1, 2).prompts)
    assert [one.k for one in rivals] == [1, 2, 3, 4]
    assert {run["n_kept"] for run in measure(cell, rivals)["runs"]} == {2 * 19}


def test_prompts_are_exactly_as_long_as_asked_and_new_in_every_trial():
    asked = []

    def prompts(length, count):
        asked.append((length, count))
        return [[i] * length for i in range(count)]

    one = contender(Alphabet(), 2, 2)._replace(prompts=prompts)
    seen = []
    engine = one.engine
    generate = engine.generate
    engine.generate = lambda requests: (
        seen.append([r.prompt for r in requests]) or generate(requests)
    )
    measure(SpeedQuestion(2, 5, 4, trials=2), [one])
    assert seen == [[[0] * 5, [1] * 5], [[0] * 5, [1] * 5], [[2] * 5, [3] * 5]]  # warm-up first


def test_documents_are_joined_and_cut():
    corpus = Corpus("code", "3", (Document("a", "0123"), Document("b", "456"), Document("c", "78")))
    prompts = speed.Prompts(corpus, lambda text: list(map(int, text)))
    assert prompts(3, 2) == [[0, 1, 2], [3, 4, 5]]
    assert prompts(3, 3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert prompts(5, 3) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 0], [1, 2, 3, 4, 5]]  # read again


def test_a_cell_that_does_not_fit_is_reported(monkeypatch):
    model = random_llama(2)
    short = contender(model, 1, 2, max_length=20)
    found = measure(SpeedQuestion(2, 15, 10, trials=1), [short, contender(model, 2, 2)])
    assert found["not_measured"] == [
        {"model": SELF, "k": 1, "reason": "25 tokens do not fit into a context of 20"}
    ]
    assert [run["k"] for run in found["runs"]] == [2]
    monkeypatch.setattr(speed, "fitting_slots", lambda engine, requests, most: 1)
    found = measure(SpeedQuestion(2, 15, 10, trials=1), [contender(model, 2, 2)])
    assert re.search(r"2 rows need \d+ bytes of cache", found["not_measured"][0]["reason"])
    assert found["runs"] == []


def test_fewer_rows_than_asked_do_not_pass_for_the_cell(monkeypatch):
    one = contender(random_llama(2), 2, 4)
    generate = one.engine.generate

    def halved(requests):  # what the engine does where memory runs out
        one.engine.slots = 2
        return generate(requests)

    one.engine.generate = halved
    found = measure(SpeedQuestion(4, 6, 5, trials=2), [one])
    assert found["not_measured"][0]["reason"] == "memory ran out with 4 rows" and not found["runs"]


def test_memory_that_runs_out_later_takes_all_trials_of_that_k_along():
    rivals = [contender(random_llama(2), k, 2) for k in (1, 2)]
    generate, calls = rivals[1].engine.generate, []

    def third_fails(requests):
        calls.append(1)
        rivals[1].engine.slots = 1 if len(calls) == 3 else 2  # warm-up, trial 1, trial 2
        return generate(requests)

    rivals[1].engine.generate = third_fails
    found = measure(SpeedQuestion(2, 6, 5, trials=3), rivals)
    assert [(run["k"], run["trial"]) for run in found["runs"]] == [(1, 0), (1, 1), (1, 2)]
    assert [one["k"] for one in found["not_measured"]] == [2] and len(calls) == 3


@pytest.mark.parametrize("replicated", [False, True])
def test_weights_that_a_step_reads(replicated):
    model = random_llama(3, replicated=replicated)
    # By name: the trunk's layers, one layer per head, the norm, and one unembedding per head or
    # one for all; of the input embedding, a step reads rows.
    sizes = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    embedding = next(n for name, n in sizes.items() if "embed_tokens" in name)
    whole = sum(sizes.values()) - embedding
    unembedding = embedding if replicated else 0
    layer = sum(n for name, n in sizes.items() if re.search(r"layers\.0\.", name))
    assert weight_bytes(model, 3) == whole
    for k in (1, 2):
        assert weight_bytes(model, k) == whole - (3 - k) * (layer + unembedding)


def test_bytes_read_by_hand():
    # Two rows of 3 and 2 steps: the weights 3 times; 10 + 4/2 tokens before each of 5 row steps.
    assert Traffic(1000, 7).read([3, 2], 10, 4) == 3 * 1000 + 7 * 12 * 5
    assert Traffic(1000, 7, 50).read([3, 2], 10, 4) == 3 * 1000 + 7 * 12 * 5 + 2 * 50 * 5
    assert Traffic(1000, 7, 50, 1).read([3, 2], 10, 4) == 3 * 1000 + 7 * 12 * 5 + 50 * 5
    model = load_model("mtp-bytes-n4", torch.float32)
    layers = model.config.num_hidden_layers
    width = model.config.num_key_value_heads * model.config.hidden_size
    width //= model.config.num_attention_heads
    assert Traffic.of(model, 4).cache_bytes_per_token == 2 * layers * width * 4
    assert Traffic.of(model, 1).cache_bytes_per_token == 2 * (layers - 3) * width * 4
    assert Traffic.of(model, 1).state_bytes == 0


def test_states_that_are_read_by_hand():
    # One linear layer: 3 inputs of a convolution over 2 heads of 16 (queries, keys) and 4 (values).
    states = 3 * (2 * 2 * 16 + 4 * 16) + 4 * 16 * 16
    assert Traffic.of(hybrid("qwen3_5_text"), 2).state_bytes == 8 * states
    # Without drafts, a step's forward knows that its token stays.
    assert [Traffic.of(hybrid("qwen3_5_text"), k).state_reads for k in (1, 2)] == [1, 2]
    # Trunk and module each have one layer of 2 heads of 16 with keys and values.
    assert Traffic.of(hybrid("qwen3_5_text"), 2).cache_bytes_per_token == 2 * 2 * 2 * 16 * 8


def test_this_machine_reads_between_one_and_a_thousand_gigabytes_a_second(monkeypatch):
    monkeypatch.setitem(speed.read_bandwidth.__globals__["BUFFER_BYTES"], "cpu", 2**26)
    assert 1e9 < read_bandwidth(torch.device("cpu")) < 1e12


def test_peak_memory_sees_what_was_there_for_a_moment():
    gc.collect()  # what other tests left, which would be freed in between
    if PeakMemory(torch.device("cpu")).read() is None:
        pytest.skip("this system does not let a process reset its peak")
    torch.ones(2**22)  # so that the C library keeps blocks of 8 MiB when they are freed
    blocks = [torch.ones(2**21) for _ in range(60)]
    kept = blocks.pop()
    del blocks
    before = PeakMemory(torch.device("cpu")).read()
    peak = PeakMemory(torch.device("cpu"))
    torch.ones(2**26).sum()  # 256 MiB, which would fit into what was freed
    most = peak.read()
    assert kept.sum() == 2**21 and most > before + 2**27
    assert PeakMemory(torch.device("cpu")).read() < most - 2**27  # begun anew


def run(model, k, trial, prefill_s, decode_s, steps):
    about = {"model": model, "k": k, "trial": trial, "wall_s": 9.0}
    about |= {"before_bytes": 40 - 2 * trial, "peak_bytes": 100 + trial}
    return about | {"prefill_s": prefill_s, "decode_s": decode_s, "steps": steps, "n_kept": 20}


def test_cells_by_hand():
    cell = Measured(
        batch=2,
        prompt_tokens=8,
        new_tokens=11,
        bandwidth=1000.0,
        heads=[1, 2],
        traffic={f"{m} {k}": {"weight_bytes": 50, "cache_bytes_per_token": 2} for m, k in PAIRS},
        foreseen_bytes={f"{m} {k}": 30 * k for m, k in PAIRS},
        not_measured=[{"model": SELF, "k": 3, "reason": "too long"}],
        runs=[
            run(SELF, 1, 0, 0.5, 4.0, [10, 10]),
            run(SELF, 2, 0, 0.7, 2.0, [5, 6]),
            run("n1", 1, 0, 0.5, 5.0, [10, 10]),
            run("n1", 1, 1, 0.5, 5.0, [10, 10]),
            run(SELF, 2, 1, 0.7, 1.0, [5, 5]),
            run(SELF, 1, 1, 0.5, 2.0, [10, 10]),
        ],
    )
    cells = {(*c.place, c.metric): c for c in cells_of(cell)}
    two = {m: c for (*place, m), c in cells.items() if place == [SELF, 2, 8, 2]}
    assert two["tokens_per_second"].value == pytest.approx(40 / 3) and two["speedup"].count == 2
    assert two["seconds_decoding"].value == 1.5 and two["seconds_prefill"].value == 0.7
    assert two["seconds_per_step"].value == 3 / 11  # until the last row ends: 6 steps, then 5
    assert two["latency_per_token"].value == pytest.approx(3 / 20)  # 10 tokens of a row, twice
    assert two["tokens_per_forward"].value == pytest.approx(40 / 21)
    assert two["speedup"].value == 6 / 3
    assert two["speedup_with_prefill"].value == pytest.approx(7 / 4.4)
    assert two["speedup_over_baseline"].value == pytest.approx(10 / 3)
    read = (50 * 6 + 2 * 13.5 * 11) + (50 * 5 + 2 * 13.5 * 10)
    assert two["bandwidth_share"].value == pytest.approx(read / 1000 / 3)
    assert two["peak_memory"].value == 101
    assert two["memory_taken"].value == 101 - 38 and two["memory_foreseen"].value == 60
    assert cells["n1", 2, 8, 1, "speedup"].value == 6 / 10
    assert cells["n1", 2, 8, 1, "speedup_over_baseline"].value == 1
    missing = cells[SELF, 2, 8, 3, "tokens_per_second"]
    assert missing.value != missing.value and missing.count == 0


PAIRS = [(SELF, 1), (SELF, 2), ("n1", 1)]


def test_the_grid():
    rows = load()["test"]
    assert len(rows) == 12 and set(rows["batch"]) == {1, 4, 8, 16}
    assert set(rows["prompt_tokens"]) == {512, 1024, 2048}
    assert [(r["batch"], r["prompt_tokens"]) for r in load(quick=True)["test"]] == [
        (1, 128),
        (4, 128),
    ]
    assert list(load(batch=2, prompt_tokens=[64, 32])["test"]["prompt_tokens"]) == [32, 64]
    with pytest.raises(ValueError, match=r"batch=\[0\], expected whole numbers from 1"):
        load(batch=[0])


def simple_run(metadata, task="mtp_speed", **model_args):
    _startup.install()
    from lm_eval.evaluator import simple_evaluate

    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model="mtp",
        model_args={"device": "cpu", **model_args},
        tasks=[task],
        task_manager=manager,
        bootstrap_iters=0,
    )


def test_a_real_run_with_a_baseline_and_a_cell_too_long():
    sizes = {"batch": [1, 2], "prompt_tokens": [16, 4096], "new_tokens": 12, "trials": 2}
    found = simple_run({**sizes, "heads": [1, 4], "baseline": "mtp-bytes-n1"})
    mtp = found["config"]["mtp"]
    table = mtp["tables"]["mtp_speed"]["by_cell"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    measured = {(r["model"], r["batch"], r["k"]) for r in rows if r["value"] is not None}
    assert measured == {
        (m, b, k) for b in (1, 2) for m, k in [(SELF, 1), (SELF, 4), ("mtp-bytes-n1", 1)]
    }
    unfit = mtp["tables"]["mtp_speed"]["not_measured"]["rows"]
    assert len(unfit) == 6 and {row[2] for row in unfit} == {4096}
    assert unfit[0][-1] == "4108 tokens do not fit into a context of 4096"
    flat = found["results"]["mtp_speed"]
    assert flat["cells_not_measured,none"] == 6
    runs = [r for s in found["samples"]["mtp_speed"] for r in s["n_documents"]["runs"]]
    own = {k: [r for r in runs if r["model"] == SELF and r["k"] == k] for k in (1, 4)}
    assert flat["speedup_4,none"] == pytest.approx(
        sum(r["decode_s"] for r in own[1]) / sum(r["decode_s"] for r in own[4])
    )
    assert all(r["n_kept"] == 11 * len(r["steps"]) for r in runs)
    assert mtp["documents"]["mtp_speed"]["code"]["n_documents"] > 100


@pytest.fixture(scope="module")
def random_weights():
    """Memory and seconds of a step by (prompt, k) and metric, of a shape of the GPU benchmarks."""
    sizes = {"batch": 2, "prompt_tokens": [512, 8192], "new_tokens": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[2])
        found = simple_run(
            {**sizes, "trials": 1, "heads": [1, 4]},
            pretrained="tiny",
            loader="tests.benchmarks.random_weights:load",
            tokenizer="mtp-bytes-n4",
        )
    table = found["config"]["mtp"]["tables"]["mtp_speed"]["by_cell"]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    return {(row["prompt_tokens"], row["k"], row["metric"]): row["value"] for row in rows}


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("prompt", [512, 8192])
def test_memory_that_is_known_before_by_hand(random_weights, prompt, k):
    # 6 blocks, of which heads 2 to 4 have one each; keys and values of 2 heads of 16, float32; a
    # row has k tokens and a place for what is thrown away more; k x k rows of 512 logits, 4 times.
    blocks, columns = 6 - 3 + (k - 1), prompt + 4 + k + 1
    row = blocks * 2 * 2 * 16 * 4 * columns + 4 * 4 * k * k * 512
    assert random_weights[prompt, k, "memory_foreseen"] == 2 * row
    assert random_weights[prompt, k, "seconds_per_step"] > 0


def test_rows_take_what_was_known_before(random_weights):
    if (8192, 4, "memory_taken") not in random_weights:
        pytest.skip("this system does not let a process reset its peak")
    grown, known = (
        random_weights[8192, 4, name] - random_weights[512, 4, name]
        for name in ("memory_taken", "memory_foreseen")
    )
    assert 0.9 * known < grown < 10 * known  # above it, activations of the forward of 8,192 tokens


def test_a_baseline_by_the_user_s_own_loader(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2] / "examples")
    baseline = "loader=parallel_toy:load,tokenizer=mtp-bytes-n4"
    sizes = {"batch": 1, "prompt_tokens": 16, "new_tokens": 4, "trials": 1, "heads": 1}
    table = simple_run({**sizes, "baseline": baseline})["config"]["mtp"]["tables"]["mtp_speed"]
    column = table["by_cell"]["columns"].index("model")
    assert {row[column] for row in table["by_cell"]["rows"]} == {SELF, baseline}
    with pytest.raises(UserError, match="baseline=loader=parallel_toy:load: .* gives no tokenizer"):
        simple_run({**sizes, "baseline": "loader=parallel_toy:load"})


def test_wrong_settings_end_in_a_sentence():
    with pytest.raises(UserError, match="heads=7, but mtp-bytes-n4 has n = 4: choose from 1 to 4"):
        simple_run({"quick": True, "heads": [7]})
    with pytest.raises(UserError, match="baseline=nowhere/at-all"):
        simple_run({"quick": True, "baseline": "nowhere/at-all"})
    with pytest.raises(UserError, match="mtp_speed: trials=0, expected a whole number from 1"):
        simple_run({"quick": True, "trials": 0})


def test_the_papers_batch_sizes():
    manager = TaskManager(include_path=tasks_dir(), include_defaults=False)
    task = manager.load(["mtp_speed_paper"])["tasks"]["mtp_speed_paper"]
    docs = list(task.eval_docs)
    assert len(docs) == 17 and docs[-1]["batch"] == 42
    asked = task.question(docs[0])
    assert (asked.prompt_tokens, asked.new_tokens, asked.trials) == (512, 512, 10)
