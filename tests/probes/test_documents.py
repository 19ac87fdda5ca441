"""Probes over documents of one's own, in whole runs: conversations against plain loops."""

import json
import math
import re

import pytest
import torch

from mtp_harness.errors import UserError
from mtp_harness.probes import speculative
from mtp_harness.probes.encoding import Encoded
from mtp_harness.probes.head_logprobs import TextReading
from mtp_harness.probes.teacher_forced import Reading

from . import runs

CHAT = (
    "{% for m in messages %}[{{ m.role[0] }}]"
    "{% if m.hint and loop.last %}({{ m.hint }}){% endif %}{{ m.content }}{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)
"""Shows an answer's hint only while it is the last message."""

LONG = "(a) = b\n" * 4
A, B, C = "ab = (a)\nab", "b\n(ab) = 1", "a = 1\n"
DOCUMENTS = [
    {"category": "short", "prompt": [["user", "ab"]], "answer": A},
    {
        "category": "short",
        "prompt": [["user", "(b)"], ["assistant", B], ["user", "a"]],
        "answer": C,
    },
    {"category": "long", "prompt": [["user", LONG]], "answer": A + B},
]
END = "\0"
READINGS = {  # by category: documents, each of readings, each of pieces; answers stand second
    "short": [
        [[(f"[u]ab{END}[a]", A + END)]],
        [[(f"[u](b){END}[a]", B + END), (f"[u]a{END}[a]", C + END)]],
    ],
    "long": [[[(f"[u]{LONG}{END}[a]", A + B + END)]]],
}
HINTED = {
    "short": [
        [[(f"[u]ab{END}[a]", f"(1){A}{END}")]],
        [
            [(f"[u](b){END}[a]", f"(1){B}{END}")],
            [(f"[u](b){END}[a]{B}{END}[u]a{END}[a]", f"(1){C}{END}")],
        ],
    ],
    "long": [[[(f"[u]{LONG}{END}[a]", f"(1){A + B}{END}")]]],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


def chatting(model, folder, template=CHAT):
    lm = runs.harness_model(model, folder)
    lm.tokenizer.chat_template = template
    return lm


def write(tmp_path, *rows):
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def conversations(tmp_path, **hint):
    rows = []
    for row in DOCUMENTS:
        said = [*row["prompt"], ["assistant", row["answer"]]]
        messages = [
            {"role": role, "content": text, **(hint if role == "assistant" else {})}
            for role, text in said
        ]
        rows.append({"category": row["category"], "messages": messages})
    return write(tmp_path, *rows)


def tokens_of(pieces):
    """Return a reading's tokens, and begin and end of its answers."""
    tokens, spans = [], []
    for before, answer in pieces:
        tokens += before.encode()
        spans.append((len(tokens), len(tokens) + len(answer.encode())))
        tokens += answer.encode()
    return tokens, spans


def expected(model, documents, window):
    """Return the numbers of `mtp_heads` and `mtp_perplexity` (stride = window), by plain loops."""
    n, sums, states, n_cut, kept, steps = model.n_future_tokens, {}, 0, 0, 0, 0
    nats = [0.0] * n
    reach = [0] * n
    scored_bytes = n_tokens = 0
    for pieces in (pieces for readings in documents for pieces in readings):
        tokens, spans = tokens_of(pieces)
        n_states = len(tokens) - 1

        def p(state, offset, tokens=tokens, n_states=n_states):
            start = runs.start_of(state, n_states, window, window)
            return start, runs.softmax(runs.plain_logits(model, tokens, start, state, offset))

        answers = {place for begin, end in spans for place in range(begin, end)}
        scored_bytes += len(answers) - len(spans)  # what ends an answer is not text
        n_tokens += len(answers)
        n_cut += sum(p(place - 1, 1)[0] > 0 for place in answers)
        for t in range(len(tokens) - 1):
            for i in range(1, n + 1):
                if t + i in answers:
                    nats[i - 1] -= math.log(p(t, i)[1][tokens[t + i]])
                    reach[i - 1] += 1
            if all(t + i in answers for i in range(1, n + 1)):
                states += 1
                for i in range(1, n + 1):
                    q = p(t, i)[1]
                    add = {"accuracy": runs.best(q) == tokens[t + i]}
                    add["cross_entropy"] = -math.log(q[tokens[t + i]])
                    add["tf_agree"] = runs.best(q) == runs.best(p(t + i - 1, 1)[1])
                    for metric, value in add.items():
                        sums[metric, i] = sums.get((metric, i), 0) + value
        for begin, end in spans:
            at = begin  # the prefill has emitted it
            while at < end - 1:
                taken = 0
                while (
                    taken + 2 <= n
                    and at + 1 + taken < end
                    and runs.best(p(at - 1, taken + 2)[1]) == tokens[at + 1 + taken]
                ):
                    taken += 1
                emitted = min(taken + 1, end - 1 - at)
                at, kept, steps = at + emitted, kept + emitted, steps + 1
    heads = {key: value / states for key, value in sums.items() if key != ("tf_agree", 1)}
    heads["text_walk_tokens_per_forward", None] = kept / steps
    for i in range(1, n + 1):
        rate = sums["cross_entropy", i] / states / math.log(2)
        heads["bits_per_byte", i] = rate * n_tokens / scored_bytes
    marginal = {("cross_entropy", i + 1): nats[i] / reach[i] for i in range(n)}
    marginal["token_perplexity", 1] = math.exp(nats[0] / n_tokens)
    marginal["byte_perplexity", 1] = math.exp(nats[0] / scored_bytes)
    return heads, marginal, n_cut, scored_bytes


def of_category(results, task, category):
    values = runs.table(results, task, "by_offset")
    return {(m, offset): value for (name, offset, m), value in values.items() if name == category}


@pytest.mark.parametrize("name", ["parallel", "sequential"])
@pytest.mark.parametrize(
    ("window", "hint", "readings"), [(64, {}, READINGS), (16, {}, READINGS), (64, 1, HINTED)]
)
def test_heads_are_scored_over_answers_alone(
    folder, tmp_path, caplog, name, window, hint, readings
):
    model = runs.tiny(4) if name == "parallel" else runs.sequential_model()
    lm = chatting(model, folder)
    place = conversations(tmp_path, **({"hint": hint} if hint else {}))
    results = runs.run(lm, "mtp_heads", documents=place, window=window)
    slides = runs.run(lm, "mtp_perplexity", documents=place, window=window, stride=window)
    assert results["results"]["mtp_heads"]["n_documents,none"] == len(DOCUMENTS)
    for category, documents in readings.items():
        heads, marginal, n_cut, n_bytes = expected(model, documents, window)
        found = of_category(results, "mtp_heads", category)
        assert {key: found[key] for key in heads} == pytest.approx(heads, rel=1e-4)
        assert any(value for (metric, _), value in heads.items() if metric == "accuracy")
        flat = results["results"]["mtp_heads"][f"{category}_accuracy_2,none"]
        assert flat == pytest.approx(heads["accuracy", 2])
        found = of_category(slides, "mtp_perplexity", category)
        assert {key: found[key] for key in marginal} == pytest.approx(marginal, rel=1e-4)
        for task, run in (("mtp_heads", results), ("mtp_perplexity", slides)):
            told = run["config"]["mtp"]["documents"][task][category]
            assert (told["n_cut_tokens"], told["bytes"]) == (n_cut, n_bytes)
            assert told["encoded"] == {"chat template, prefix difference": len(documents)}
            assert (told["n_cut_documents"] > 0) == (n_cut > 0)
    if window == 16:
        assert told["n_cut_tokens"] > 0
    cut = "mtp_heads: .* tokens of 3 documents are predicted without the document's beginning"
    assert bool(re.search(cut, caplog.text)) == (window == 16)


def test_positions_are_counted_and_classes_are_absent(folder, tmp_path):
    lm = chatting(runs.tiny(2), folder)
    results = runs.run(lm, "mtp_positions", documents=conversations(tmp_path))
    for category, documents in READINGS.items():
        states = [
            t
            for (pieces,) in documents
            for begin, end in tokens_of(pieces)[1]
            for t in range(begin - 1, end - 2)
        ]
        counted = runs.counts(results, "mtp_positions", "by_position")
        for position in range(64):
            found = counted.get((category, 1, position, "accuracy"), 0)
            assert found == states.count(position)
    assert results["config"]["mtp"]["tables"]["mtp_positions"]["by_class"]["rows"] == []
    flat = results["results"]["mtp_positions"]
    assert {name for name in flat if name.startswith("long") and "stderr" not in name} == {
        f"long_position_{where}_accuracy_{i},none" for where in ("0_63", "64_on") for i in (1, 2)
    }


def test_without_a_template_text_stands_behind_the_prefix_token(folder, tmp_path):
    model = runs.tiny(3)
    place = write(tmp_path, {"prompt": "ab = ", "completion": A}, {"text": B})
    results = runs.run(runs.harness_model(model, folder), "mtp_heads", documents=place)
    heads, *_ = expected(model, [[[("\0ab = ", A)]], [[("\0", B)]]], 64)
    found = of_category(results, "mtp_heads", "chat")
    for key in (("accuracy", 1), ("cross_entropy", 3), ("text_walk_tokens_per_forward", None)):
        assert found[key] == pytest.approx(heads[key], rel=1e-4)


def test_reasoning_that_a_template_leaves_out_is_counted(folder, tmp_path):
    lm = chatting(runs.tiny(2), folder)
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": A}]
    lost = [said[0], {**said[1], "reasoning_content": "hm"}]
    results = runs.run(
        lm, "mtp_heads", documents=write(tmp_path, {"messages": said}, {"messages": lost})
    )
    assert results["config"]["mtp"]["documents"]["mtp_heads"]["chat"]["n_reasoning_lost"] == 1


def test_drafting_probes_are_asked_for_the_last_answer(folder, tmp_path, monkeypatch):
    asked = []
    decode = speculative.decode_with_all

    def recorded(lm, requests, bar):
        asked.extend(requests)
        return decode(lm, requests, bar)

    monkeypatch.setattr(speculative, "decode_with_all", recorded)
    place = write(
        tmp_path,
        {"category": "code", "prompt": [{"role": "user", "content": "ab"}]},
        {"category": "code", "turns": ["(b)", "a"]},
        {"category": "plain", "prompt": "ab = "},
        {
            "category": "plain",
            "messages": [{"role": r, "content": "a"} for r in ("user", "assistant")],
        },
    )
    lm = chatting(runs.tiny(2), folder)
    results = runs.run(lm, "mtp_speculative", documents=place, new_tokens=8)
    prompts = [bytes(request.prompt).decode() for request in asked]
    assert prompts == ["[u]ab\0[a]", "[u](b)\0[a]", "\0ab = ", "[u]a\0[a]"]
    assert not any(request.until for request in asked), "a conversation has no stop strings"
    told = results["config"]["mtp"]["documents"]["mtp_speculative"]
    assert (told["code"]["bytes"], told["code"]["n_truncated_prompts"]) == (17, 0)
    assert told["code"]["source"].endswith("(of 4: 1 lose later turns)")
    assert {
        row[0] for row in results["config"]["mtp"]["tables"]["mtp_speculative"]["by_k"]["rows"]
    } == {*("code", "plain")}


def test_prompts_that_do_not_fit_are_cut_and_counted(folder, tmp_path):
    lm = chatting(runs.tiny(2), folder)
    place = write(tmp_path, {"turns": ["a" * 70]}, {"turns": ["a"]})
    results = runs.run(lm, "mtp_speculative", documents=place, new_tokens=8)
    assert (
        results["config"]["mtp"]["documents"]["mtp_speculative"]["chat"]["n_truncated_prompts"] == 1
    )


@pytest.mark.parametrize(
    ("task", "row", "template", "said"),
    [
        ("mtp_heads", {"turns": ["a"]}, CHAT, "mtp_heads: .*have no answer, expected at least one"),
        ("mtp_speculative", {"text": "a"}, CHAT, "mtp_speculative: .*have no prompt, expected"),
        (
            "mtp_heads",
            {"question": "a", "answer": "b"},
            "{{ raise_exception('no') }}",
            r"mtp_heads, document 0: document 1: the chat template refuses .* .no.: .*out\.",
        ),
        (
            "mtp_speculative",
            {"question": "a", "answer": "b"},
            "{{ raise_exception('no') }}",
            r"mtp_speculative, document 0: document 1: the chat template refuses its messages",
        ),
        (
            "mtp_heads",
            {"messages": [{"role": "assistant", "content": ""}, {"role": "user", "content": "a"}]},
            None,
            "its text has no token, expected at least one",
        ),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, tmp_path, task, row, template, said):
    lm = chatting(runs.tiny(2), folder, template)
    with pytest.raises(UserError, match=said) as caught:
        runs.run(lm, task, documents=write(tmp_path, row))
    assert "\n" not in str(caught.value)


def test_the_built_in_set_by_category():
    from mtp_harness.lm import MTPLM

    lm = MTPLM(pretrained="mtp-bytes-n4", device="cpu", batch_size=4)
    lm.tokenizer.chat_template = None
    results = runs.run(lm, "mtp_heads", documents="built-in", quick=True)
    told = results["config"]["mtp"]["documents"]["mtp_heads"]
    assert set(told) == {"code", "json", "dialogue", "summary", "arithmetic", "story"}
    flat = results["results"]["mtp_heads"]
    # Trained on code and not on stories.
    assert flat["code_accuracy_1,none"] > 0.75 > flat["story_accuracy_1,none"] > 0.3
    assert torch.get_num_threads() == 1 and told["code"]["n_documents"] == 4


def test_no_head_is_scored_on_another_part():
    r"""By hand: parts a B C and d E F, of which capitals are scored, and heads 1 to 3.

    state            a      B      C      d      E
    scored targets   B C    C      none   E F    F       d is no target; E and F are another part's
    """
    parts = torch.tensor([0, 0, 0, 1, 1, 1])
    scored = torch.tensor([False, True, True, False, True, True])
    reading = TextReading(
        Encoded(torch.arange(6), scored, parts, ""),
        Reading.empty(5, 3),
        position=torch.tensor([0, 1, 2, 0, 1]),
    )
    wanted = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert reading.has_target().int().tolist() == wanted
    assert reading.reached().tolist() == []  # three tokens stand before none of them
    reading.heads = Reading.empty(5, 2)
    assert reading.reached().tolist() == [2, 5]
    assert list(reading.encoded.runs()) == [(1, 3), (4, 6)]
