"""A family's row is tried the other way round: right rows pass, wrong ones are named, and modules
that know nothing make no row wrong."""

import json
import random
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mtp_harness.commands.inspect import main as inspect
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.checkpoints.sequential_folder import load_sequential
from mtp_harness.models.controls import FORMS, Control, probe_row
from mtp_harness.models.families import FAMILIES
from mtp_harness.models.head_states import head_states
from mtp_harness.models.plausibility import HeadProbe

from . import family_checkpoints

FAMILY = "mimo"
WORDS = "def return self value in for the error print None import class".split()


def some_text(seed, n_words):
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A random checkpoint with the byte tokenizer."""
    monkeypatch.setitem(family_checkpoints.BASE, "vocab_size", 256)
    monkeypatch.setitem(family_checkpoints.BASE, "num_hidden_layers", 2)
    family_checkpoints.write(tmp_path, FAMILY, dtype=torch.float32)
    byte_tokenizer(512).save_pretrained(tmp_path)
    (tmp_path / "text").write_text(some_text(1, 150))
    return tmp_path


def train(folder, row, n_steps=120):
    """Train trunk and module, read as a row says, and write them in the family's layout."""
    model = load_sequential(folder, heads=3)
    model.family = row
    torch.manual_seed(0)
    for norm in (model.norm, model.modules_.layers[0].post_norm):  # far from 1, as trained ones are
        norm.weight.data *= torch.exp(1.5 * torch.randn_like(norm.weight))
    tokens = torch.tensor(byte_tokenizer(512).encode(some_text(0, 4000)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(n_steps):
        starts = torch.randint(0, len(tokens) - 67, (8,))
        batch = torch.stack([tokens[start : start + 67] for start in starts])
        loss = sum(
            cross_entropy(model.logits(k, states).flatten(0, 1), batch[:, k : 64 + k].flatten())
            for k, states in head_states(model, batch[:, :64], 3, batch[:, 64:])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.base.norm = model.norm  # where transformers has it
    family_checkpoints.save(folder, FAMILY, model.main, model.modules_.layers)


def probed(folder, capsys):
    status = inspect([str(folder), "--probe", str(folder / "text"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == (0 if found["ok"] else 1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [None, *FORMS])
def test_a_trained_module_shows_which_row_is_its_own(folder, capsys, wrong):
    """Trained as another row says, written and loaded as this one."""
    row = FAMILIES[FAMILY]
    train(folder, replace(row, **{wrong: not getattr(row, wrong)}) if wrong else row)
    found = probed(folder, capsys)
    better = [one["field"] for one in found["controls"] if one["verdict"] == "better"]
    if wrong is None:
        assert found["ok"] and [one["verdict"] for one in found["controls"]] == ["worse"] * 3
        return
    assert better == [wrong]
    (problem,) = found["problems"]
    offset, ways = FORMS[wrong]
    assert f"the row {FAMILY} is wrong for this checkpoint: head {offset}" in problem
    trained = ways[not getattr(row, wrong)]
    assert f"control '{trained}'" in problem and f"correct {wrong} of the row" in problem


def test_a_module_that_knows_nothing_makes_no_row_wrong(folder, capsys):
    found = probed(folder, capsys)
    assert [one["verdict"] for one in found["controls"]] == ["unknown"] * 3
    assert found["problems"] and all("trained" in problem for problem in found["problems"])
    inspect([str(folder), "--probe", str(folder / "text")])
    said = capsys.readouterr().out
    assert said.count("inconclusive: the module is trained too little") == 3
    assert "heads out of order" not in said


def test_the_model_is_read_as_before_after_its_controls(folder):
    model = load_sequential(folder)
    tokens = torch.arange(1, 30)[None]
    with torch.no_grad():
        before = [states for _, states in head_states(model, tokens)]
        (control, *_) = probe_row(model, byte_tokenizer(512), (folder / "text").read_text())
        after = [states for _, states in head_states(model, tokens)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert model.family is FAMILIES[FAMILY] and control.row == FAMILY


def test_cross_entropies_are_those_of_rows_written_out(folder):
    """Each control against a model whose weights were changed instead of its row."""
    tokenizer, text = byte_tokenizer(512), (folder / "text").read_text()
    model = load_sequential(folder, heads=3)
    swapped = probe_row(model, tokenizer, text)[1]
    weight = model.modules_.layers[0].eh_proj.weight
    weight.data = torch.cat(weight.data.chunk(2, 1)[::-1], 1)
    (_, control, _) = probe_row(model, tokenizer, text)
    assert control.nats == pytest.approx(swapped.other_nats, abs=1e-5)
    assert control.other_nats == pytest.approx(swapped.nats, abs=1e-5)
    assert abs(control.nats - control.other_nats) > 1e-4  # the modules are random
    model.norm.weight.data.fill_(1)  # then there is nothing to tell apart
    states, _, passed = probe_row(model, tokenizer, text)
    assert states.nats == pytest.approx(states.other_nats, abs=1e-5)
    tokens = torch.tensor(tokenizer.encode(text))[None, :512]
    with torch.no_grad():
        found = dict(head_states(model, tokens, 3))[3][0, : passed.n_states]
        target = tokens[0, 3 : 3 + passed.n_states]
        loss = cross_entropy(model.logits(3, found).double(), target)
    assert passed.nats == pytest.approx(float(loss), abs=1e-5)


def test_too_short_a_text_for_controls_is_said(folder, capsys):
    (folder / "text").write_text("x" * 40)
    found = probed(folder, capsys)
    assert found["controls"] == [] and len(found["probe"]) == 4
    assert "no controls of how the modules are read: the text scores 36 positions" in "".join(
        found["notes"]
    )


def control(nats, other_nats, accuracy=0.5, other_accuracy=0.5, error=0.02):
    about = ("mimo", "reads_normed", 2, "one way", "another")
    return Control(*about, nats, other_nats, error, accuracy, other_accuracy, 0.1, 500)


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (control(2, 2.1), "worse"),  # 5 standard errors
        (control(2, 2.07), "alike"),  # 3.5
        (control(2, 1.9), "better"),
        (control(2, 1.93), "alike"),
        (control(2, 1.9, 0.5, 0.49), "alike"),  # less sure, not more often right
        (control(2, 2.005, error=0.0001), "alike"),  # regular, and nothing
        (control(5, 3, 0.1, 0.11), "unknown"),  # both as the most frequent token
        (control(5, 3, 0.1, 0.3), "better"),
        (control(3, 5, 0.3, 0.1), "worse"),
        (control(5, 6, 0.1, 0.3), "alike"),  # the two measures disagree
    ],
)
def test_verdicts_by_hand(one, verdict):
    assert one.verdict() == verdict
    assert (one.problem() is not None) == (verdict == "better")


@pytest.mark.parametrize(
    ("accuracy", "shifted", "constant", "doubt"),
    [
        (0.5, 0.2, 0.1, None),
        (0.1, 0.4, 0.1, "heads out of order"),
        (0.0, 0.4, 0.1, "heads out of order"),
        (0.1, 0.11, 0.1, "trained too little"),  # as near to any offset: knows none
        (0.05, 0.02, 0.1, "trained too little"),
        (0.0, 0.02, 0.1, "never right"),
        (1.0, 0.2, 0.1, "always right"),
    ],
)
def test_what_knows_little_is_told_from_what_knows_another_offset(
    accuracy, shifted, constant, doubt
):
    found = HeadProbe(2, accuracy, shifted, constant, 500).doubt()
    assert found is None if doubt is None else doubt in found
