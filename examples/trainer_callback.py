"""Watch the heads while transformers' Trainer trains them.

    python trainer_callback.py out

Every few steps, `evaluate_heads` scores held-out rows; the callback prints each head's numbers and
keeps them in `history`, from where your tracker can log them. Here the shipped model is trained for
a few more steps on Python's own documentation; replace model and data by yours.
"""

import sys

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from mtp_harness import evaluate_heads
from mtp_harness.data.corpus import prose_corpus
from mtp_harness.models.load import resolve


class WatchHeads(TrainerCallback):
    """Keeps each head's accuracy, loss and agreement every `every` steps."""

    def __init__(self, rows, every):
        self.rows, self.every, self.history = rows, every, []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.is_world_process_zero and state.global_step % self.every == 0:
            found = evaluate_heads(model, self.rows.split(args.per_device_eval_batch_size))
            self.history.append({"step": state.global_step, **found})
            numbers = (f"{name} {value:.3f}" for name, value in found.items())
            sys.stdout.write(f"step {state.global_step}: {', '.join(numbers)}\n")


def rows_of_text(tokenizer, length, count):
    """Return int64 [count, length] of Python's documentation."""
    text = "\n".join(document.text for document in prose_corpus().documents)
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor(tokens[: count * length]).view(count, length)


def train(out, steps=20, length=256, every=5, rows=64):
    folder = resolve("mtp-bytes-n4")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.all_heads_loss = True  # the loss of all heads, not only of the first
    text = rows_of_text(AutoTokenizer.from_pretrained(folder), length, rows)
    held_out, seen = text[: rows // 4], text[rows // 4 :]
    watch = WatchHeads(held_out, every)
    arguments = TrainingArguments(
        out, max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-4, report_to="none",
        save_strategy="no", use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
    )  # fmt: skip
    examples = [{"input_ids": row, "labels": row} for row in seen]
    Trainer(model, arguments, train_dataset=examples, callbacks=[watch]).train()
    return watch.history


if __name__ == "__main__":
    train(sys.argv[1])
