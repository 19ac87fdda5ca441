"""The page of drafts: the worst documents with their drafts; nothing that models wrote can run."""

import json
import re

import pytest

from mtp_harness.cli import main
from mtp_harness.leaderboard.table import build
from mtp_harness.report.drafts import render
from mtp_harness.results import run

from ..figures.runs import drafts
from ..leaderboard.result_files import write_run
from .test_page import HOSTILE

HOSTILE_PIECES = [(head, text) for text in HOSTILE for head in (1, 2, -3)]


def documents(number):
    """Yield what mtp_drafts tells of documents: the later, the fewer tokens per forward."""
    for place in range(number):
        steps = 20 + place
        pieces = [(1, "a"), *[(2, "b")] * (60 - steps), *[(-2, "wrong\n"), (1, "c")] * steps]
        yield {
            "name": f"document-{place}",
            "data_set": "code",
            "kept": 60,
            "walks": [[[60, 0]], [[steps, 3 * steps]]],
            "looping": place == 2,
            "pieces": pieces,
        }


def write(folder, told, **more):
    scores = {"tokens_per_forward": [(one["kept"], one["walks"][-1][0][0]) for one in told]}
    given = {"task": "mtp_drafts", "generation": False, "tables": drafts(), **more}
    write_run(folder, scores=scores, **given)
    for path in folder.glob("samples_*"):
        lines = map(json.loads, path.read_text().splitlines())
        both = [line | {"n_documents": one} for line, one in zip(lines, told, strict=True)]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in both))


@pytest.fixture
def pages(tmp_path, capsys, monkeypatch):
    def call(draws=False):
        if not draws:  # which takes seconds
            monkeypatch.setattr("mtp_harness.commands.report._figures", lambda *_: ([], []))
        place = tmp_path / "a report.html"
        assert main(["report", str(tmp_path / "results"), "-o", str(place)]) == 0
        said = capsys.readouterr().out.splitlines()
        beside = tmp_path / "a report-drafts.html"
        assert (len(said) == 2) == beside.exists()
        return place.read_text(), beside.read_text() if beside.exists() else None

    call.folder = tmp_path / "results"
    return call


def test_the_twenty_worst_stand_in_order_with_what_was_rejected(pages):
    short = {"kept": 3, "walks": [[[3, 9]]], "name": "short", "looping": False}
    short |= {"data_set": "code", "pieces": [(1, "a")] * 4}
    write(pages.folder, [*documents(25), short])
    report, page = pages(draws=True)
    assert 'href="a%20report-drafts.html"' in report and 'href="a%20report.html"' in page
    named = re.findall(r"<h4>(.*?)</h4>", page)
    assert named == [f"document-{place}" for place in range(24, 4, -1)]
    assert "code · 1.36 tokens per forward · 61 tokens" in page  # 60 kept in 44 steps
    first = page.split("<article")[1]
    assert first.count('<del data-head="2"') == 44 and "wrong↵</del>c" in first
    assert first.count('<span class="token" data-head="2"') == 16
    for name in ("fig_drafts_fail", "fig_calibration", "fig_threshold"):
        assert f'<figure id="{name}">' in page


def test_what_models_wrote_is_text(pages):
    (told,) = documents(1)
    write(pages.folder, [told | {"name": HOSTILE[0], "pieces": HOSTILE_PIECES * 7}])
    _, page = pages()
    assert not re.search("<(script|img src=x|svg|iframe)", page)
    assert "&lt;script&gt;" in page and "default-src 'none'; style-src 'sha256-" in page


def test_runs_without_samples_or_texts_say_so(pages):
    write(pages.folder / "a", [*documents(2)], label="none", samples=False)
    _, page = pages()
    assert "It saved no answers: run it again with --log_samples" in page


def test_a_document_that_the_task_does_not_write_is_named(tmp_path):
    (told,) = documents(1)
    write(tmp_path, [told | {"pieces": "no list"}])
    board = build(run.find([str(tmp_path)]))
    with pytest.raises(ValueError, match="has a document that mtp_drafts does not write"):
        render(board, [], "report.html")


def test_a_report_without_drafts_has_no_such_page(pages):
    write_run(pages.folder)
    report, page = pages()
    assert page is None and "Where drafts fail" not in report
