"""What `mtp_heads` takes of memory above the weights: a long vocabulary, and a long text."""

import json
import subprocess
import sys

import pytest
import torch

from mtp_harness.models.byte_tokenizer import byte_tokenizer

from ..models.family_checkpoints import write

CHILD = """
import json, re, sys
from pathlib import Path
from lm_eval.api.instance import Instance
from mtp_harness.lm import MTPLM
from mtp_harness.probes.hardware import PeakMemory
from mtp_harness.probes.head_logprobs import TextQuestion
from mtp_harness.probes.heads import measure

folder, heads = sys.argv[1], int(sys.argv[2])
lm = MTPLM(folder, device="cpu", batch_size=1)
lm.model._n = heads
before = int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
peak = PeakMemory(lm.device)
asked = Instance("head_logprobs", {}, ("a" * 4096, TextQuestion(measure)), 0, metadata=("t", 0, 1))
[found] = lm.head_logprobs([asked], disable_tqdm=True)
top = peak.read()
print(json.dumps([found["n_states"], found["n"], None if top is None else top - before]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vocabulary", "heads", "allowed"),
    [(248_320, 2, 1.5e9), (512, 8, 0.5e9)],
    ids=["a long vocabulary", "eight heads"],
)
def test_a_text_of_4096_tokens(tmp_path, vocabulary, heads, allowed):
    """Together at most 2 GB: logits come in pieces, and so do the passes of a reused module."""
    sizes = {"vocab_size": vocabulary, "max_position_embeddings": 4096, "num_hidden_layers": 2}
    write(tmp_path, "mimo", dtype=torch.float32, **sizes)
    byte_tokenizer(4096).save_pretrained(tmp_path)
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(heads)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    n_states, n, grown = json.loads(ran.stdout.splitlines()[-1])
    assert (n_states, n) == (4096 - heads + 1, heads)
    if grown is None:
        pytest.skip("this system does not say what a process took at most")
    assert grown < allowed
