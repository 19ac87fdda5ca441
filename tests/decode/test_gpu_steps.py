"""On a GPU: steps as CUDA graphs, with the kernels, give the text of eager steps without them."""

import logging

import pytest
import torch

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.sampling import Sampling
from mtp_harness.decode.slots import Slots
from mtp_harness.models.gpu import serve
from mtp_harness.models.load import load_model, open_model

from ..models.byte_families import write_bytes

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
    from mtp_harness.models.gpu import delta_window  # it needs Triton

    caplog.set_level(logging.WARNING)
    held = []
    graphs = Slots.graphs
    monkeypatch.setattr(Slots, "graphs", lambda slots: held.append(graphs(slots)) or held[-1])
    fast = {(k, slots): decode(model, k, slots) for k in ks for slots in (1, 3)}
    assert all(held), caplog.text
    monkeypatch.setattr(Slots, "graphs", lambda slots: {})
    monkeypatch.setattr(serve, "_on_gpu", lambda states: False)
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


def test_a_graph_holds_experts_of_half_precision(tmp_path):
    model = load_model(write_bytes(tmp_path, "glm4_moe", 1, LETTERS), torch.bfloat16).to("cuda")
    engine = Engine(model, 4, [], str)
    slots = Slots(model, 4, engine.rule, Sampling(), 2, 40)
    with torch.inference_mode():
        assert slots.graphs()


@pytest.mark.parametrize("name", ["mtp-bytes-n4", "mtp-bytes-n1"])
def test_steps_of_few_tokens_are_the_same_early_or_late_in_graphs_or_not(monkeypatch, caplog, name):
    from mtp_harness.models.gpu import early_start, layer  # they need Triton

    model = open_model(name, dtype=torch.float16, device="cuda").model
    ks, served, held = (1, 4) if name.endswith("n4") else (1,), [], []
    run_few, graphs = layer._run_few, Slots.graphs
    monkeypatch.setattr(layer, "_run_few", lambda *args: served.append(1) or run_few(*args))
    monkeypatch.setattr(Slots, "graphs", lambda slots: held.append(graphs(slots)) or held[-1])
    found = {(k, slots): decode(model, k, slots) for k in ks for slots in (1, 3)}
    assert served
    assert all(held), caplog.text
    monkeypatch.setattr(Slots, "graphs", lambda slots: {})
    for early in (True, False):
        monkeypatch.setattr(early_start, "EARLY", early)
        for (k, slots), answers in found.items():
            assert answers == decode(model, k, slots), (early, k, slots)
