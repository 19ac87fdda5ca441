"""Decoding speed on one GPU, side by side in one run.

    python -m tests.benchmarks.bench_decoding_gpu synthetic -o OUT.json
    python -m tests.benchmarks.bench_decoding_gpu FOLDER -o OUT.json    # a trained byte model

`synthetic` is the paper's 7B shape with n = 4 heads in bfloat16: random weights, random prompts,
and acceptance forced to the paper's pattern (Table S2, code, k = 4: .94, .84 and .72 of the steps
verify at least 1, 2 and 3 drafts). How long a step takes does not depend on what it decodes.

Ways: our engine with heads 1..k, an n = 1 model with as many blocks (random weights), transformers'
`generate` eager, and with a static cache and compilation. Prompts of 512 tokens, 512 new ones, EOS
off. Trials run in the order A B C, C B A, ...; a ratio is the median of the ratios within a trial.
Decoding alone is the sum over rows of new tokens / seconds from its first token to its last; end to
end is all that a call takes, our engine's allocation, graph capture and prefill included, which are
told apart in the JSON.

Before that, for each batch and k: one step alone, replayed, with rows 768 tokens long, beside its
roofline at the rates measured here (`roofline`), and the kernels of k = 1 and n.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import torch

from mtp_harness.data.corpus import code_corpus
from mtp_harness.decode import engine as engine_module
from mtp_harness.decode import step as step_module
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.records import Acceptance
from mtp_harness.decode.sampling import Sampling, _draw, _shifted
from mtp_harness.decode.slots import Slots
from mtp_harness.models import provenance
from mtp_harness.models.load import load_model, load_tokenizer
from mtp_harness.models.text import plain_encode, shown
from mtp_harness.probes.windows import prompts
from tests.benchmarks.one_step import captured, kernels, measured_rates
from tests.benchmarks.random_weights import SHAPES, random_model
from tests.benchmarks.roofline import floor_ms, work_of_step

PROMPT = NEW = 512
LENGTH = PROMPT + NEW // 2
"""Tokens of a row in the middle of its answer."""

PATTERN = (0.94, 0.84, 0.72)


class TimedSlots(Slots):
    """Remembers how long the last capture took, kernels' compilation included."""

    capture_s = 0.0

    def graphs(self, fewest):
        began = time.perf_counter()
        found = super().graphs(fewest)
        torch.cuda.synchronize()
        TimedSlots.capture_s = time.perf_counter() - began
        return found


class ForcedSlots(TimedSlots):
    """Accepts as many drafts as the paper's model did, by noise keyed as sampling is."""

    def step(self, n_tokens, width):
        with mock.patch.object(step_module, "count_verified", self._count_accepted):
            return super().step(n_tokens, width)

    def _count_accepted(self, drafts, choices):
        uniform = _shifted(_draw(self.keys, self.pending), 11).double() * 2.0**-53
        accepted = sum((uniform < share).long() for share in PATTERN[: drafts.shape[1]])
        return accepted + torch.zeros_like(self.pending)


# Models


def of_same_shape(model, n, device=None):
    """Return a model of the same blocks with n heads; its weights are random."""
    keep = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    keep += ("num_attention_heads", "num_key_value_heads")
    sizes = {name: getattr(model.config, name) for name in keep}
    return random_model(device, n_future_tokens=n, **sizes)


# One step alone


def steps_alone(model, batch, rates, trials=5):
    """Return, by k, milliseconds of a step, greedy and sampled, and of its roofline."""
    n, counted = model.n_future_tokens, of_same_shape(model, model.n_future_tokens, "meta")
    found = {}
    for sampling in (Sampling(), Sampling(0.8, 0, 0.95)):
        for k in range(1, n + 1) if sampling.greedy else (1, n):
            run = captured(model, k, batch, sampling, LENGTH)
            run()
            times = [run() for _ in range(trials)]
            found.setdefault(k, {})["ms" if sampling.greedy else "sampled_ms"] = times
            if sampling.greedy and k in (1, n):
                found[k]["profile"] = kernels(run)
            del run  # four caches of 42 rows do not fit
            torch.cuda.empty_cache()
    for k, one in found.items():
        one["roofline_ms"] = floor_ms(work_of_step(counted, k, batch, LENGTH), **rates)
        one["roofline_share"] = one["roofline_ms"] / statistics.median(one["ms"])
    return found


# Whole answers


def characters(tokens):
    """Stand in for a tokenizer of the random model: a character per token."""
    return "".join(map(chr, tokens))


def with_engine(model, k, to_text, asked, batch, forced):
    engine_module.Slots = ForcedSlots if forced else TimedSlots
    engine = Engine(model, k, [], to_text, slots=batch)
    torch.cuda.synchronize()
    began = time.perf_counter()
    answers = engine.generate([Request(p, NEW, key=i) for i, p in enumerate(asked)])
    whole = time.perf_counter() - began
    records = [answer.record for answer in answers]
    return {
        "end_to_end_s": whole,
        "capture_s": TimedSlots.capture_s,
        "prefill_s": max(record.prefill_s for record in records),
        "tokens": len(asked) * NEW,
        "decoding_tokens_per_s": sum(record.n_kept / record.decode_s for record in records),
        "step_ms": statistics.mean(r.decode_s / len(r.n_verified) for r in records) * 1e3,
        "tokens_per_forward": Acceptance.pool(records).tokens_per_forward,
        "looping": sum(record.looping for record in records),
    }, [answer.tokens for answer in answers]


def with_transformers(model, asked, **settings):
    rows = torch.tensor(asked, device="cuda")

    def seconds(count):
        torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                rows,
                attention_mask=torch.ones_like(rows),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                **settings,
            )
        torch.cuda.synchronize()
        return time.perf_counter() - began, out[:, PROMPT:].tolist()

    first, _ = seconds(1)
    whole, answers = seconds(NEW)
    return {
        "end_to_end_s": whole,
        "tokens": len(asked) * NEW,
        "decoding_tokens_per_s": len(asked) * (NEW - 1) / (whole - first),
        "step_ms": (whole - first) / (NEW - 1) * 1e3,
    }, answers


def clocks():
    """Return what the driver says of clocks, power and temperature."""
    asked = "clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
    index = torch.cuda.current_device()
    uuid = str(torch.cuda.get_device_properties(index).uuid)
    command = ["nvidia-smi", "-i", f"GPU-{uuid}", f"--query-gpu={asked}", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def one_batch(ways, trials, deadline):
    """Return the trials of every way; a way takes part in its number of trials.

    Args:
        ways: name -> function that decodes once.
        trials: name -> how often.
        deadline: no trial begins after it.
    """
    found = {way: [] for way in ways}
    texts, failed, log = {}, {}, [clocks()]
    for trial in range(-1, max(trials.values())):  # the first warms up
        if time.perf_counter() > deadline and trial > 0:
            break
        names = [way for way in ways if trial < trials[way] and way not in failed]
        for way in names if trial % 2 else names[::-1]:
            try:
                measured, texts[way] = ways[way]()
            except Exception as error:  # a baseline that cannot run is a result, too
                failed[way] = f"{type(error).__name__}: {error}"[:300]
                continue
            if trial >= 0:
                found[way].append({"trial": trial, **measured})
        log.append(clocks())
    ntp = texts["k=1"]
    same = {way: sum(a == b for a, b in zip(text, ntp, strict=True)) for way, text in texts.items()}
    return {"trials": found, "identical_to_ntp": same, "failed": failed, "clocks": log}


def ratio(row, slow, fast, what="decoding_tokens_per_s"):
    """Return the median over their common trials of how many times faster `fast` is."""
    of = {way: {one["trial"]: one[what] for one in row["trials"][way]} for way in (slow, fast)}
    common = of[slow].keys() & of[fast].keys()
    return statistics.median(of[fast][t] / of[slow][t] for t in common) if common else None


def show(row, n):
    """Print one batch."""
    print(f"batch {row['batch']}")
    for k, one in row["steps"].items():
        ntp = statistics.median(row["steps"][1]["ms"])
        ms = statistics.median(one["ms"])
        sampled = statistics.median(one["sampled_ms"]) if "sampled_ms" in one else float("nan")
        print(
            f"  step k={k}: {ms:.3f} ms ({one['roofline_share']:.3f} of the roofline), "
            f"NTP's / this {ntp / ms:.3f}; sampled {sampled:.3f} ms"
        )
    for way, trials in row["trials"].items():
        if not trials:
            print(f"  {way}: {row['failed'].get(way, 'not reached')}")
            continue

        def middle(what, trials=trials):
            return statistics.median(one[what] for one in trials)

        end_to_end = statistics.median(one["tokens"] / one["end_to_end_s"] for one in trials)
        print(
            f"  {way}: decoding {middle('decoding_tokens_per_s'):.1f} tokens/s, end to end "
            f"{end_to_end:.1f}, step {middle('step_ms'):.3f} ms, "
            f"over NTP {ratio(row, 'k=1', way)}, {len(trials)} trials, "
            f"identical to NTP {row['identical_to_ntp'][way]}"
        )
    if row["trials"][f"k={n}"]:
        per_forward = row["trials"][f"k={n}"][0]["tokens_per_forward"]
        print(
            f"  tokens per forward {per_forward:.3f}, speedup / it "
            f"{ratio(row, 'k=1', f'k={n}') / per_forward:.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="synthetic, or a folder")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--batches", default="1,2,4,8,16,32,42")
    parser.add_argument("--hf-batches", default="1,16")
    parser.add_argument("--trials", type=int, default=10, help="of NTP and of k = n")
    parser.add_argument("--other-trials", type=int, default=10, help="of other k and of n = 1")
    parser.add_argument("--hf-trials", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="then no trial begins")
    args = parser.parse_args()
    deadline = time.perf_counter() + args.seconds
    batches = [int(batch) for batch in args.batches.split(",")]
    forced = args.model == "synthetic"
    if forced:
        model = random_model(n_future_tokens=4, **SHAPES["7B"])
        to_text = characters
        asked = torch.randint(1, 32000, (max(batches), PROMPT)).tolist()
    else:
        tokenizer = load_tokenizer(args.model)
        model = load_model(args.model, torch.bfloat16).cuda().eval()
        to_text = shown(tokenizer)
        asked = prompts(code_corpus(), plain_encode(tokenizer), PROMPT, max(batches), NEW)
    n, single = model.n_future_tokens, of_same_shape(model, 1)
    rates = measured_rates()
    print(f"{rates}, {clocks()}", flush=True)
    out = {"model": args.model, "synthetic": forced, "rates": rates}
    out |= {"parameters": sum(p.numel() for p in model.parameters()), "rows": []}
    out |= provenance.environment(model.device)
    for batch in batches:
        prompts_here = asked[:batch]

        def engine_way(model, k, prompts=prompts_here):
            return lambda: with_engine(model, k, to_text, prompts, len(prompts), forced)

        def hf_way(prompts=prompts_here, **settings):
            return lambda: with_transformers(model, prompts, **settings)

        ways = {f"k={k}": engine_way(model, k) for k in range(1, n + 1)}
        ways["n=1, as many blocks"] = engine_way(single, 1)
        if str(batch) in args.hf_batches.split(","):
            ways["hf eager"] = hf_way()
            ways["hf static + compile"] = hf_way(cache_implementation="static")
        trials = dict.fromkeys(ways, args.other_trials)
        trials |= {"k=1": args.trials, f"k={n}": args.trials}
        trials |= {way: args.hf_trials for way in ways if way.startswith("hf")}
        row = {"batch": batch, "steps": steps_alone(model, batch, rates)}
        row |= one_batch(ways, trials, deadline)
        out["rows"].append(row)
        show(row, n)
        torch.cuda.empty_cache()
        args.out.write_text(json.dumps(out, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
