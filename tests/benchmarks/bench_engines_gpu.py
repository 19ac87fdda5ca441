"""vLLM and our engine on the same shapes, in one run: milliseconds of a decoding step on one GPU.

    python -m tests.benchmarks.bench_engines_gpu -o OUT.json
    python -m tests.benchmarks.bench_engines_gpu -o OUT.json --tiny        # anywhere, a smoke test
    python -m tests.benchmarks.bench_engines_gpu -o OUT.json --shapes mimo --gpus 2   # vLLM alone
    python -m tests.benchmarks.bench_engines_gpu -o OUT.json --alone   # our steps alone, on a GPU

Shapes, with random weights: `mimo`, MiMo-7B with its module, k = 1 to 4 in both engines; `llama`,
the paper's 7B with n = 4 heads, k = 1 to 4 in ours, and its trunk of 29 layers in vLLM, which has
no such heads; `qwen`, Qwen3.5-9B with its module, k = 1 and 4 in both. Prompts of 512 random
tokens, greedy, EOS off, no prefix cache. Decoding alone is the seconds of 320 new tokens less those
of 64, of the same call; a step is that over the steps between the two (vLLM tells how many drafts
it made in all; NTP has a step for every token). How long a step takes does not depend on what it
decodes; tokens per second do, and random weights accept what they will. Of our engine also: a
replayed step alone, whose difference to a step is the host's time, the step's roofline at the rates
measured then (`roofline`), and the kernels of the least and largest k.

Every engine has a process of its own, one after the other; what fails, or is not reached in time,
is in the JSON with its reason. vLLM 0.26 will do; for `qwen` it needs torchvision, too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

MIMO = {
    "vocab_size": 151680,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
LLAMA = MIMO | {"vocab_size": 32000, "num_hidden_layers": 32, "num_key_value_heads": 32}
QWEN = {
    "vocab_size": 248320,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
TINY = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 5}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2}
TINY_LINEAR = {"head_dim": 64, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
TINY_LINEAR |= {"linear_key_head_dim": 128, "linear_value_head_dim": 128}  # vLLM's least
SHAPES = {"mimo": MIMO, "llama": LLAMA, "qwen": QWEN}
PARTS = [
    ("mimo", "ours", (1, 2, 3, 4)),
    *(("mimo", "vllm", (k,)) for k in (1, 4, 2, 3)),
    ("llama", "ours", (1, 2, 3, 4)),
    ("llama", "vllm", (1,)),
    ("qwen", "ours", (1, 4)),
    *(("qwen", "vllm", (k,)) for k in (1, 4)),
]
"""Of each: a process. The first k of vLLM compiles what the others find in its cache."""


def sizes_of(shape, args):
    tiny = TINY | (TINY_LINEAR if shape == "qwen" else {})
    return SHAPES[shape] | (tiny if args.tiny else {})


def lengths(args):
    """Return tokens of a prompt, and new ones of the short and of the long call."""
    return (16, 6, 22) if args.tiny else (512, 64, 320)


def prompts_of(sizes, batch, length):
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(1, sizes["vocab_size"], (batch, length), generator=generator).tolist()


def measured(decode, args, sizes, batch):
    """Return the trials of one batch; `decode(prompts, n)` returns seconds and steps of a row."""
    prompt, short, long = lengths(args)
    asked, trials = prompts_of(sizes, batch, prompt), []
    for trial in range(-1, args.trials):  # the first warms up
        (short_s, short_steps), (long_s, long_steps) = decode(asked, short), decode(asked, long)
        one = {"short_s": short_s, "long_s": long_s, "steps": long_steps - short_steps}
        if trial >= 0:
            trials.append(one)
    seconds = [one["long_s"] - one["short_s"] for one in trials]
    steps = [one["steps"] for one in trials]
    return {
        "batch": batch,
        "step_ms": statistics.median(s / n for s, n in zip(seconds, steps, strict=True)) * 1e3,
        "tokens_per_s": batch * (long - short) / statistics.median(seconds),
        "tokens_per_forward": (long - short) / statistics.median(steps),
        "trials": trials,
    }


# Our engine


def our_model(shape, sizes, device, dtype):
    """Return a model with random weights, on its device."""
    from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3_5TextConfig

    from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
    from mtp_harness.models.families import FAMILIES
    from mtp_harness.models.sequential import Modules, SequentialModel, modules_config

    from .random_weights import made

    def make():
        if shape == "llama":
            return MTPLlamaForCausalLM(MTPLlamaConfig(**sizes, n_future_tokens=4))
        config = (Qwen3_5TextConfig if shape == "qwen" else Qwen2Config)(**sizes)
        main = AutoModelForCausalLM.from_config(config, dtype=dtype)
        modules = Modules(modules_config(config, 1), main.model, config.num_hidden_layers)
        family = FAMILIES["qwen3_5_text" if shape == "qwen" else "mimo"]
        return SequentialModel(main, modules, family.as_engines_do(), 4)

    return made(make, device, dtype)


def step_alone(model, counted, k, batch, args, rates, with_kernels):
    """Return one replayed step in the middle of the timed answers: milliseconds, roofline, kernels.

    Nothing without a GPU.
    """
    from mtp_harness.decode.sampling import Sampling

    from .one_step import captured, kernels
    from .roofline import floor_ms, work_of_step

    if not rates:
        return {}
    prompt, short, long = lengths(args)
    length = prompt + (short + long) // 2
    run = captured(model, k, batch, Sampling(), length)
    run()
    found = {"replayed_ms": statistics.median(run() for _ in range(5))}
    found["roofline_ms"] = floor_ms(work_of_step(counted, k, batch, length), **rates)
    return found | ({"kernels": kernels(run)} if with_kernels else {})


def ours(shape, ks, args):
    from mtp_harness.decode.engine import Engine, Request
    from mtp_harness.models import provenance

    from .one_step import measured_rates

    sizes, device = sizes_of(shape, args), "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, args.dtype)
    model, counted = (our_model(shape, sizes, each, dtype) for each in (device, "meta"))
    rates, rows = measured_rates() if device == "cuda" else {}, []
    for k in ks:
        for batch in args.batches:
            engine = Engine(model, k, [], lambda tokens: "x" * len(tokens), slots=batch)

            def decode(prompts, count, engine=engine):
                began = time.perf_counter()
                answers = engine.generate([Request(prompt, count) for prompt in prompts])
                seconds = time.perf_counter() - began
                return seconds, statistics.mean(one.record.n_steps for one in answers)

            row = {"k": k, "batch": batch}
            if not args.alone:
                row |= measured(decode, args, sizes, batch)
            alone = step_alone(model, counted, k, batch, args, rates, k in (1, ks[-1]))
            rows.append(row | alone)
    return {"rows": rows, "rates": rates, **provenance.environment(model.device)}


# vLLM


def vllm_config(shape, sizes):
    """Return the configuration that vLLM reads."""
    if shape == "qwen":  # vLLM has these layers in a model that also sees
        third, rest = divmod(sizes["head_dim"] // 8, 3)
        rope = {
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": [third + rest, third, third],
            "mrope_interleaved": True,
        }
        own = {"model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1, "rope_parameters": rope}
        own["mamba_ssm_dtype"] = "float32"  # of states, as published; else half as many bytes
        return {
            "model_type": "qwen3_5",
            "architectures": ["Qwen3_5ForConditionalGeneration"],
            "mtp_num_hidden_layers": 1,
            "text_config": sizes | own,
            "vision_config": {"depth": 1, "out_hidden_size": sizes["hidden_size"]},
        }
    if shape == "mimo":
        own = {"model_type": "qwen2", "architectures": ["MiMoForCausalLM"]}
        return sizes | own | {"num_nextn_predict_layers": 1, "rms_norm_eps": 1e-6}
    own = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    return sizes | own | {"num_hidden_layers": sizes["num_hidden_layers"] - 3}


def n_drafts(llm):
    """Return how often rows had drafts so far."""
    return sum(one.value for one in llm.get_metrics() if one.name == "vllm:spec_decode_num_drafts")


TOGETHER = {"compilation_config": {"pass_config": {"fuse_allreduce_rms": False}}}
"""On several GPUs; FlashInfer's fused kernel would first be compiled for more than four minutes."""
WITHOUT_SIGHT = {"language_model_only": True, "gdn_prefill_backend": "triton"}
"""Of Qwen3.5 in vLLM; FlashInfer's kernel for prompts would have to be compiled."""


def vllm(shape, ks, args):
    from vllm import LLM, SamplingParams, TokensPrompt, __version__

    (k,), sizes = ks, sizes_of(shape, args)
    drafting = {"method": "mtp", "num_speculative_tokens": k - 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(vllm_config(shape, sizes) | {"dtype": args.dtype}))
        llm = LLM(
            folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype=args.dtype,
            max_model_len=sum(lengths(args)),
            max_num_seqs=max(args.batches),
            enable_prefix_caching=False,
            disable_log_stats=False,
            tensor_parallel_size=args.gpus,
            **({"enforce_eager": True} if args.tiny else {}),
            **(TOGETHER if args.gpus > 1 else {}),
            **(WITHOUT_SIGHT if shape == "qwen" else {}),
            **({"speculative_config": drafting} if k > 1 else {}),
        )

    def decode(prompts, count):
        params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
        fed, before = [TokensPrompt(prompt_token_ids=one) for one in prompts], n_drafts(llm)
        began = time.perf_counter()
        llm.generate(fed, params, use_tqdm=False)
        seconds = time.perf_counter() - began
        steps = (n_drafts(llm) - before) / len(prompts) if k > 1 else count - 1
        return seconds, steps

    rows = [{"k": k, **measured(decode, args, sizes, batch)} for batch in args.batches]
    return {"rows": rows, "vllm": __version__, "gpus": args.gpus}


# One run


def part(shape, engine, ks, args, deadline):
    """Return what a process of its own measures, or why it does not."""
    about = {"shape": shape, "engine": engine, "ks": ks}
    if (left := deadline - time.perf_counter()) < 1:
        return about | {"failed": "not reached in time"}
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        asked = json.dumps({**about, **vars(args), "out": out.name}, default=str)
        command = [sys.executable, "-m", "tests.benchmarks.bench_engines_gpu", "--part", asked]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return about | {"failed": f"not ready after {left:.0f} s"}
        if done.returncode:
            reason = done.stderr.strip()[-1500:] or f"ended with {done.returncode}"
            return about | {"failed": reason}
        return about | json.loads(Path(out.name).read_text())


def show(one):
    if "failed" in one:
        reason = one["failed"].splitlines()[-1]
        sys.stdout.write(f"{one['shape']:<7}{one['engine']:<7}{one['ks']}: {reason}\n")
    for row in one.get("rows", ()):
        sys.stdout.write(f"{one['shape']:<7}{one['engine']:<6}{row['k']:>3}{row['batch']:>6}")
        step_ms = row.get("step_ms", row.get("replayed_ms"))
        if "step_ms" in row:
            sys.stdout.write(
                f"{step_ms:>12.2f}{row['tokens_per_s']:>11.1f}{row['tokens_per_forward']:>12.2f}"
            )
        elif step_ms:
            sys.stdout.write(f"{step_ms:>12.2f}{'':>23}")
        if "roofline_ms" in row:
            host = 1 - row["replayed_ms"] / step_ms
            sys.stdout.write(f"{row['roofline_ms'] / step_ms:>17.2f}{host:>8.1%}")
        sys.stdout.write("\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--gpus", type=int, default=1, help="a model on several; vLLM alone")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="our replayed steps, nothing else")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seconds", type=float, default=520, help="for all of it")
    parser.add_argument("--tiny", action="store_true", help="small shapes, a few tokens")
    parser.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        asked = argparse.Namespace(**args.part)
        measure = {"ours": ours, "vllm": vllm}[asked.engine]
        found = measure(asked.shape, tuple(asked.ks), asked)
        Path(asked.out).write_text(json.dumps(found))
        return
    sys.stdout.write(
        "shape  engine  k  rows   ms a step   tokens/s   per forward   of the roofline   host\n"
    )
    deadline, parts = time.perf_counter() + args.seconds, []
    for shape, engine, ks in PARTS:
        left_out = engine == "ours" if args.gpus > 1 else args.alone and engine != "ours"
        if shape not in args.shapes or left_out:
            continue
        parts.append(part(shape, engine, ks, args, deadline))
        show(parts[-1])
        report = {"arguments": {k: str(v) for k, v in vars(args).items()}, "parts": parts}
        args.out.write_text(json.dumps(report | {"shapes": SHAPES}, indent=1) + "\n")


if __name__ == "__main__":
    main()
