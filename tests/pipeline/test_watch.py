"""`run --watch`: a small loop drops checkpoints; the cells are written without a model."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from mtp_harness.cli import main
from mtp_harness.commands import run as command
from mtp_harness.files import user_path
from mtp_harness.models.load import resolve
from mtp_harness.pipeline import run
from mtp_harness.pipeline import watch as watching
from mtp_harness.pipeline.run import Outcome
from mtp_harness.pipeline.suite import read_suite
from mtp_harness.pipeline.watch import LOOK_S, QUIET_S, watch

from ..figures.runs import heads_at, table, write_run

SUITE = """
models:
  - {label: mine, model_args: {pretrained: CHECKPOINT}}
tasks: [{task: mtp_heads, metadata: {quick: true}}]
output: out
"""
LOOKS = int(QUIET_S / LOOK_S)
"""Looks for which a checkpoint must stay as it is."""


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with a suite, in which cells write accuracies that say their step."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    monkeypatch.setattr(run, "run_cell", finish)
    return tmp_path


def finish(cell, process):
    step, tokens = (cell.model_args.get(name) for name in ("train_step", "train_tokens"))
    cell.begin()
    loss = table("data_set offset", [["humaneval", 1, "bits_per_byte", 3 - step / 10_000]])
    of_task = {"mtp_heads": heads_at(step, 4), "mtp_solutions": loss}
    path = write_run(
        cell.folder / "model",
        cell.label,
        4,
        tables={cell.task: {"by_offset": of_task[cell.task]}},
        samples={cell.task: [{}]},
        train_step=step,
        train_tokens=tokens,
    )
    content = json.loads(path.read_text()) | {"higher_is_better": {}}
    path.write_text(json.dumps(content))
    return Outcome(cell, cell.finished())


def drop(name, trainer=False, tokens=0):
    """Write a whole checkpoint, of Trainer or without anything but model and tokenizer."""
    folder = user_path(name)
    folder.mkdir(parents=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{resolve('mtp-bytes-n4')}/{file}", folder)
    save_file({"weight": torch.zeros(1000)}, folder / "model.safetensors")
    if trainer:
        torch.save({}, folder / "training_args.bin")
        step = int(folder.name.rpartition("-")[2])
        state = {"global_step": step, "num_input_tokens_seen": tokens}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


class Loop:
    """Time that goes on by `pause`, between whose looks something happens."""

    def __init__(self, *events):
        self.now, self.events, self.said, self.ran = 0.0, list(events), [], []

    def pause(self, seconds):
        self.now += seconds
        if not self.events:
            raise KeyboardInterrupt
        self.events.pop(0)()

    def run(self, pattern="runs/*/checkpoint-*"):
        suite = read_suite(user_path("suite.yaml"))
        with pytest.raises(KeyboardInterrupt):
            watch(
                suite,
                pattern,
                suite.output,
                self.said.append,
                lambda outcomes: self.ran.extend(outcomes),
                self.pause,
                lambda: self.now,
            )
        return [(one.cell.label, one.cell.model_args["train_step"]) for one in self.ran]


def nothing():
    pass


def test_checkpoints_are_evaluated_as_they_appear_the_first_steps_first(place):
    drop("runs/a/checkpoint-100")
    drop("runs/a/checkpoint-20")
    loop = Loop(*[nothing] * LOOKS, lambda: drop("runs/b two/checkpoint-5"), *[nothing] * LOOKS)
    assert loop.run() == [("mine/a", 20), ("mine/a", 100), ("mine/b two", 5)]
    folders = [one.cell.folder.as_posix() for one in loop.ran]
    assert folders[1:] == [
        "out/mine/a/checkpoint-100/mtp_heads",
        "out/mine/b two/checkpoint-5/mtp_heads",
    ]
    pretrained = loop.ran[0].cell.model_args["pretrained"]
    assert pretrained == str(place / "runs/a/checkpoint-20")  # from whatever folder it goes on


def test_a_checkpoint_that_still_changes_is_not_read():
    folder = drop("runs/a/checkpoint-1")

    def grow():
        with (folder / "optimizer.log").open("a") as log:
            log.write("more")

    assert Loop(*[grow] * (3 * LOOKS)).run() == []
    assert Loop(*[nothing] * (LOOKS - 1)).run() == []  # a look too early
    assert Loop(*[nothing] * LOOKS).run() == [("mine/a", 1)]


def cut(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def without_state(folder):
    (folder / "trainer_state.json").unlink()


def half_a_state(folder):
    (folder / "trainer_state.json").write_text('{"global_st')


def without_index(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")


def without_a_part(folder):
    without_index(folder)
    names = {"weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def half_an_optimizer(folder):
    (folder / "optimizer.pt").write_bytes((folder / "training_args.bin").read_bytes()[:-30])


def without_config(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "model.safetensors is truncated"),
        (without_state, "has no trainer_state.json, which Trainer writes last"),
        (half_a_state, "trainer_state.json is not valid JSON"),
        (without_index, "has no model.safetensors.index.json of its parts"),
        (without_a_part, "has no model-00002-of-00002.safetensors"),
        (half_an_optimizer, "optimizer.pt is cut off"),
        (without_config, "holds no checkpoint"),
    ],
)
def test_a_checkpoint_that_is_not_whole_waits_and_why_is_said_once(damage, reason):
    whole = drop("runs/whole/checkpoint-1", trainer=True)
    folder = drop("runs/a/checkpoint-1", trainer=True)
    damage(folder)

    def end():
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        shutil.rmtree(whole)

    loop = Loop(*[nothing] * (3 * LOOKS), end, *[nothing] * LOOKS)
    assert loop.run() == [("mine/whole", 1), ("mine/a", 1)]
    [waits] = [line for line in loop.said if "waits" in line]
    assert reason in waits and "\n" not in waits


def test_it_goes_on_after_a_restart_also_without_the_checkpoints_that_are_gone(place, capsys):
    def checkpoint(step):
        return drop(f"runs/a/checkpoint-{step}", trainer=True, tokens=1000 * step)

    (place / "suite.yaml").write_text(SUITE.replace("tasks: [", "tasks: [mtp_solutions, "))
    first, _ = checkpoint(4000), checkpoint(8000)
    assert len(Loop(*[nothing] * LOOKS).run()) == 4
    shutil.rmtree(first)  # Trainer's save_total_limit
    loop = Loop(lambda: checkpoint(12000), *[nothing] * 2 * LOOKS)
    assert loop.run() == [("mine/a", 12000)] * 2
    assert "1 checkpoint finished before" in loop.said
    command._curves((), place / "out")
    curve = pd.read_csv(place / "out/figures/fig_heads_by_step.csv")
    by_step = curve[curve["offset"] == 2].set_index("train_step")["value"]
    assert by_step.to_dict() == pytest.approx({4000: 0.38, 8000: 0.46, 12000: 0.54})
    last = pd.read_csv(place / "out/figures/fig_heads.csv")
    assert set(last["label"]) == {"mine/a, step 12000"} and len(last) == 4
    assert (place / "out/figures/fig_heads_by_step.png").is_file()
    losses = pd.read_csv(place / "out/figures/fig_sample_efficiency.csv")
    by_tokens = losses.set_index("train_tokens")["value"].to_dict()
    assert by_tokens == pytest.approx({4_000_000: 2.6, 8_000_000: 2.2, 12_000_000: 1.8})


def test_a_cell_that_failed_is_not_tried_again_before_a_restart(monkeypatch):
    drop("runs/a/checkpoint-1")
    monkeypatch.setattr(run, "run_cell", lambda cell, process: Outcome(cell, None, "  it failed"))
    assert len(Loop(*[nothing] * 3 * LOOKS).run()) == 1
    assert len(Loop(*[nothing] * LOOKS).run()) == 1


def test_steps_and_tokens_come_from_who_trained():
    drop("runs/a/checkpoint-7", trainer=True, tokens=4096)
    folder = drop("runs/b/checkpoint-8")
    shutil.copy(f"{resolve('mtp-bytes-n4')}/training.json", folder)
    drop("runs/c/checkpoint-9")
    loop = Loop(*[nothing] * LOOKS)
    loop.run()
    found = {}
    for one in loop.ran:
        args = dict(one.cell.model_args)
        found[args.pop("pretrained").split("/")[-2]] = args
    assert found == {
        "a": {"train_step": 7, "train_tokens": 4096},
        "b": {"train_step": 8600, "train_tokens": 845_414_400, "train_seed": 0},
        "c": {"train_step": 9},
    }


def test_without_a_step_it_waits():
    drop("runs/a/checkpoint-best")
    loop = Loop(*[nothing] * 3 * LOOKS)
    assert loop.run() == []
    assert "its step is not known, expected a number in its name checkpoint-best" in loop.said[-1]


def test_other_models_run_once_and_drafters_are_watched_too(place):
    (place / "suite.yaml").write_text(
        SUITE.replace(
            "tasks:",
            "  - {label: again, model_args: {pretrained: mtp-bytes-n4, train_step: 0}}\n"
            "  - {label: half, model_args: {pretrained: CHECKPOINT, dtype: float16}}\ntasks:",
        )
    )
    drop("one/100/hf")
    loop = Loop(*[nothing] * LOOKS)
    assert loop.run("one/*/hf") == [("again", 0), ("mine", 100), ("half", 100)]
    assert loop.ran[2].cell.folder.as_posix() == "out/half/100/mtp_heads"


@pytest.mark.parametrize(
    ("suite", "words", "said"),
    [
        (SUITE, ["--watch", "runs/a/checkpoint-1"], "names one place, expected a pattern between"),
        (SUITE, ["--watch", "runs [old"], "names one place, expected a pattern between"),
        (SUITE, ["--watch", ""], "names one place, expected a pattern between"),
        (SUITE, ["--watch", "runs/*", "--dry-run"], "--watch with --dry-run, expected one of"),
        (SUITE, ["--watch", "runs/*", "--mlflow", "x"], "--watch with --mlflow, expected one of"),
        (SUITE, [], "model mine has CHECKPOINT in its arguments, which stands for what --watch"),
        (
            SUITE.replace("CHECKPOINT", "mtp-bytes-n4"),
            ["--watch", "runs/*"],
            "has no model for what --watch finds, expected one with CHECKPOINT in its arguments",
        ),
        (
            SUITE.replace("CHECKPOINT", "CHECKPOINT, train_tokens: 5"),
            ["--watch", "runs/*"],
            "model mine: train_tokens=5 would apply to every checkpoint",
        ),
        (SUITE.replace("quick", "qiuck"), ["--watch", "runs/*"], "did you mean quick"),
    ],
)
def test_what_cannot_be_watched_is_said_before_anything_runs(place, capsys, suite, words, said):
    (place / "suite.yaml").write_text(suite)
    assert main(["run", "suite.yaml", *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_ctrl_c_ends_it_in_a_sentence(place, capsys, monkeypatch):
    drop("runs/a/checkpoint-4000")
    drop("runs/a/checkpoint-8000")
    loop = Loop(*[nothing] * LOOKS)

    def short(suite, pattern, output, say, evaluated):
        watch(suite, pattern, output, say, evaluated, loop.pause, lambda: loop.now)

    monkeypatch.setattr(watching, "watch", short)
    assert main(["run", "suite.yaml", "--watch", "runs/*/checkpoint-*"]) == 0
    out = capsys.readouterr().out
    assert "stopped; 0 cells failed; the same command continues" in out
    assert "files in out/figures" in out
    assert (place / "out/figures/fig_heads_by_step.csv").is_file()
