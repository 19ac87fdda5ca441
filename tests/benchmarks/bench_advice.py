"""Does `mtp-harness advise` say what decoding then measures?

    lm_eval --model mtp --tasks mtp_speculative,mtp_speed \\
        --metadata '{"documents": "built-in", "quick": true}' -o RESULTS
    python -m tests.benchmarks.bench_advice RESULTS -o tests/benchmarks/results/advice_cpu.json

Decodes the prompts of each category again, so many times over that the batch stays full but at the
end, and compares tokens per second with the advice. Just before and after, a cell of `mtp_speed` is
timed again: `drift` is what the machine's speed has become since RESULTS, and `ratio` has the
advice at that speed. Seconds are those that the process has of a processor, one thread.
"""

import argparse
import json
import time
from pathlib import Path

from mtp_harness.data import conversations
from mtp_harness.data.corpus import code_corpus
from mtp_harness.decode.engine import Request
from mtp_harness.lm import MTPLM
from mtp_harness.models import provenance
from mtp_harness.models.text import plain_encode
from mtp_harness.probes.encoding import prompt_of
from mtp_harness.probes.speed import _Prompts
from mtp_harness.results import advice
from mtp_harness.results.tidy import read_runs, table

NEW_TOKENS = 128


def requests_of(lm):
    """Return the requests of `mtp_speculative` on the built-in documents with `quick`."""
    found = {}
    for row in conversations.load(conversations.BUILT_IN, True, None, "test", "prompt")["test"]:
        prompt, _ = lm.decoder().prompt(prompt_of(lm, row["text"]), NEW_TOKENS, row["name"])
        found.setdefault(row["data_set"], []).append(Request(prompt, NEW_TOKENS))
    return found


def seconds_per_step(engine, prompts):
    """Time a cell of `mtp_speed`, whose rows all decode 64 tokens."""
    eos, engine.eos = engine.eos, ()
    records = [a.record for a in engine.generate([Request(one, 64) for one in prompts])]
    engine.eos = eos
    return max(r.decode_s for r in records) / max(r.n_steps for r in records)


def tokens_per_second(engine, requests):
    """Return the rate of decoding; of several rows, of all seconds but those of the prefills."""
    began = time.perf_counter()
    records = [answer.record for answer in engine.generate(requests)]
    seconds = time.perf_counter() - began
    if engine.slots == 1:
        seconds = sum(record.decode_s for record in records)
    else:
        began = time.perf_counter()
        engine.generate([Request(one.prompt, 1) for one in requests])
        seconds -= time.perf_counter() - began
    return sum(record.n_kept for record in records) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    results = read_runs([args.results])
    (advised,) = advice.advise(advice.rates(results))
    steps = table(results, "mtp_speed", "by_cell", "seconds_per_step")
    steps = {(row["batch"], row["k"]): row["value"] for _, row in steps.iterrows()}
    time.perf_counter = time.process_time  # in all that measures
    lm = MTPLM(device="cpu", dtype="float32")
    cut = _Prompts(code_corpus(), plain_encode(lm.tokenizer))
    asked, rows = requests_of(lm), []
    for cell in advised.cells:
        prompts, requests = cut(128, cell.batch), asked[cell.category] * cell.batch
        for k, rate in cell.rates.items():
            engine = lm.decoder().engine(k, cell.batch)
            seconds_per_step(engine, prompts)  # warms up
            before = seconds_per_step(engine, prompts)
            measured = tokens_per_second(engine, requests)
            drift = (before + seconds_per_step(engine, prompts)) / 2 / steps[cell.batch, k]
            ratio = rate.value / drift / measured
            place = {"category": cell.category, "batch": cell.batch, "k": k}
            rows.append({**place, **rate._asdict(), "measured": measured, "drift": drift,
                         "ratio": ratio})  # fmt: skip
            print(*place.values(), f"{rate.value:.0f} {measured:.0f} {drift:.2f} {ratio:.3f}",
                  flush=True)  # fmt: skip
    near = sum(abs(row["ratio"] - 1) <= 0.1 for row in rows)
    print(f"{near} of {len(rows)} within 10 %")
    if args.out:
        about = {"hardware": provenance.hardware(lm.device), "versions": provenance.versions()}
        args.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
