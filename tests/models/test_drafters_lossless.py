"""With any drafter trained apart the text is plain decoding's, be it always wrong or always right.

The oracle is transformers' own trunk over the whole prefix, in float64 and without a cache.
"""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness.decode.engine import Engine, Request
from mtp_harness.models.load import load_model

from ..decode.models_for_tests import Scripted
from .family_checkpoints import in_float64, write
from .test_eagle3 import DIM, HEADS, VOCABULARY, WIDE, WIDTH, to_text, write_eagle3

PROMPTS = [[1, 19, 1, 25, 7], [3], [9, 9, 4, 2, 8, 30, 31]]
LENGTH = 14


def write_llama(folder):
    torch.manual_seed(3)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 4, "intermediate_size": WIDE}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": 2, "head_dim": DIM}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads))
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 2 / weight.shape[1] ** 0.5)
    model.save_pretrained(folder)
    return model.eval()


def write_medusa(folder):
    shapes = {f"{i}.0.linear.weight": (WIDTH, WIDTH) for i in range(3)}
    shapes |= {f"{i}.1.weight": (VOCABULARY, WIDTH) for i in range(3)}
    save(folder, shapes, {"medusa_num_heads": 3, "medusa_num_layers": 1})


def write_hydra(folder):
    shapes = {}
    for i in range(3):
        for part in ("linear", "res_connection"):
            shapes[f"hydra_mlp.{i}.0.{part}.weight"] = (WIDTH, (i + 2) * WIDTH)
            shapes[f"hydra_mlp.{i}.0.{part}.bias"] = (WIDTH,)
        shapes[f"hydra_lm_head.{i}.weight"] = (VOCABULARY, WIDTH)
    save(folder, shapes, {"hydra_num_heads": 3, "hydra_num_layers": 1, "hydra_head_arch": "mlp"})


def write_eagle(folder):
    at, narrow = "layers.0.", 2 * DIM
    shapes = {"fc.weight": (WIDTH, 2 * WIDTH), "fc.bias": (WIDTH,)}
    shapes |= {f"{at}self_attn.{p}_proj.weight": (narrow, WIDTH) for p in "kv"}
    shapes |= {f"{at}self_attn.{p}_proj.weight": (WIDTH, WIDTH) for p in "qo"}
    shapes |= {f"{at}mlp.{p}_proj.weight": (WIDE, WIDTH) for p in ("gate", "up")}
    shapes |= {f"{at}mlp.down_proj.weight": (WIDTH, WIDE)}
    shapes |= {f"{at}post_attention_layernorm.weight": (WIDTH,)}
    layer = {"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH}
    layer |= {"num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    save(folder, shapes, layer | {"head_dim": DIM, "intermediate_size": WIDE})


def save(folder, shapes, content):
    torch.manual_seed(5)
    folder.mkdir()
    tensors = {key: 0.2 * torch.randn(shape) for key, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(content))


DRAFTERS = {
    "eagle": write_eagle,
    "eagle3": lambda folder: write_eagle3(folder, [0, 1, 4]),
    "medusa": write_medusa,
    "hydra": write_hydra,
}
TRUNKS = {
    "llama": write_llama,
    "hybrid": lambda folder: write(folder, "qwen3_5_text", fill=lively)[0],
}


def lively(module, name):
    """Let a trunk's text wander."""
    if name == "trunk":
        module.lm_head.weight.data *= 5


@torch.no_grad()
def plain(main, prompt):
    text = list(prompt)
    for _ in range(LENGTH):
        text.append(int(main(torch.tensor([text])).logits[0, -1].argmax()))
    return text


@pytest.fixture(scope="module", params=TRUNKS)
def trunk(request, tmp_path_factory):
    """A trunk's folder, and the text that it writes to each prompt."""
    folder = tmp_path_factory.mktemp("trunk")
    with in_float64():
        main = TRUNKS[request.param](folder)
        yield str(folder), [plain(main, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("kind", DRAFTERS)
def test_the_text_is_the_trunk_s_whatever_the_drafter_says(trunk, kind, tmp_path):
    folder, texts = trunk
    DRAFTERS[kind](tmp_path / "drafter")
    model = load_model(folder, torch.float64, drafter=str(tmp_path / "drafter"))
    assert len({token for text in texts for token in text}) > 12
    asked = [Request(prompt, LENGTH, key=i) for i, prompt in enumerate(PROMPTS)]
    answers = Engine(model, 3, [], to_text, slots=2).generate(asked)
    assert [p + a.tokens for p, a in zip(PROMPTS, answers, strict=True)] == texts
    for right in (0, 3):  # drafts of four heads
        scripted = Scripted(model, PROMPTS, texts, lambda *_, right=right: right)
        n_steps = (LENGTH - 1) // (1 + right)
        budget = 1 + (1 + right) * n_steps
        asked = [Request(prompt, budget, key=i) for i, prompt in enumerate(PROMPTS)]
        answers = Engine(scripted, 4, [], to_text, slots=2).generate(asked)
        for prompt, text, answer in zip(PROMPTS, texts, answers, strict=True):
            assert prompt + answer.tokens == text[: len(prompt) + budget]
            assert answer.record.n_verified == (right,) * n_steps
