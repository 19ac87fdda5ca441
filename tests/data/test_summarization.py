"""Where summaries are from, and the functions of the standard library."""

import ast
import hashlib
import sysconfig
from pathlib import Path

import datasets
import pytest

from mtp_harness.data import docstrings, sources, summarization
from mtp_harness.data.corpus import Corpus, Document

from .code_fixtures import write
from .text_fixtures import SUMMARIES, articles, library, summaries


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("MTP_HARNESS_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_benchmark_is_read_from_json_lines_and_parquet(name, tmp_path):
    rows = summaries(name)
    write(tmp_path / "a" / name / "test.jsonl", rows)
    path = tmp_path / "b" / name / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(str(path))
    text, reference = SUMMARIES[name][:2]
    for folder in ("a", "b"):
        found = summarization.load(name, str(tmp_path / folder))["test"]
        assert found["document"][:] == [row[text] for row in rows]
        assert found["summary"][:] == [row[reference] for row in rows]


def test_real_articles_are_known_to_be_a_part(shared_data):
    found = summarization.load("cnn_dailymail", str(shared_data))["test"]
    rows = articles(shared_data)
    assert found["id"][:] == [row["id"] for row in rows]
    assert found.info.description == (
        "cnn_dailymail_sample.jsonl.gz, 40 of the test split's 11490 documents"
    )


def test_the_whole_split_comes_before_a_sample(tmp_path):
    write(tmp_path / "xsum_sample.jsonl", summaries("xsum")[:1])
    assert len(summarization.load("xsum", str(tmp_path))["test"]) == 1
    write(tmp_path / "xsum" / "test.jsonl", summaries("xsum"))
    assert len(summarization.load("xsum", str(tmp_path))["test"]) == 3


def test_the_hub_is_asked_for_the_branch_with_tables(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, *, revision, allow_patterns, **_):
        asked.append((repository, revision, allow_patterns))
        raise OSError("not cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for name in ("cnn_dailymail", "xsum"):
        with pytest.raises(FileNotFoundError):
            summarization.load(name)
    assert asked == [
        ("abisee/cnn_dailymail", None, ["3.0.0/test-*.parquet"]),
        ("EdinburghNLP/xsum", "refs/convert/parquet", ["default/test/*.parquet"]),
    ]


def test_files_in_the_cache_of_the_hub_are_found_without_a_network(tmp_path, monkeypatch):
    # The layout in which the hub's client keeps a data set's branch of tables.
    folder, commit = tmp_path / "datasets--EdinburghNLP--xsum", "0" * 40
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert sources.find_here(summarization.source("xsum")) == []
    (folder / "refs" / "refs" / "convert").mkdir(parents=True)
    (folder / "refs" / "refs" / "convert" / "parquet").write_text(commit)
    path = folder / "snapshots" / commit / "default" / "test" / "0000.parquet"
    path.parent.mkdir(parents=True)
    datasets.Dataset.from_list(summaries("xsum")).to_parquet(str(path))
    assert sources.find_here(summarization.source("xsum")) == [path]
    assert len(summarization.load("xsum")["test"]) == 3


def test_few_rows_of_a_long_file_are_enough(tmp_path):
    path = write(tmp_path / "xsum" / "train.jsonl", summaries("xsum") * 50)
    path.write_text(path.read_text() + "{broken")
    split, rows = summarization.shots("xsum", str(tmp_path))
    assert (split, len(rows)) == ("train", summarization.MAX_SHOTS)
    assert summarization.shots("samsum", str(tmp_path)) == ("", [])
    with pytest.raises(ValueError, match="train.jsonl:151 is not JSON"):
        sources.read_rows(summarization.source("xsum", "train"), str(tmp_path))


def test_hash_tells_moved_borders_apart():
    one = sources.describe([{"document": "ab", "summary": "c"}], ("document", "summary"), "x")
    two = sources.describe([{"document": "a", "summary": "bc"}], ("document", "summary"), "x")
    assert one["sha256"] != two["sha256"] and one["bytes"] == two["bytes"] == 3
    by_hand = hashlib.sha256(b"\0" * 7 + b"\x02ab" + b"\0" * 7 + b"\x01c").hexdigest()
    assert one["sha256"] == by_hand


# ---------------------------------------------------------------- docstrings

SOURCE = '''
class Box:
    @property
    def size(
        self,
    ) -> int:
        """Return the number of things.

        More words.
        """
        total = 0
        for thing in self.things:
            total += 1
        return total

    def short(self):
        """Return nothing of any use."""
        return None

    def outdented(self):
        """Return a long text of two lines."""
        text = """one
two"""
        print(text)
        return text

    def unfinished(self):
        """Return a thing that goes on and
        on."""
        a = 1
        b = 2
        return a + b


def size_again(box):
    """Return the number of things."""
    a = 1
    b = 2
    return a + b
'''


def test_functions_by_hand():
    corpus = Corpus("code", "3", (Document("box.py", SOURCE), Document("broken.py", "def (")))
    (row,) = docstrings.functions(corpus)
    assert row == {
        "id": "box.py:4",
        "head": "def size(\n    self,\n) -> int:",
        "document": "def size(\n    self,\n) -> int:\n    total = 0\n"
        "    for thing in self.things:\n        total += 1\n    return total",
        "summary": "Return the number of things.",
    }


def test_no_document_holds_its_summary_as_docstring():
    one = docstrings.load()
    assert (len(one["test"]), len(one["shots"])) == (200, 16)
    assert not set(one["test"]["summary"]) & set(one["shots"]["summary"])
    assert "Python 3." in one["test"].info.description
    stdlib = Path(sysconfig.get_path("stdlib"))
    for row in one["test"]:
        function = ast.parse(row["document"]).body[0]
        assert ast.get_docstring(function) is None
        name, _, line = row["id"].partition(":")
        text = (stdlib / name).read_text(encoding="utf-8-sig").split("\n")
        head, after = row["head"].split("\n"), text[int(line) - 1 :]
        assert [one.strip() for one in after[: len(head)]] == [one.strip() for one in head]
        first = after[len(head)].strip().lstrip("rR").strip("'\"").strip()
        assert first in ("", "\\") or row["summary"] in (first, first.replace("\\\\", "\\"))
        assert function.name in row["head"]


def test_split_depends_on_the_documents_alone(monkeypatch):
    monkeypatch.setattr(docstrings, "code_corpus", library)
    one, two = docstrings.load(), docstrings.load()
    assert one["test"][:] == two["test"][:]
    ids = [*one["shots"]["id"], *one["test"]["id"]]
    assert len(set(ids)) == 216 and ids != sorted(ids, key=lambda name: int(name[8:]))
