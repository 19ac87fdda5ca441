"""The programs of figures/studies, which import each other by name, and what scripts start."""

import importlib
import os
import subprocess
import sys

import torch

from mtp_harness.commands.train import build, parser

from ..scripts import ROOT

FOLDER = ROOT / "figures" / "studies"
sys.path.append(str(FOLDER))

arithmetic, arithmetic_text, sign_of_figure_3 = map(
    importlib.import_module, ("arithmetic", "arithmetic_text", "sign_of_figure_3")
)


def run(name, *arguments, **environment):
    """Run a script with the Python that runs the tests; return what it did and printed."""
    environment = os.environ | {"PYTHON": sys.executable} | environment
    command = ["sh", FOLDER / name, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


def trainings(name, work, *arguments):
    """Return label, seed and settings of the trainings that a script would start.

    An `xargs` of ours shows what it is given instead of starting it.
    """
    bin_ = work / "bin"
    bin_.mkdir(parents=True, exist_ok=True)
    (bin_ / "xargs").write_text("#!/bin/sh\ncat\n")
    (bin_ / "xargs").chmod(0o755)
    (work / "text.json").touch()  # there is a text
    done = run(name, work, *arguments, PATH=f"{bin_}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stdout.splitlines():
        label, seed, *settings = line.split()
        found.append((label, int(seed), parser().parse_args(["out", "--data", "text", *settings])))
    return found


def parameters(settings):
    """Return how many parameters a model has, without making it."""
    settings.device = "meta"
    with torch.device("meta"):
        return sum(p.numel() for p in build(settings).parameters())
