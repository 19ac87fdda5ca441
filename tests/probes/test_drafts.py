"""mtp_drafts against decoding, forwards without a cache, and loops over decoded steps."""

import functools
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from mtp_harness import _startup, tasks_dir
from mtp_harness.data.token_classes import lexemes
from mtp_harness.decode.acceptance import Rule
from mtp_harness.decode.engine import Engine, Request
from mtp_harness.decode.every_draft import EveryDraft, walk
from mtp_harness.decode.token_lengths import TokenLengths
from mtp_harness.errors import UserError
from mtp_harness.models.load import load_model, load_tokenizer
from mtp_harness.models.text import shown
from mtp_harness.probes.drafts import ENTROPY, SINCE, measure, tried
from mtp_harness.probes.speculative import UNTIL

from . import runs

TOKENS = 40

# Behind each token of 7 1 2 3 4 5 are drafts for the two after it. Wrong ones are 9; only the first
# of those behind 1 is unsure. The last one lies beyond the end, and is no token of the text.
DRAFTS = [[1, 2], [2, 9], [3, 9], [9, 5], [5, 5]]
SURE = [[0.9, 0.8], [0.2, 0.9], [0.9, 0.5], [0.4, 0.9], [0.9, 0.9]]


def by_hand():
    entropy = torch.tensor([0.0, 0.02, 0.5, 2.5, 9.0])
    tokens = torch.tensor([7, 1, 2, 3, 4, 5])
    return EveryDraft(tokens, torch.tensor(DRAFTS), torch.tensor(SURE), entropy)


def test_steps_by_hand():
    # 7: 1 and 2 are right, head 1 writes 3. 3: 9 is wrong, head 1 writes 4. 4: 5 ends the answer.
    assert walk(by_hand(), 3) == [(0, 2, 2), (3, 2, 0), (4, 2, 1)]
    assert walk(by_hand(), 2) == [(0, 1, 1), (2, 1, 1), (4, 1, 1)]
    # Only drafts of .85 and more: 7 drafts 1; 2 drafts 3; 4 drafts 5, and one beyond the end.
    assert walk(by_hand(), 3, 0.85) == [(0, 1, 1), (2, 1, 1), (4, 2, 1)]
    assert walk(by_hand(), 3, 0.95) == [(place, 0, 0) for place in range(5)]
    assert list(tried(by_hand(), walk(by_hand(), 3))) == [
        (0, 1, True, None),
        (1, 2, True, None),
        (0, 4, False, None),
        (0, 5, True, 0),
    ]


def test_sums_by_hand():
    told = measure(by_hand(), [0], "text", TokenLengths(lambda ids: "".join(map(str, ids))))
    assert (told["kept"], told["rejected"], told["n"]) == (5, 1, 3)
    (number,) = [row for row in told["classes"] if row != [[0, 0], [0, 0]]]
    assert number == [[2, 3], [1, 1]]  # all are digits
    # Drafts for 1, 2, 4 and 5, where head 1's entropy was 0, .02, 2.5 and 9 bits.
    assert [sum(head[1] for head in row) for row in told["entropy"]] == [1, 1, 0, 0, 0, 0, 1, 1]
    assert told["since"][0] == [[1, 1], [0, 0]] and sum(map(sum, told["since"][1])) == 0
    # Head 2's five drafts are within the answer, head 3's four: two right, one of them (behind 3,
    # for 5) after a wrong one, so that it is not accepted.
    head_2, head_3 = ([sum(column) for column in zip(*head, strict=True)] for head in told["bins"])
    assert head_2 == pytest.approx([5, 0.9 + 0.2 + 0.9 + 0.4 + 0.9, 5, 4])
    assert head_3 == pytest.approx([4, 0.8 + 0.9 + 0.5 + 0.9, 3, 1])
    assert told["walks"][1][0] == [3, 6] and told["walks"][0][0] == [3, 3]
    pieces = [(1, "7"), (2, "1"), (3, "2"), (1, "3"), (-2, "9"), (-3, "5"), (1, "4"), (2, "5")]
    assert told["pieces"] == pieces


@pytest.fixture(scope="module")
def run():
    _startup.install()
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    metadata = {"quick": True, "new_tokens": TOKENS}
    manager = TaskManager(include_path=tasks_dir(), include_defaults=False, metadata=metadata)
    return simple_evaluate(
        model="mtp",
        model_args={"device": "cpu", "batch_size": 2},
        tasks=["mtp_drafts"],
        task_manager=manager,
        limit=4,
        bootstrap_iters=0,
    )


@pytest.fixture(scope="module")
def shipped(run):
    """The shipped model, and the run's prompts by category."""
    model, tokenizer = load_model("mtp-bytes-n4", torch.float32), load_tokenizer("mtp-bytes-n4")
    prompts = defaultdict(list)
    for sample in run["samples"]["mtp_drafts"]:
        category = sample["doc"]["data_set"]
        ids = tokenizer.encode(sample["doc"]["text"])
        prompts[category].append(Request(ids, TOKENS, UNTIL.get(category, ())))

    @functools.cache
    def decode(category, k, threshold=0.0):
        engine = Engine(model, k, [0], shown(tokenizer), slots=2, rule=Rule(threshold))
        return engine.generate(prompts[category])

    return SimpleNamespace(model=model, to_text=shown(tokenizer), prompts=prompts, decode=decode)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 0.99])
def test_a_threshold_trades_what_decoding_with_it_does(run, shipped, threshold):
    values = runs.table(run, "mtp_drafts", "by_threshold")
    for category in ("code", "prose"):
        for k in (2, 4):
            records = [answer.record for answer in shipped.decode(category, k, threshold)]
            steps = sum(record.n_steps for record in records)
            kept = sum(record.n_kept for record in records)
            drafted = sum(sum(r.n_drafted or (k - 1,) * r.n_steps) for r in records)
            at = (category, k, threshold)
            assert values[*at, "tokens_per_forward"] == pytest.approx(kept / steps, abs=1e-12)
            assert values[*at, "drafts_per_forward"] == pytest.approx(drafted / steps, abs=1e-12)


def decoded_steps(shipped, category):
    """Yield each answer's text, its logits by head [T, V], where it begins, and its steps."""
    pairs = zip(shipped.prompts[category], shipped.decode(category, 4), strict=True)
    for request, answer in pairs:
        text = torch.tensor([request.prompt + answer.tokens])
        with torch.no_grad():
            trunk = shipped.model.trunk(text)
            each = [shipped.model.logits(i, shipped.model.head(i, trunk))[0] for i in (1, 2, 3, 4)]
        yield text[0].tolist(), each, len(request.prompt), answer.record.n_verified


def expected(shipped, category):
    """Loop over decoded steps: (table, offset, group) -> [right, tried], and all rejections."""
    sums, rejections = defaultdict(lambda: [0, 0]), 0
    for text, (head_1, *_), begin, n_verified in decoded_steps(shipped, category):
        names = {}
        for one in lexemes(shipped.to_text(text), "code" if category == "code" else "text"):
            names |= dict.fromkeys(range(one.begin, one.end), one.name)
        shift = begin - len(shipped.to_text(text[:begin]))  # a token that begins texts
        stand, since = begin, None
        for verified in n_verified:
            places = [stand + 1 + head for head in range(min(verified + 1, 3))]
            for head, place in enumerate(place for place in places if place < len(text)):
                p = head_1[place - 1].double().softmax(-1)
                bits = -sum(float(x) * float(x.log2()) for x in p if x > 0)
                edge = max(edge for edge in ENTROPY if edge <= bits)
                groups = {"class": names.get(place - shift), "entropy": edge}
                if since is not None:
                    groups["since"] = 4 * min(since, SINCE) + head
                for name, group in groups.items():
                    for offset in (head + 2, None):
                        sums[name, offset, group][0] += head < verified
                        sums[name, offset, group][1] += 1
            if verified < 3 and stand + 1 + verified < len(text):
                rejections, since = rejections + 1, 0
            elif since is not None:
                since += 1
            stand += verified + 1
    return {key: pair for key, pair in sums.items() if key[2] is not None}, rejections


@pytest.mark.parametrize("category", ["code", "prose"])
def test_where_drafts_fail_is_what_a_loop_over_decoded_steps_finds(run, shipped, category):
    wanted, rejections = expected(shipped, category)
    assert rejections > 3
    for name in ("class", "entropy", "since"):
        values = runs.table(run, "mtp_drafts", f"by_{name}")
        counts = runs.counts(run, "mtp_drafts", f"by_{name}")
        found = {
            (name, place[1], place[2]): (value, counts[place])
            for place, value in values.items()
            if place[0] == category and place[-1] == "accept_rate_cond"
        }
        own = {
            key: (right / n, n)
            for key, (right, n) in wanted.items()
            if key[0] == name and (name != "since" or key[1] is not None)
        }
        assert found == {key: (pytest.approx(rate), n) for key, (rate, n) in own.items()}
        for place, value in values.items():
            if place[0] == category and place[-1] == "share_of_rejections":
                right, n = wanted.get((name, place[1], place[2]), (0, 0))
                assert value == pytest.approx((n - right) / rejections)


@pytest.mark.parametrize("category", ["code", "prose"])
def test_calibration_is_that_of_forwards_without_a_cache(run, shipped, category):
    sums = defaultdict(lambda: [0, 0.0, 0, 0])
    for text, (_, *heads), begin, _ in decoded_steps(shipped, category):
        for stand in range(begin, len(text) - 1):
            right = True
            for i, logits in enumerate(heads):
                if stand + 1 + i >= len(text):
                    break
                p = logits[stand - 1].double().softmax(-1)
                row = sums[i + 2, min(15, int(float(p.max()) * 15) + 1)]
                row[2] += right
                right = right and int(p.argmax()) == text[stand + 1 + i]
                row[0], row[1], row[3] = row[0] + 1, row[1] + float(p.max()), row[3] + right
    wanted = {}
    for place, (n, confidence, behind, right) in sums.items():
        wanted[*place, "confidence"] = confidence / n
        wanted[*place, "accept_rate_prefix"] = right / n
        if behind:
            wanted[*place, "accept_rate_cond"] = right / behind
    values = runs.table(run, "mtp_drafts", "calibration")
    found = {place[1:]: value for place, value in values.items() if place[0] == category}
    assert found == {key: pytest.approx(value, abs=1e-5) for key, value in wanted.items()}
    assert len(found) > 60


def test_samples_hold_the_answers_with_the_head_of_every_token(run, shipped):
    for sample in run["samples"]["mtp_drafts"]:
        told, category = sample["n_documents"], sample["doc"]["data_set"]
        ids = [request.prompt for request in shipped.prompts[category]]
        place = [shipped.to_text(one) for one in ids].index(sample["doc"]["text"])
        answer = shipped.decode(category, 4)[place]
        text = "".join(text for head, text in told["pieces"] if head > 0)
        assert text == shipped.to_text(answer.tokens)
        heads = [1]
        for verified in answer.record.n_verified:
            heads += [*range(2, verified + 2), *range(-verified - 2, -5, -1), 1]
        assert [head for head, _ in told["pieces"]][: len(heads) - 4] == heads[: len(heads) - 4]
    flat = run["results"]["mtp_drafts"]
    assert set(flat) >= {"looping,none", "tokens_per_forward,none", "n_documents,none"}


def test_a_model_that_drafts_nothing_is_refused_in_a_sentence(tmp_path):
    runs.save(model := runs.tiny(1, replicated=False), tmp_path)
    lm = runs.harness_model(model, tmp_path)
    with pytest.raises(UserError, match="has one head and drafts nothing, expected a model"):
        runs.run(lm, "mtp_drafts", quick=True, new_tokens=4)


def test_own_conversations_are_continued_by_category(tmp_path):
    place = tmp_path / "chat.jsonl"
    place.write_text('{"id": "1", "category": "chat", "prompt": "a = 1\\n"}\n')
    runs.save(model := runs.tiny(4), tmp_path)
    lm = runs.harness_model(model, tmp_path)
    results = runs.run(lm, "mtp_drafts", documents=str(place), new_tokens=20)
    values = runs.table(results, "mtp_drafts", "by_threshold")
    assert {key[0] for key in values} == {"chat"}
    classes = {key[2] for key in runs.table(results, "mtp_drafts", "by_class")}
    assert classes <= {"word", "number", "punctuation", "space"}
