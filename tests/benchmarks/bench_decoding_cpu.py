"""Decoding speed of a shipped model on a CPU, side by side in one run.

    python tests/benchmarks/bench_decoding_cpu.py -o tests/benchmarks/results/decoding_cpu.json
    python tests/benchmarks/bench_decoding_cpu.py --model mtp-bytes-qwen -o …_qwen.json

Ways to the same greedy text, EOS off: transformers' `generate` (what `--model hf` does) on one core
and on all of them, our engine with head 1 alone (NTP), and with heads 1..k, both on one core.
Prompts are 512 bytes of the standard library whose answers do not loop. Trials run in the order
A B C, C B A, ...; a ratio is the median of the ratios within a trial. Decoding alone leaves the
prefill out; end to end has it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from mtp_harness.data.corpus import code_corpus
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.records import Acceptance
from mtp_harness.models import provenance
from mtp_harness.models.load import DEFAULT_MODEL, load_model, load_tokenizer, resolve
from mtp_harness.models.text import plain_encode, shown
from mtp_harness.probes.windows import prompts

NEW = 512
PROMPT = 512


def steady_prompts(model, tokenizer, count):
    """Return prompts whose greedy answers do not loop."""
    asked = prompts(code_corpus(), plain_encode(tokenizer), PROMPT, 200, NEW)
    answers = Engine(model, 4, [], shown(tokenizer), slots=20).generate(
        [Request(prompt, NEW) for prompt in asked]
    )
    steady = [p for p, a in zip(asked, answers, strict=True) if not a.record.looping]
    return steady[:count]


def with_transformers(model, asked, batch, threads):
    """Return seconds end to end and the answers of generate of a model of transformers."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    answers, began = [], time.perf_counter()
    for at in range(0, len(asked), batch):
        rows = torch.tensor(asked[at : at + batch])
        with torch.inference_mode():
            out = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        answers += out[:, PROMPT:].tolist()
    seconds = {"end_to_end_s": time.perf_counter() - began}
    torch.set_num_threads(before)
    return seconds, answers


def with_engine(engine, asked):
    """Return seconds end to end and of decoding alone, the answers, and tokens per forward."""
    began = time.perf_counter()
    answers = engine.generate([Request(prompt, NEW) for prompt in asked])
    whole = time.perf_counter() - began
    records = [answer.record for answer in answers]
    # Rows that share a prefill wait for it together.
    waves = [records[at : at + engine.slots] for at in range(0, len(records), engine.slots)]
    prefill = sum(wave[0].prefill_s for wave in waves)
    seconds = {"end_to_end_s": whole, "decoding_s": whole - prefill}
    return seconds, [a.tokens for a in answers], Acceptance.pool(records).tokens_per_forward


def one_batch(model, plain, tokenizer, asked, batch, trials):
    """Return what was measured with one batch size."""
    engines = {k: Engine(model, k, [], shown(tokenizer), slots=batch) for k in (1, 2, 3, 4)}
    cores = len(os.sched_getaffinity(0))
    threads = {"hf": 1, f"hf on {cores} cores": cores}
    ways = [*threads, *engines]
    found = {way: [] for way in ways}
    texts, per_forward = {}, {}
    for trial in range(-1, trials):  # the first warms up
        for way in ways if trial % 2 else ways[::-1]:
            if way in threads:
                seconds, texts[way] = with_transformers(plain, asked, batch, threads[way])
            else:
                seconds, texts[way], per_forward[way] = with_engine(engines[way], asked)
            if trial >= 0:
                found[way].append(seconds)
    same = {way: sum(a == b for a, b in zip(texts[way], texts[1], strict=True)) for way in ways}
    return {
        "batch": batch,
        "n_prompts": len(asked),
        "identical_to_ntp": same,
        "tokens_per_forward": per_forward,
        "trials": found,
    }


def ratio(row, slow, fast, what):
    """Return the median over trials of how many times faster `fast` is than `slow`."""
    pairs = zip(row["trials"][slow], row["trials"][fast], strict=True)
    return statistics.median(a[what] / b[what] for a, b in pairs)


def speed(row, way, what):
    tokens = row["n_prompts"] * NEW
    return tokens / statistics.median(trial[what] for trial in row["trials"][way])


def weight_bytes(model, k):
    """Return the bytes of weights that a step with heads 1..k reads."""
    if model.sequential:  # the unembedding is the embedding; one module runs k - 1 times
        read = [*model.base.layers, model.norm, *([model.modules_, model.main.lm_head] * (k - 1))]
        read.append(model.main.lm_head)
    else:
        read = [*model.model.layers, *model.extra_heads[: k - 1], model.model.norm, model.lm_head]
        read += model.extra_lm_heads[: k - 1]
    return sum(p.numel() * p.element_size() for module in read for p in module.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a shipped model with heads")
    args = parser.parse_args()
    model = load_model(args.model, torch.float32)
    tokenizer = load_tokenizer(args.model)
    plain = model
    if model.sequential:
        plain = AutoModelForCausalLM.from_pretrained(resolve(args.model), dtype=torch.float32)
    asked = steady_prompts(model, tokenizer, 16)
    share = weight_bytes(model, 1) / weight_bytes(model, 4)
    rows = []
    for batch in map(int, args.batches.split(",")):
        row = one_batch(model, plain, tokenizer, asked[: max(4, batch)], batch, args.trials)
        rows.append(row)
        limit = row["tokens_per_forward"][4] * share
        decoding = ratio(row, 1, 4, "decoding_s")
        hf = [way for way in row["trials"] if isinstance(way, str)]
        best = max(hf, key=lambda way: speed(row, way, "end_to_end_s"))
        print(
            f"batch {batch}: tokens/s end to end "
            + ", ".join(f"{way} {speed(row, way, 'end_to_end_s'):.0f}" for way in row["trials"])
            + f"\n  k=4 over NTP, decoding {decoding:.2f} of at most {limit:.2f} "
            f"({decoding / limit:.2f}), end to end {ratio(row, 1, 4, 'end_to_end_s'):.2f}; "
            f"over {best} {ratio(row, best, 4, 'end_to_end_s'):.2f}; "
            f"tokens per forward {row['tokens_per_forward'][4]:.3f}; "
            f"identical to NTP {row['identical_to_ntp']}",
            flush=True,
        )
    out = {"weight_bytes_share": share, "rows": rows, **provenance.environment(model.device)}
    args.out.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
