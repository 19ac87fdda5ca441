"""On a GPU: steps as CUDA graphs, with the kernels, give the text of eager steps without them."""

import logging
import subprocess
import sys

import pytest
import torch

from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.drafters import parallel
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.gpu import serve
from mtp_harness.models.load import load_model, open_model

from ..models.byte_families import write_bytes
from .models_for_tests import lively

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

LETTERS = range(97, 100)
FAMILIES = [
    ("mimo", 1),
    ("mimo", 2),
    ("qwen3_5_text", 1),
    ("qwen3_5_moe_text", 1),
    ("qwen3_next", 1),
    ("deepseek_v3", 1),
    ("deepseek_v3", 2),
    ("glm4_moe", 1),
]


def decode(model, k, slots):
    generator = torch.Generator().manual_seed(1)
    lengths = (5, 17, 9, 30, 2)
    prompts = [torch.randint(97, 100, (n,), generator=generator).tolist() for n in lengths]
    engine = Engine(model, k, [], lambda tokens: "x" * len(tokens), slots=slots)
    answers = engine.generate([Request(prompt, 60) for prompt in prompts])
    return [(one.tokens, one.record.n_verified) for one in answers]


def compared(monkeypatch, caplog, model, ks):
    """Decode with graphs and kernels, and without either; return the former's answers."""
    from mtp_harness.models.gpu import delta_window, layer  # they need Triton

    caplog.set_level(logging.WARNING)
    held, prompts = [], []
    graphs, run = Slots.graphs, layer.run

    def watched(block, states, rotated_by, cache, *others, **named):
        prompts.append(cache.in_prompts)
        return run(block, states, rotated_by, cache, *others, **named)

    monkeypatch.setattr(layer, "run", watched)

    def kept(slots, fewest):
        held.append(graphs(slots, fewest))
        return held[-1]

    monkeypatch.setattr(Slots, "graphs", kept)
    fast = {(k, slots): decode(model, k, slots) for k in ks for slots in (1, 3)}
    assert all(held), caplog.text
    assert {*prompts} == {True, False}, "prompts and steps run by the kernels"
    monkeypatch.setattr(Slots, "graphs", lambda slots, fewest: {})
    monkeypatch.setattr(serve, "_on_gpu", lambda states: False)
    monkeypatch.setattr(layer, "serves", lambda *_: False)
    monkeypatch.setattr(delta_window, "serves", lambda *_: False)
    for (k, slots), found in fast.items():
        assert found == decode(model, k, slots), (k, slots)
    assert any(sum(verified) for _, verified in fast[ks[-1], 3]), "no draft is ever right"
    texts = [[tokens for tokens, _ in found] for found in fast.values()]
    assert all(text == texts[0] for text in texts)


@pytest.mark.parametrize(("family", "n"), FAMILIES)
def test_graphs_and_kernels_change_no_text(monkeypatch, caplog, tmp_path, family, n):
    model = load_model(write_bytes(tmp_path, family, n, LETTERS), torch.float32).to("cuda")
    for part in (model.main, model.modules_):
        if hasattr(part.config, "num_experts_per_tok"):  # else held in bfloat16 alone
            part.set_experts_implementation("batched_mm")
    compared(monkeypatch, caplog, model, (1, 2, 3) if n == 2 else (1, 2, 4))


@pytest.mark.parametrize(
    ("name", "drafter"),
    [
        ("mtp-bytes-n4", None),
        ("mtp-bytes-qwen", None),
        ("mtp-bytes-n1", "mtp-bytes-n1-eagle3"),
        ("mtp-bytes-n1", "mtp-bytes-n1-medusa"),
    ],
)
def test_shipped_models_write_the_same(monkeypatch, caplog, name, drafter):
    opened = open_model(name, dtype=torch.float32, device="cuda", drafter=drafter)
    compared(monkeypatch, caplog, opened.model, (1, 4))


def shared_unembedding():
    """Return a random model whose four heads share an unembedding; drafts are right by luck."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 101, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "n_future_tokens": 4}
    return lively(MTPLlamaForCausalLM(MTPLlamaConfig(**sizes, **heads, pad_token_id=0))).float()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs here")
@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-qwen"])
def test_the_second_gpu_gives_the_text_of_the_first(caplog, name):
    # Torch has one stream for all captures, on the GPU of the first: graphs for another GPU failed.
    models = [
        open_model(name, dtype=torch.float32, device=device).model
        for device in ("cuda:0", "cuda:1")
    ]
    first, second, again = (decode(models[i], 4, 3) for i in (0, 1, 0))
    assert first == second == again
    assert "without a CUDA graph" not in caplog.text


@pytest.mark.parametrize("most", [0, 4])  # steps of one row have 4 tokens, of three rows 12
def test_heads_run_at_once_or_at_one_token(monkeypatch, caplog, most):
    monkeypatch.setattr(parallel, "AT_ONCE", most)
    compared(monkeypatch, caplog, shared_unembedding().to("cuda"), (1, 4))


@pytest.mark.parametrize("family", ["mimo", "qwen3_5_text", "qwen3_next"])
def test_prompts_of_half_precision_give_what_they_give_without_kernels(
    monkeypatch, tmp_path, family
):
    from mtp_harness.models.gpu import layer

    model = load_model(write_bytes(tmp_path, family, 1, LETTERS), torch.bfloat16).to("cuda")
    tokens = torch.randint(97, 100, (3, 128), device="cuda")
    lengths = torch.tensor([128, 70, 1], device="cuda")[:, None]
    columns, slots = torch.arange(128, device="cuda"), torch.arange(2, -1, -1, device="cuda")
    cache = SlotCache(model.layer_shapes(2), 3, 200, torch.bfloat16, model.device)
    found = []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(layer, "serves", lambda *_: False)
        cache.fill(slots, torch.where(columns < lengths, columns, cache.trash))
        with torch.inference_mode():
            states = model.trunk(tokens, columns.expand(3, -1), cache).float()
        stored = [each[2, :128].float() for each in (*cache.keys, *cache.values) if each.numel()]
        found.append([states[columns < lengths], *stored])
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=0, atol=0.05 * plain.abs().max())


def test_more_numbers_than_an_int32_counts():
    from mtp_harness.models.gpu.kernels import silu_times

    gate_up = torch.zeros(2**17 + 1, 2**14, dtype=torch.bfloat16, device="cuda")
    gate_up[-1] = 1
    found = silu_times(gate_up)
    assert found[-1].float().sub(0.7311).abs().max() < 0.01  # 1 / (1 + 1 / e)
    assert not found[:-1].any()


def test_a_graph_holds_experts_of_half_precision(tmp_path):
    model = load_model(write_bytes(tmp_path, "glm4_moe", 1, LETTERS), torch.bfloat16).to("cuda")
    engine = Engine(model, 4, [], str)
    slots = Slots(model, 4, engine.rule, Sampling(), 2, 40)
    with torch.inference_mode():
        assert slots.graphs(1)


def test_rows_begin_and_end_without_waiting_for_the_gpu():
    model = open_model("mtp-bytes-n4", dtype=torch.float32, device="cuda").model
    slots, prompts = Slots(model, 4, Rule(), Sampling(), 3, 90), [[97, 98], [99], [97]]
    with torch.inference_mode():
        for mode in ("default", "error"):  # compiles, and then raises where the host waits
            torch.cuda.set_sync_debug_mode(mode)
            try:
                prefilled = slots.fill([2, 0, 1], prompts)
                slots.start([2, 0, 1], prompts, prefilled, [9, 9, 9], [0, 1, 2])
                slots.step(4, 90)
                slots.stop([0, 2])
            finally:
                torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-qwen"])
def test_one_run_is_enough_before_the_first_capture_of_a_process(name):
    """Kernels are compiled and libraries prepared by it: in this process, tests before did that."""
    program = f"""
import torch
from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots
from mtp_harness.models.load import open_model

model = open_model({name!r}, dtype=torch.float32, device="cuda").model
with torch.inference_mode():
    print(sorted(Slots(model, 4, Rule(), Sampling(), 3, 90).graphs(1)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[90]\n", done.stderr


@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-n1"])
def test_steps_of_few_tokens_are_the_same_in_graphs_or_not(monkeypatch, caplog, name):
    from mtp_harness.models.gpu import layer  # it needs Triton

    model = open_model(name, dtype=torch.float16, device="cuda").model
    ks, served, held = (1, 4) if name.endswith("n4") else (1,), [], []
    run_few, graphs = layer._run_few, Slots.graphs
    monkeypatch.setattr(layer, "_run_few", lambda *args: served.append(1) or run_few(*args))
    monkeypatch.setattr(Slots, "graphs", lambda *given: held.append(graphs(*given)) or held[-1])
    found = {(k, slots): decode(model, k, slots) for k in ks for slots in (1, 3)}
    assert served
    assert all(held), caplog.text
    monkeypatch.setattr(Slots, "graphs", lambda *_: {})
    for (k, slots), answers in found.items():
        assert answers == decode(model, k, slots), (k, slots)
