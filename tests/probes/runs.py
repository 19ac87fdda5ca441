"""Probe tasks on tiny models: whole runs of the harness, and the same numbers by plain loops.

The loops take logits in float64, one state and head at a time, from the shortest text that they may
read; everything after that is Python numbers.
"""

import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from mtp_harness import _startup, tasks_dir
from mtp_harness.lm import MTPLM
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.sequential_folder import load_sequential

from ..decode.models_for_tests import example, lively, unsure
from ..models.byte_families import write_bytes

EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}

LETTERS = b"ab =1(\n)"
"""The tiny models predict these bytes alone, so that every head is right now and then."""

TEXTS = {
    "one.py": "a = 1\nb = (a)\nab=b \n(a) = 1b\n b\n",
    "two.py": "aab = (1 1)\n",
    "deep/three.py": "b(a, 1)\nab = ab(b)\n\n(a)\n) b= 1ü\nabababababab\n1\n",
    "few.py": "ab",
}


def write_texts(folder, texts=TEXTS):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return str(folder)


def narrow(model, *unembeddings):
    """Let a model predict `LETTERS` alone: the logits of all other bytes are low."""
    with torch.no_grad():
        for layer in unembeddings:
            others = [i for i in range(256) if i not in LETTERS]
            layer.weight[others] *= 0.02
    return model


def llama(n, vocab=256, replicated=True, context=64):
    """Return a small Llama with n heads."""
    torch.manual_seed(n)
    config = MTPLlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n + 1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        n_future_tokens=n,
        replicated_unembeddings=replicated,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return lively(MTPLlamaForCausalLM(config))


def tiny(n, replicated=True, context=64):
    """Return a small Llama with n heads over bytes."""
    model = llama(n, replicated=replicated, context=context)
    return narrow(model, model.lm_head, *model.extra_lm_heads)


def save(model, folder):
    model.save_pretrained(folder)
    byte_tokenizer(64).save_pretrained(folder)
    return str(folder)


def harness_model(model, folder, batch_size=1, **kwargs):
    """Return an `MTPLM` that holds `model`; its folder has a tokenizer and another model."""
    if not Path(folder, "config.json").exists():
        save(tiny(2), folder)
    lm = MTPLM(pretrained=str(folder), device="cpu", batch_size=batch_size, **kwargs)
    lm._model = model
    return lm


def sequential_model():
    toy = unsure(example("sequential_toy", 256))
    return narrow(toy, toy.unembed)


def family_model(folder, n=1, heads=None, family="glm4_moe", letters=LETTERS):
    """Return a tiny model of a family with n modules over bytes, in float64."""
    write_bytes(folder, family, n, letters, torch.float64)
    return load_sequential(folder, torch.float64, heads, **EAGER)


def ordinary_folder(folder):
    """Write an ordinary causal language model over bytes."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    model = lively(LlamaForCausalLM(config))
    narrow(model, model.lm_head)
    return save(model, folder)


def run(lm, task, **metadata):
    """Return the results of a run of the harness."""
    _startup.install()
    from lm_eval import simple_evaluate

    manager = TaskManager(include_path=str(tasks_dir()), include_defaults=False, metadata=metadata)
    return simple_evaluate(lm, tasks=[task], task_manager=manager, bootstrap_iters=0)


def table(results, task, name):
    """Return a table's values by (dimensions..., metric)."""
    found = results["config"]["mtp"]["tables"][task][name]
    assert found["columns"][-5:] == ["metric", "value", "low", "high", "count"]
    values = {tuple(row[:-4]): row[-4] for row in found["rows"]}
    assert len(values) == len(found["rows"]), "no cell twice"
    return values


def counts(results, task, name):
    found = results["config"]["mtp"]["tables"][task][name]
    return {tuple(row[:-4]): row[-1] for row in found["rows"]}


def ask(lm, texts, question):
    """Return the answers to one question about several texts."""
    requests = [
        Instance("head_logprobs", {}, (text, question), 0, metadata=("t", i, 1))
        for i, text in enumerate(texts)
    ]
    return lm.head_logprobs(requests)


# ---------------------------------------------------------------- plain loops


def start_of(state, n_states, window, stride):
    """Return where the window that scores a state starts."""
    end = window
    while end <= state:
        end += stride
    return max(0, min(end, n_states) - window)


@torch.no_grad()
def plain_logits(model, tokens, start, state, offset, chained=False):
    """Return head `offset`'s logits at a state whose window starts at `start`, as numbers.

    One module is read as it drafts on by itself, unless `chained`.
    """
    prefix = torch.tensor([tokens[start : state + 1]])
    if isinstance(model, LlamaForCausalLM) and not hasattr(model, "trunk"):
        return model(prefix).logits[0, -1].double().tolist()
    states = model.trunk(prefix)
    if not model.sequential:
        return model.logits(offset, model.head(offset, states))[0, -1].tolist()
    if model.reused and not chained:
        return drafted_on(model, tokens, start, state, offset)
    for i in range(1, offset + 1):
        ahead = torch.tensor([tokens[start + i - 1 : state + i]])
        states = model.head(i, states, ahead)
    return model.logits(offset, states)[0, -1].tolist()


def drafted_on(model, tokens, start, state, offset):
    """Return the same of one module: a text of its inputs that grows by its own last state."""
    inputs = model.head(1, model.trunk(torch.tensor([tokens[start : state + 1]])))
    for i in range(2, offset + 1):
        ahead = torch.tensor([tokens[start + 1 : state + i]])
        inputs = torch.cat([inputs, model.head(2, inputs, ahead)[:, -1:]], 1)
    return model.logits(offset, inputs)[0, -1].tolist()


def softmax(logits):
    best = max(logits)
    weights = [math.exp(value - best) for value in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def reader(model, text, window, stride=None, bos=(0,), chained=False):
    """Return the text's tokens, and a function from (state, offset) to probabilities."""
    tokens = [*bos, *text.encode()]
    stride = stride or window

    @functools.cache
    def probabilities(state, offset):
        start = start_of(state, len(tokens) - 1, window, stride)
        return softmax(plain_logits(model, tokens, start, state, offset, chained))

    return tokens, probabilities


def best(p):
    return p.index(max(p))


def by_one_and_by_two(folder, words):
    """Return the results of `lm_eval --model mtp` by one process and by two, which share it."""
    lm_eval = ["-m", "lm_eval", "--model", "mtp", *words, "--output_path"]
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    found = []
    for name, launch in (("one", []), ("two", two)):
        command = [sys.executable, *launch, *lm_eval, str(folder / name)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (path,) = (folder / name).rglob("results_*.json")
        found.append(json.loads(path.read_text()))
    return found
