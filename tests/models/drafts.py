"""What the tests of drafters share: the drafts of every step, and answers compared with vLLM's."""

import json

from mtp_harness.decode import step
from mtp_harness.decode.engine import Engine, Request


def to_text(tokens):
    return "".join(map(chr, tokens))


def seen_at_steps(monkeypatch, n_drafts):
    """Return a list that gets row 0's pending position and drafts at every decoding step."""
    seen, plain = [], step.step

    def spy(batch, *rest):
        pending = int(batch.pending[0])
        seen.append((pending, batch.text[0, pending + 1 : pending + 1 + n_drafts].tolist()))
        return plain(batch, *rest)

    monkeypatch.setattr(step, "step", spy)
    return seen


def decode_as_vllm(model, told, n_drafts, monkeypatch):
    """Check text and drafts of every step; return the tokens and the positions of the steps."""
    seen = seen_at_steps(monkeypatch, n_drafts)
    asked = Request(told["prompt"].tolist(), len(told["output"]))
    [answer] = Engine(model, 1 + n_drafts, [], to_text, slots=1).generate([asked])
    assert answer.tokens == told["output"].tolist()
    pending, drafts = zip(*seen, strict=True)
    assert len(drafts) > 10 and list(drafts) == told["drafts"].tolist()[: len(drafts)]
    return answer.tokens, list(pending)


def accept_as_vllm(model, runs, n_drafts):
    """Check texts and accepted drafts against a file of vLLM's runs."""
    runs = json.loads(runs.read_text())
    asked = [Request(run["prompt"], len(run["tokens"]), key=i) for i, run in enumerate(runs)]
    answers = Engine(model, 1 + n_drafts, [], to_text, slots=4).generate(asked)
    for answer, run in zip(answers, runs, strict=True):
        assert answer.tokens == run["tokens"]
        # The last step is cut by the budget: vLLM counts what is left of it.
        assert list(answer.record.n_verified)[:-1] == run["per_step_accepted"][:-1]
    assert sum(sum(answer.record.n_verified) for answer in answers) > 10
