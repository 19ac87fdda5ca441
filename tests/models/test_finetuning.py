"""What people do after training heads: load, train by `labels=` in transformers' own loop, save."""

import math

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from mtp_harness.lm import MTPLM
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM
from mtp_harness.models.byte_tokenizer import byte_tokenizer
from mtp_harness.models.load import load_model
from mtp_harness.training.loss import head_loss

N = 3
SIZES = {
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "n_future_tokens": N,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
TEXT = b"def add(a, b):\n    return a + b\n"


def tiny(**changes):
    torch.manual_seed(0)
    return MTPLlamaForCausalLM(MTPLlamaConfig(**{**SIZES, **changes}))


def batch(rows=2):
    return torch.tensor([list(TEXT[i : i + 16]) for i in range(rows)])


def by_hand(model, tokens, labels):
    """Sum over heads and positions of -log P in float64, over head 1's number of targets."""
    total, count = 0.0, 0
    z = model.trunk(tokens)
    for k in range(1, N + 1):
        scores = model.logits(k, model.head(k, z)).double()
        for row in range(len(tokens)):
            for t in range(tokens.shape[1] - k):
                target = int(labels[row, t + k])
                if target != -100:
                    logits = scores[row, t].tolist()
                    top = max(logits)
                    norm = top + math.log(sum(math.exp(x - top) for x in logits))
                    total, count = total + norm - logits[target], count + (k == 1)
    return total / count


@pytest.mark.parametrize("replicated", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_loss_over_all_heads_is_the_paper_s(replicated, attention):
    model = tiny(all_heads_loss=True, replicated_unembeddings=replicated).double()
    model.set_attn_implementation(attention)
    tokens, labels = batch(), batch()
    labels[0, :5] = -100
    output = model(tokens, labels=labels)
    assert float(output.loss) == pytest.approx(by_hand(model, tokens, labels), rel=1e-5)
    assert torch.allclose(output.logits, model.next_token_logits(tokens))

    whole = model(tokens, labels=tokens).loss
    z, length = model.trunk(tokens), tokens.shape[1]
    ours = [
        head_loss(model, k, z[:, : length - k], tokens[:, k:]) * (length - k) / (length - 1)
        for k in range(1, N + 1)
    ]
    assert float(whole) == pytest.approx(float(sum(ours)), rel=1e-5)
    part = model(tokens, labels=tokens, num_items_in_batch=60).loss
    assert float(part) == pytest.approx(float(whole) * 2 * (length - 1) / 60, rel=1e-5)


def test_labels_reach_head_1_only_unless_asked():
    model, tokens = tiny(), batch()
    loss = model(tokens, labels=tokens).loss
    logits = model.next_token_logits(tokens)[:, :-1]
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, _ in model.named_parameters() if name.startswith("extra")}


@pytest.mark.parametrize("replicated", [True, False])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_every_parameter_gets_a_gradient(replicated, checkpointed):
    model, tokens = tiny(all_heads_loss=True, replicated_unembeddings=replicated), batch()
    model.train()
    if checkpointed:
        model.gradient_checkpointing_enable()
    model(tokens, labels=tokens).loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients.values())
    if checkpointed:
        plain = tiny(all_heads_loss=True, replicated_unembeddings=replicated)
        plain(tokens, labels=tokens).loss.backward()
        for name, p in plain.named_parameters():
            assert torch.allclose(p.grad, gradients[name], atol=1e-6)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side, attention):
    model = tiny(all_heads_loss=True)
    model.set_attn_implementation(attention)
    tokens = batch(1)
    filler = torch.full((1, 4), 7)
    parts = [(filler, 0), (tokens, 1)] if side == "left" else [(tokens, 1), (filler, 0)]
    padded = torch.cat([part for part, _ in parts], 1)
    mask = torch.cat([torch.full_like(part, seen) for part, seen in parts], 1)
    found = model(padded, attention_mask=mask, labels=padded.masked_fill(mask == 0, -100)).loss
    assert float(found) == pytest.approx(float(model(tokens, labels=tokens).loss), rel=1e-5)


@pytest.mark.parametrize(("all_heads", "fails"), [(True, False), (False, True)])
def test_several_processes_train_without_unused_parameters(tmp_path, all_heads, fails):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        model, tokens = DistributedDataParallel(tiny(all_heads_loss=all_heads)), batch()
        model(tokens, labels=tokens).loss.backward()
        if fails:  # what the argument is for
            with pytest.raises(RuntimeError, match="were not used in producing loss"):
                model(tokens, labels=tokens)
        else:
            model(tokens, labels=tokens).loss.backward()
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("trained", ["everything", "trunk", "heads"])
def test_transformers_trainer_trains_and_saves_what_loads_again(tmp_path, trained):
    tiny().save_pretrained(tmp_path / "base")
    byte_tokenizer(256).save_pretrained(tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", all_heads_loss=True)
    for name, parameter in model.named_parameters():
        of_head = name.startswith("extra_heads") or f"layers.{len(model.model.layers) - 1}." in name
        parameter.requires_grad = trained == "everything" or (trained == "heads") == of_head
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    examples = [{"input_ids": row, "labels": row} for row in batch(8)]
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        max_steps=20,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    before = float(model(batch(8), labels=batch(8)).loss.detach())
    Trainer(model=model, args=arguments, train_dataset=examples).train()
    after = float(model(batch(8), labels=batch(8)).loss.detach())
    assert after < before - 0.5

    model.save_pretrained(tmp_path / "tuned")
    byte_tokenizer(256).save_pretrained(tmp_path / "tuned")
    loaded = load_model(str(tmp_path / "tuned"))
    old, new = base.state_dict(), loaded.state_dict()
    assert new.keys() == old.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(new[name], tensor)
        if name in frozen:
            assert torch.equal(new[name], old[name])
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert any(n.startswith("extra_heads") for n in changed) == (trained != "trunk")
    assert any(".layers.0." in n for n in changed) == (trained != "heads")
    assert MTPLM(pretrained=str(tmp_path / "tuned"), device="cpu").decoder().k == N
