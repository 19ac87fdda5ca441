"""`mtp-harness verify` on a few short answers of the shipped model."""

import json

import pytest
import torch
import yaml

from mtp_harness import cli, tasks_dir
from mtp_harness.commands import verify
from mtp_harness.decode.cache import SlotCache
from mtp_harness.decode.compare import Comparison, Difference
from mtp_harness.sandbox import IsolationError

from ..models.byte_families import write_bytes

SMALL = "--prompts 2 --new-tokens 24 --device cpu".split()


def test_the_shipped_model_has_no_difference(tmp_path, capsys):
    out = tmp_path / "new" / "verify.json"
    assert cli.main(["verify", *SMALL, "--batch", "1,2", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "mtp-bytes-n4, n = 4, float32, greedy" in shown
    found = json.loads(out.read_text())
    rows = [(one["batch"], one["draft_heads"], one["ntp_batch"]) for one in found["comparisons"]]
    expected = [(1, 2, 1), (1, 3, 1), (1, 4, 1), (2, 1, 1), (2, 2, 2), (2, 3, 2), (2, 4, 2)]
    assert rows == expected
    for one in found["comparisons"]:
        assert one["answers"] == one["identical"] == 2
        assert 2 <= one["tokens"] <= 48
        assert one["near_ties"] == one["errors"] == 0 and one["differences"] == []
        assert one["score"] == {
            "n_pairs": 2,
            "ntp_passed": 0,
            "passed": 0,
            "wins": 0,
            "losses": 0,
        }
    assert found["prompts"] == ["HumanEval/0", "HumanEval/1"]
    assert found["versions"]["torch"] and found["hardware"]["cpu"] and found["command"]
    n_tokens = sum(one["tokens"] for one in found["comparisons"])
    assert shown.endswith(f"\nidentical: all {n_tokens} tokens are those of NTP\n")
    assert len(shown.splitlines()) < 20 and max(map(len, shown.splitlines())) < 130


def break_cache(monkeypatch, length):
    """Let calls of `length` tokens lose all they write to the cache."""
    at = SlotCache.at

    def broken(self, positions, width):
        lost = torch.full_like(positions, self.trash)
        at(self, lost if positions.shape[1] == length else positions, width)

    monkeypatch.setattr(SlotCache, "at", broken)


def test_an_error_gives_exit_status_1(tmp_path, monkeypatch, capsys):
    break_cache(monkeypatch, 3)
    out = tmp_path / "verify.json"
    arguments = [*SMALL, "--batch", "2", "--draft-heads", "2,3", "-o", str(out)]
    assert verify.main(arguments) == 1
    two, three = json.loads(out.read_text())["comparisons"]
    assert two["errors"] == 0 and two["identical"] == 2
    assert three["errors"] > 0 and three["identical"] < 2
    first = three["differences"][0]
    assert not first["near_tie"] and first["ntp"] != first["other"]
    shown = capsys.readouterr().out
    name = f"HumanEval/{first['prompt']}, token {first['position']}: {first['other']}, NTP"
    assert f"ERROR: batch 2, k = 3, {name} {first['ntp']}; gap " in shown
    n_errors = three["errors"]
    said = f" 0 near ties, which rounding explains, and {n_errors} error"
    assert shown.splitlines()[-1].startswith("ERROR: in ") and said in shown
    assert len(shown.splitlines()) < 24


def test_every_end_that_the_configuration_names_ends_an_answer(tmp_path):
    """A chat model has several (GLM-4.5: three), of which the tokenizer knows one."""
    folder = write_bytes(tmp_path / "m", "mimo", letters=range(97, 103))
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [0, *range(256)]}))
    out = tmp_path / "verify.json"
    assert verify.main([folder, *SMALL, "--batch", "2", "--draft-heads", "2", "-o", str(out)]) == 0
    [found] = json.loads(out.read_text())["comparisons"]
    assert (found["answers"], found["tokens"]) == (2, 2)


def test_near_ties_alone_are_no_error():
    tie = Difference(0, 3, 5, 6, gap=1e-6, logit_difference=1e-6, rounding=1e-6)
    row = verify.Row(Comparison(2, 1, 1, n_answers=2, n_tokens=40, differences=(tie,)), None)
    assert verify._ending([row], ["a", "b"]).splitlines()[-1] == (
        "different by rounding alone: in 40 tokens 1 near tie, which rounding explains, and 0 "
        "errors, which it does not"
    )


def test_where_programs_cannot_be_isolated_only_the_score_is_missing(tmp_path, monkeypatch, capsys):
    def refuse():
        raise IsolationError("no namespaces here")

    monkeypatch.setattr("mtp_harness.sandbox.Grader", refuse)
    out = tmp_path / "verify.json"
    assert verify.main([*SMALL, "--batch", "2", "--draft-heads", "4", "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert "answers are not graded: no namespaces here" in shown.err
    [one] = json.loads(out.read_text())["comparisons"]
    assert one["score"] is None and one["identical"] == 2


def test_a_model_with_one_head_is_compared_across_batch_sizes(capsys):
    arguments = ["mtp-bytes-n1", *SMALL, "--batch", "1,2"]
    assert verify.main(arguments) == 0
    assert "identical: all " in capsys.readouterr().out
    with pytest.raises(ValueError, match="^mtp-bytes-n1 has 1 head, which leaves nothing to "):
        verify.main(["mtp-bytes-n1", *SMALL, "--batch", "1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--draft-heads 5", "draft_heads=5, but this checkpoint has 4 heads; choose 1 to 4"),
        ("--draft-heads 2,0", "--draft-heads 0, but mtp-bytes-n4 has n = 4: choose from 1 to 4"),
        ("--batch 4,0", r"--batch \[4, 0\]: expected at least 1"),
        ("--prompts 0", "--prompts 0: expected at least 1"),
        ("--new-tokens 0", "--new-tokens 0: expected at least 1"),
        ("--new-tokens 4096", "--new-tokens 4096 leaves no room for a prompt in a context of 4096"),
    ],
)
def test_refuses_what_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        verify.main([*arguments.split(), "--device", "cpu"])


def test_stop_strings_are_the_tasks():
    class Loader(yaml.SafeLoader):
        """Reads the task without importing the functions it names."""

    Loader.add_constructor("!function", lambda loader, node: node.value)
    text = (tasks_dir() / "humaneval" / "humaneval_mtp.yaml").read_text()
    task = yaml.load(text, Loader)
    assert tuple(task["generation_kwargs"]["until"]) == verify.UNTIL
