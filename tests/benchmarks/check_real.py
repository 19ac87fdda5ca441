"""Check a real sequential checkpoint: is it read as it was trained, and does it decode losslessly?

    make check-real MODEL=Qwen/Qwen3.5-0.8B          a name on the hub, or a folder

One line a check, `pass` or `fail`, and 1 at the end where one failed. Not for CI: it needs the
checkpoint. Published acceptance of first drafts, measured by others in engines (greedy): Qwen3.5-4B
.98 on code; Qwen3.8-27B .91 on code, .61 factual, .49 prose; Qwen3-Next-80B .87 on GSM8K;
DeepSeek-R1 .81 to .82.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PUBLISHED = "published for first drafts: .98 and .91 on code, .87 on GSM8K, .81 (DeepSeek-R1)"
LEAST = 0.5
"""Agreement of the first draft with head 1 on the built-in code; a module that is read wrongly, or
none that was trained, stays far below."""

VERDICTS = ("identical:", "different by rounding", "ERROR: in")
"""Beginnings of the line in which `verify` says what it found."""

CLI = (sys.executable, "-m", "mtp_harness.cli")


def ran(*words):
    """Run a command of `mtp-harness`; return its status and what it said."""
    done = subprocess.run([*CLI, *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr.strip().splitlines()[-1:]


def check_inspect(model):
    status, out, error = ran("inspect", model, "--probe", "--json")
    if not out.startswith("{"):
        return False, " ".join(error)
    found = json.loads(out)
    verdicts = [f"{one['field']} {one['verdict']}" for one in found.get("controls", [])]
    return status == 0, "; ".join(found["problems"] or verdicts or ["no controls"])


def check_heads(model, new):
    asked = json.dumps({"documents": "built-in"})
    arguments = ("--model_args", f"pretrained={model}", "--metadata", asked, "-o", new)
    status, _, error = ran("lm_eval", "--model", "mtp", "--tasks", "mtp_heads", *arguments)
    if status:
        return False, " ".join(error)
    (path,) = Path(new).rglob("results_*.json")
    found = json.loads(path.read_text())["results"]["mtp_heads"]
    agree = {
        name.removesuffix("_tf_agree_2,none"): value
        for name, value in found.items()
        if name.endswith("_tf_agree_2,none")
    }
    said = ", ".join(f"{name} {value:.2f}" for name, value in agree.items())
    return agree.get("code", 0) >= LEAST, f"first draft agrees with head 1: {said}; {PUBLISHED}"


def check_verify(model):
    sizes = ("--prompts", "4", "--new-tokens", "64", "--batch", "1,4")
    status, out, error = ran("verify", model, *sizes)
    verdict = [line for line in out.splitlines() if line.startswith(VERDICTS)]
    return status == 0, (verdict or error or ["nothing said"])[-1]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name on the hub, or a folder")
    model, failed = parser.parse_args(argv).model, 0
    with tempfile.TemporaryDirectory() as new:
        checks = {
            "inspect --probe": lambda: check_inspect(model),
            "mtp_heads": lambda: check_heads(model, new),
            "verify": lambda: check_verify(model),
        }
        for name, check in checks.items():
            passed, said = check()
            failed += not passed
            sys.stdout.write(f"{'pass' if passed else 'fail'}  {name:16} {said}\n")
            sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
