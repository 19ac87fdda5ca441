"""What is asked of vLLM, and of our own decoder, on the same checkpoint."""

import json
from unittest.mock import patch

from mtp_harness.models.byte_tokenizer import byte_tokenizer

from ...models.vllm_fixtures.checkpoints import SIZES, write_seeded

CONTEXT = 128
BUDGET = 40
PROMPTS = [
    [0, *(34 + 11 * i % 90 for i in range(23))],
    [0, 99, 100, 44],
    [0, 99, 100, 44],  # a repeat
    [0, 65, 66],
    [0, 200, 7, 61, 40],
]
ENDS = [("", []), ("a", []), ("e", []), ("", [*range(60, 80)]), ("", [*range(128, 144)])]
"""(stop string, ids that end an answer)."""
REQUESTS = [
    {"prompt": prompt, "budget": BUDGET, "until": [stop] if stop else [], "eos": eos}
    for prompt in PROMPTS
    for stop, eos in ENDS
] + [{"prompt": PROMPTS[1], "budget": 1, "until": [], "eos": []}]


MIMO = """
from transformers import Qwen2Config


class MiMoConfig(Qwen2Config):
    model_type = "mimo"
"""


def write_checkpoint(folder, family):
    """Write a checkpoint of the fixtures over 256 bytes, with its tokenizer."""
    with patch.dict(SIZES[family], vocab_size=256):
        write_seeded(folder, family)
    byte_tokenizer(CONTEXT).save_pretrained(folder)
    if family == "mimo":  # as released: transformers does not know it, and its code comes along
        (folder / "configuration_mimo.py").write_text(MIMO)
        path = folder / "config.json"
        more = {"auto_map": {"AutoConfig": "configuration_mimo.MiMoConfig"}}
        more["architectures"] = ["MiMoForCausalLM"]
        path.write_text(json.dumps(json.loads(path.read_text()) | more))
