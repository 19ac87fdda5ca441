"""`mtp_heads` in whole runs: against plain loops over float64 logits, and in closed form."""

import math

import pytest
import torch
from torch import nn

from mtp_harness.lm import MTPLM
from mtp_harness.models.interface import MultiHeadModel
from mtp_harness.probes.heads import N_BINS, pooled_horizon

from ..decode.models_for_tests import Alphabet
from . import runs

WINDOW = 16
MODELS = {
    "parallel": lambda: runs.tiny(4),
    "shared unembedding": lambda: runs.tiny(3, replicated=False),
    "sequential": runs.sequential_model,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("texts"))


def by_offset(lm, texts, **metadata):
    results = runs.run(lm, "mtp_heads", folder=texts, **metadata)
    (name,) = results["config"]["mtp"]["documents"]["mtp_heads"]
    values = runs.table(results, "mtp_heads", "by_offset")
    assert {key[0] for key in values} == {name}
    return {(metric, offset): value for (_, offset, metric), value in values.items()}


def expected(model, n, window, texts=runs.TEXTS):
    """Return every number of the table `by_offset`, by plain loops; not the chained reading's."""
    sums, bins, kept, steps, states = {}, {}, 0, 0, 0
    drafted = {}

    def add(metric, offset, value):
        sums[metric, offset] = sums.get((metric, offset), 0.0) + value

    for text in texts.values():
        tokens, p = runs.reader(model, text, window)
        last = len(tokens) - 1
        for t in range(last - n + 1):  # the last one's n-th target is the last token
            states += 1
            agreeing = True
            after_right_drafts(drafted, "accuracy_cond", p, tokens, t, n)
            for i in range(1, n + 1):
                q, target = p(t, i), tokens[t + i]
                order = sorted(range(256), key=lambda v: (-q[v], v))
                rank, sure = order.index(target), q[order[0]]
                for metric, least in (("accuracy", 1), ("accuracy_5", 5), ("accuracy_20", 20)):
                    add(metric, i, rank < least)
                add("cross_entropy", i, -math.log(q[target]))
                add("confidence", i, sure)
                add("brier", i, sum((v - (j == target)) ** 2 for j, v in enumerate(q)))
                one = bins.setdefault((i, min(N_BINS - 1, int(sure * N_BINS))), [0, 0.0])
                one[0] += rank == 0
                one[1] += sure
                if i > 1:
                    same = order[0] == runs.best(p(t + i - 1, 1))
                    agreeing = agreeing and same
                    add("tf_agree", i, same)
                    add("tf_prefix", i, agreeing)
        at = 0  # the prefill has emitted x[1]; a step at t emits accepted drafts and one more
        while at < last - 1:
            accepted = 0
            while (
                accepted + 2 <= n
                and at + accepted + 2 <= last
                and runs.best(p(at, accepted + 2)) == tokens[at + accepted + 2]
            ):
                accepted += 1
            emitted = min(accepted + 1, last - 1 - at)
            at, kept, steps = at + emitted, kept + emitted, steps + 1
    found = {key: value / states for key, value in sums.items()} | shares(drafted)
    for i in range(1, n + 1):
        gaps = [abs(right - sure) for (offset, _), (right, sure) in bins.items() if offset == i]
        found["calibration_error", i] = sum(gaps) / states
        found["bits_per_byte", i] = found["cross_entropy", i] / math.log(2)  # a token is a byte
    useful = [i for i in range(1, n + 1) if found["accuracy", i] >= 0.5]
    found["effective_horizon", None] = max(useful, default=0)
    found["text_walk_tokens_per_forward", None] = kept / steps
    return found


def after_right_drafts(counts, metric, p, tokens, t, n):
    """Count for each head whether it is right, up to the first from head 2 on that is not."""
    for i in range(2, n + 1):
        right = runs.best(p(t, i)) == tokens[t + i]
        counts.setdefault((metric, i), []).append(right)
        if not right:
            break


def shares(counts):
    return {key: sum(each) / len(each) for key, each in counts.items()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("window", [WINDOW, 64])
def test_numbers_are_those_of_plain_loops(folder, texts, name, window):
    model = MODELS[name]()
    found = by_offset(runs.harness_model(model, folder), texts, window=window)
    wanted = expected(model, model.n_future_tokens, window)
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=2e-5)
    for i in range(1, model.n_future_tokens + 1):
        assert found["accuracy", i] > 0, "every head should be right somewhere"


AB = {"one.py": "abaab\nababaaabbba", "two.py": "bbababb (a) abab", "few.py": "aba"}


@pytest.mark.parametrize(("modules", "n"), [(1, 5), (2, 3)])
def test_one_module_has_both_readings_and_several_have_one(tmp_path, folder, modules, n):
    """Plain loops: `drafted_on` reads a growing text, the chained one the same positions again."""
    model = runs.family_model(tmp_path, modules, n, letters=b"ab")
    (tmp_path / "texts").mkdir()
    texts = runs.write_texts(tmp_path / "texts", AB)
    found = by_offset(runs.harness_model(model, folder, 2), texts, window=WINDOW)
    wanted = expected(model, n, WINDOW, AB)
    values, drafted = {}, {}
    for text in AB.values() if modules == 1 else ():
        tokens, again = runs.reader(model, text, WINDOW, chained=True)
        for t in range(len(tokens) - n):
            after_right_drafts(drafted, "chained_accuracy_cond", again, tokens, t, n)
            for i in range(3, n + 1):
                q, target = again(t, i), tokens[t + i]
                right = runs.best(q) == target
                values.setdefault(("chained_accuracy", i), []).append(right)
                values.setdefault(("chained_cross_entropy", i), []).append(-math.log(q[target]))
    drafted.pop(("chained_accuracy_cond", 2), None)  # equal in both readings, and so told once
    wanted |= shares(values) | shares(drafted)
    assert set(found) == set(wanted)
    assert found == pytest.approx(wanted, rel=2e-5)
    assert found["accuracy_cond", 2] == found["accuracy", 2] and found["accuracy_cond", 3] > 0
    if modules == 1:
        assert found["chained_cross_entropy", 3] != pytest.approx(found["cross_entropy", 3])
        assert found["chained_accuracy_cond", 3] > 0


def test_reliability_adds_up_to_the_means(folder, texts):
    lm = runs.harness_model(runs.tiny(4), folder)
    results = runs.run(lm, "mtp_heads", folder=texts)
    bins = runs.table(results, "mtp_heads", "reliability")
    behind = runs.counts(results, "mtp_heads", "reliability")
    whole = runs.table(results, "mtp_heads", "by_offset")
    for (_, offset, metric), value in whole.items():
        if metric in ("accuracy", "confidence"):
            mine = [key for key in bins if key[1] == offset and key[3] == metric]
            total = sum(bins[key] * behind[key] for key in mine)
            assert total / sum(behind[key] for key in mine) == pytest.approx(value, rel=1e-9)
            assert all(1 <= key[2] <= N_BINS for key in mine)
    for key, value in bins.items():
        if key[3] == "confidence":
            assert (key[2] - 1) / N_BINS <= value <= key[2] / N_BINS


@pytest.mark.parametrize("metadata", [{"window": 64}, {"window": 63}, {}])
@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_batch_and_a_window_that_holds_the_text_change_nothing(folder, texts, batch_size, metadata):
    model = runs.tiny(4)
    alone = by_offset(runs.harness_model(model, folder), texts)
    found = by_offset(runs.harness_model(model, folder, batch_size), texts, **metadata)
    assert found == pytest.approx(alone, rel=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_cpu_s_numbers(folder, texts):
    here = by_offset(runs.harness_model(runs.tiny(4), folder), texts)
    model = runs.tiny(4).cuda()
    lm = MTPLM(pretrained=str(folder), device="cuda", batch_size=3)
    lm._model = model
    assert by_offset(lm, texts) == pytest.approx(here, rel=1e-5)


def test_logits_in_small_pieces_are_the_same(folder, texts, monkeypatch):
    lm = runs.harness_model(runs.tiny(4), folder, 3)
    whole = by_offset(lm, texts)
    monkeypatch.setattr("mtp_harness.probes.teacher_forced.CHUNK", 7 * 256)
    assert by_offset(lm, texts) == pytest.approx(whole, rel=1e-12)


def test_printed_metrics_are_those_of_the_table(folder, texts):
    results = runs.run(runs.harness_model(runs.tiny(3), folder), "mtp_heads", folder=texts)
    table = runs.table(results, "mtp_heads", "by_offset")
    flat = results["results"]["mtp_heads"]
    (data_set,) = {key[0] for key in table}
    for offset in (1, 2, 3):
        for metric in ("accuracy", "bits_per_byte"):
            printed = flat[f"{data_set}_{metric}_{offset},none"]
            assert printed == pytest.approx(table[data_set, offset, metric], rel=1e-12)
    for metric, offset in (("tf_agree", 2), ("tf_agree", 3), ("accuracy_cond", 3)):
        printed = flat[f"{data_set}_{metric}_{offset},none"]
        assert printed == pytest.approx(table[data_set, offset, metric], rel=1e-12)
    for metric in ("effective_horizon", "text_walk_tokens_per_forward"):
        printed = flat[f"{data_set}_{metric},none"]
        assert printed == pytest.approx(table[data_set, None, metric], rel=1e-12)
    assert flat["n_documents,none"] == len(runs.TEXTS)


# ---------------------------------------------------------------- closed forms


ASCENDING = "".join(map(chr, range(33, 127)))


class Shifted(Alphabet):
    """Every head predicts what the next one should."""

    def logits(self, offset, states):
        return super().logits(offset + 1, states)


class Permuted(Alphabet):
    """Heads in reverse order."""

    def logits(self, offset, states):
        return super().logits(self.n_future_tokens + 1 - offset, states)


class Uniform(Alphabet):
    def logits(self, offset, states):
        return torch.zeros(*states.shape[:-1], 256, dtype=torch.float64)


@pytest.fixture(scope="module")
def ascending(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("ascending"), {"a.txt": ASCENDING})


def test_perfect_heads(folder, ascending):
    """Logits are 1 for the right token and 0 for 255 others; only BOS misleads."""
    found = by_offset(runs.harness_model(Alphabet(), folder, max_length=256), ascending)
    states = len(ASCENDING) - 3  # 0 (BOS) .. the one whose fourth target is the last byte
    wrong, total = 1 / states, math.e + 255
    sure, rest = math.e / total, 1 / total
    for i in range(1, 5):
        assert found["accuracy", i] == pytest.approx(1 - wrong)
        nats = (1 - wrong) * (math.log(total) - 1) + wrong * math.log(total)
        assert found["cross_entropy", i] == pytest.approx(nats, rel=1e-6)
        assert found["confidence", i] == pytest.approx(sure, rel=1e-6)
        right, misled = (1 - sure) ** 2 + 255 * rest**2, sure**2 + (1 - rest) ** 2 + 254 * rest**2
        assert found["brier", i] == pytest.approx((1 - wrong) * right + wrong * misled, rel=1e-5)
        assert found["calibration_error", i] == pytest.approx(1 - wrong - sure, rel=1e-5)
    for i in range(2, 5):
        # At BOS heads predict 1, 2, 3, 4, and head 1 at "!" predicts the quotation mark after it.
        assert found["tf_agree", i] == found["tf_prefix", i] == pytest.approx(1 - wrong)
    assert found["effective_horizon", None] == 4
    # The step at BOS emits one token, every later one four, the last one what is left.
    assert found["text_walk_tokens_per_forward", None] == 93 / (1 + math.ceil(92 / 4))


def test_uniform_heads(folder, ascending):
    found = by_offset(runs.harness_model(Uniform(), folder, max_length=256), ascending)
    for i in range(1, 5):
        assert found["cross_entropy", i] == pytest.approx(math.log(256), rel=1e-6)
        assert found["bits_per_byte", i] == pytest.approx(8, rel=1e-6)
        assert found["confidence", i] == pytest.approx(1 / 256, rel=1e-6)
        assert found["brier", i] == pytest.approx((255 / 256) ** 2 + 255 / 256**2, rel=1e-5)
        # Of equal logits the lowest ids come first, and the text has none below 33.
        assert found["accuracy", i] == found["accuracy_20", i] == 0
    assert found["effective_horizon", None] == 0
    assert found["text_walk_tokens_per_forward", None] == 1


@pytest.mark.parametrize("model", [Shifted, Permuted])
def test_heads_that_answer_for_another_offset_collapse(folder, ascending, model):
    found = by_offset(runs.harness_model(model(), folder, max_length=256), ascending)
    assert all(found["accuracy", i] == 0 for i in range(1, 5))
    assert found["text_walk_tokens_per_forward", None] == 1


def test_permuted_heads_of_a_model_swap_their_numbers(folder, texts):
    """A control on the loops too: the head, not its place in the table, makes the number."""
    model = runs.tiny(2)
    straight = expected(model, 2, 64)
    model.extra_lm_heads[0].weight, model.lm_head.weight = (
        nn.Parameter(model.lm_head.weight.detach().clone()),
        nn.Parameter(model.extra_lm_heads[0].weight.detach().clone()),
    )
    layer = model.model.layers[-1]
    model.model.layers[-1], model.extra_heads[0] = model.extra_heads[0], layer
    found = by_offset(runs.harness_model(model, folder), texts)
    for i in (1, 2):
        assert found["confidence", i] == pytest.approx(straight["confidence", 3 - i], rel=1e-5)
        assert abs(found["cross_entropy", i] - straight["cross_entropy", i]) > 0.01


# ---------------------------------------------------------------- other models and inputs


def test_an_ordinary_model_has_offset_1_alone(tmp_path, texts):
    pretrained = runs.ordinary_folder(tmp_path)
    lm = runs.MTPLM(pretrained=pretrained, device="cpu", batch_size=2, dtype="float64")
    assert not isinstance(lm.model, MultiHeadModel)
    found = by_offset(lm, texts, window=WINDOW)
    assert {offset for _, offset in found} == {1, None}
    wanted = expected(lm.model, 1, WINDOW)
    assert found == pytest.approx(wanted, rel=2e-5)
    assert found["text_walk_tokens_per_forward", None] == 1


@pytest.mark.parametrize(
    ("metadata", "parts"),
    [
        ({"window": 65}, ["window=65", "64 tokens"]),
        ({"window": 0}, ["window=0", "expected 1"]),
        ({"window": "x"}, ["window=x"]),
    ],
)
def test_windows_that_no_model_has(folder, texts, metadata, parts):
    lm = runs.harness_model(runs.tiny(2), folder)
    with pytest.raises(ValueError) as caught:
        runs.run(lm, "mtp_heads", folder=texts, **metadata)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    assert all(part in message for part in [*parts, "mtp_heads"])


def test_no_state_has_no_horizon():
    assert math.isnan(pooled_horizon([[0, 0, 0], [0, 0, 0]]))
    assert pooled_horizon([[8, 5, 10], [0, 0, 0]]) == 2
