"""`mtp_positions` against plain loops over targets and states."""

import math
from collections import defaultdict

import pytest

from mtp_harness.data.token_classes import ROLL_UP, lexemes
from mtp_harness.probes.positions import BOUND, classes_of_tokens

from . import runs

CODE = {name: text for name, text in runs.TEXTS.items() if name.endswith(".py")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return runs.write_texts(tmp_path_factory.mktemp("texts"))


def mean(values):
    return math.fsum(values) / len(values)


@pytest.mark.parametrize("make", [lambda: runs.tiny(3), runs.sequential_model])
@pytest.mark.parametrize("window", [16, 64])
def test_numbers_are_those_of_plain_loops(folder, texts, make, window):
    model = make()
    n = model.n_future_tokens
    results = runs.run(runs.harness_model(model, folder), "mtp_positions", folder=texts)
    if window == 16:
        lm = runs.harness_model(model, folder, batch_size=3)
        results = runs.run(lm, "mtp_positions", folder=texts, window=16)
    positions, classes, shares, n_targets = (
        defaultdict(list),
        defaultdict(list),
        defaultdict(int),
        0,
    )
    (name,) = {key[0] for key in runs.table(results, "mtp_positions", "by_position")}
    for text in CODE.values():
        tokens, p = runs.reader(model, text, window)
        last = len(tokens) - 1

        def score(t, i, tokens=tokens, p=p):
            q, target = p(t, i), tokens[t + i]
            return {"accuracy": runs.best(q) == target, "cross_entropy": -math.log(q[target])}

        for t in range(last - n + 1):
            place = t - runs.start_of(t, last, window, window)
            for i in range(1, n + 1):
                for metric, value in score(t, i).items():
                    positions[name, i, place, metric].append(value)
        words = []  # of every byte: its lexeme and class
        for number, one in enumerate(lexemes(text, "code")):
            size = len(text[one.begin : one.end].encode())
            words += [(number, one.name)] * size
        for j in range(n, last + 1):
            number, own = words[j - 1]
            part = "first" if j == 1 or words[j - 2][0] != number else "rest"
            rolled = next(key for key, members in ROLL_UP["code"].items() if own in members)
            n_targets += 1
            for key in ((own, part), (own, "all"), (rolled, part), (rolled, "all")):
                shares[key] += 1
                for i in range(1, n + 1):
                    for metric, value in score(j - i, i).items():
                        classes[name, i, *key, metric].append(value)
    near = {"rel": 2e-5, "abs": 1e-5}
    found = runs.table(results, "mtp_positions", "by_position")
    assert found == pytest.approx({key: mean(v) for key, v in positions.items()}, **near)
    wanted = {key: mean(v) for key, v in classes.items()}
    wanted |= {(name, None, *key, "share"): count / n_targets for key, count in shares.items()}
    wanted[name, None, "over two classes", "all", "share"] = 0
    found = runs.table(results, "mtp_positions", "by_class")
    # A class that no text has is not a target of anything, and a share of nothing.
    assert all(v == 0 for key, v in found.items() if key[-1] == "share" and key not in wanted)
    assert {k: v for k, v in found.items() if k in wanted or k[-1] != "share"} == pytest.approx(
        wanted, **near
    )


def test_kinds_of_text_are_data_sets_of_their_own(folder, texts, tmp_path):
    mixed = runs.write_texts(tmp_path / "mixed", {**runs.TEXTS, "b.txt": "ab 11 (ab)\n=b, 1\n"})
    lm = runs.harness_model(runs.tiny(2), folder)
    results = runs.run(lm, "mtp_positions", folder=mixed)
    found = runs.table(results, "mtp_positions", "by_class")
    assert {key[0] for key in found} == {"mixed_code", "mixed_text"}
    assert {key[2] for key in found if key[0] == "mixed_text"} == {
        *("word", "number", "punctuation", "space"),
        *("all text", "all special", "over two classes"),
    }
    flat = results["results"]["mtp_positions"]
    assert {name for name in flat if "_all_code_" in name and "stderr" not in name} == {
        "mixed_code_all_code_accuracy_1,none",
        "mixed_code_all_code_accuracy_2,none",
    }


def test_buckets_are_positions_put_together(folder, tmp_path):
    text = runs.write_texts(tmp_path / "long", {"a.py": "ab = (1)\n" * 40})
    model = runs.tiny(2, context=256)
    results = runs.run(
        runs.harness_model(model, folder, max_length=256), "mtp_positions", folder=text
    )
    buckets = runs.table(results, "mtp_positions", "by_bucket")
    behind = runs.counts(results, "mtp_positions", "by_bucket")
    single = runs.table(results, "mtp_positions", "by_position")
    assert {key[2:4] for key in buckets} == {(0, 63), (64, 127), (128, 255)}
    for offset in (1, 2):
        values = [single["long", offset, p, "accuracy"] for p in range(BOUND)]
        assert buckets["long", offset, 0, 63, "accuracy"] == pytest.approx(mean(values))
    # 361 tokens give 360 states; the second window reads 256 and scores the 104 that are left.
    assert sum(behind["long", 1, *b, "accuracy"] for b in ((0, 63), (64, 127), (128, 255))) == 359
    assert behind["long", 1, 64, 127, "accuracy"] == 64
    assert behind["long", 1, 128, 255, "accuracy"] == 128 + 104 - 1


def test_tokens_of_several_characters():
    """Tokens as of a word-piece model, which put the space before a word into it."""
    text = "if xy:  # no\n    f(xy)\n"
    tokens = ["if", " x", "y:", "  #", " no", "\n", "    ", "f", "(x", "y", ")", "\n"]
    ends = [sum(map(len, tokens[: i + 1])) for i in range(len(tokens))]
    spans = [(end - len(token), end) for token, end in zip(tokens, ends, strict=True)]
    assert "".join(tokens) == text
    of_token, first, over_two = classes_of_tokens(spans, text, "code")
    names = ["keyword", "identifier", "identifier", "comment", "comment", "newline", "newline"]
    names += ["identifier", "operator", "identifier", "operator", "newline"]
    from mtp_harness.data.token_classes import CODE_CLASSES

    assert [CODE_CLASSES[i] for i in of_token] == names
    assert first.tolist() == [1, 1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    assert over_two.tolist() == [False, True, True, True, *[False] * 4, True, *[False] * 3]


def test_one_reading_serves_both_tasks(folder, texts):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from mtp_harness import tasks_dir

    lm = runs.harness_model(runs.tiny(2), folder)
    seen = []
    trunk = lm.model.trunk
    lm.model.trunk = lambda tokens, *rest: seen.append(tokens.numel()) or trunk(tokens, *rest)
    manager = TaskManager(
        include_path=str(tasks_dir()), include_defaults=False, metadata={"folder": texts}
    )
    names = ["mtp_heads", "mtp_positions"]
    both = simple_evaluate(lm, tasks=names, task_manager=manager, bootstrap_iters=0)
    assert sum(seen) <= sum(len(text.encode()) + 1 for text in runs.TEXTS.values())
    apart = runs.run(lm, "mtp_positions", folder=texts)
    for name in ("by_position", "by_bucket", "by_class"):
        assert runs.table(both, "mtp_positions", name) == runs.table(apart, "mtp_positions", name)
