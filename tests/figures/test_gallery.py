"""The committed gallery is what its results give, and its results say nothing of where they ran."""

import getpass
import gzip
import json
import re
import socket
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from mtp_harness.commands import leaderboard as leaderboard
from mtp_harness.commands import report as report
from mtp_harness.results import documents, samples
from mtp_harness.results.tidy import read_runs

from ..scripts import script
from .damage import WHOLE, write
from .runs import write_run

GALLERY = Path(__file__).resolve().parents[2] / "figures"

pytestmark = pytest.mark.skipif(
    not (GALLERY / "results").is_dir(), reason=f"needs {GALLERY} of a checkout"
)


@pytest.fixture(scope="module")
def runs():
    return read_runs([GALLERY / "results/cpu"])


def test_results_are_read_without_a_problem(runs):
    assert not runs.problems
    assert {file.label for file in runs.files.values()} >= {"mtp-bytes-n4", "mtp-bytes-n1"}


def test_committed_tables_are_what_the_results_give():
    regenerate = script(GALLERY / "regenerate.py")
    for name, runs in regenerate.galleries().items():
        assert regenerate.stale(GALLERY / name, runs) == []


def test_a_changed_table_is_noticed(tmp_path, runs, monkeypatch):
    regenerate = script(GALLERY / "regenerate.py")
    monkeypatch.setattr(regenerate, "HERE", tmp_path / "figures")
    there = tmp_path / "figures"
    there.mkdir()
    for path in GALLERY.glob("*.csv"):
        (there / path.name).write_text(path.read_text())
    changed = there / "fig_heads.csv"
    changed.write_text(changed.read_text().replace("accuracy", "guesses", 1))
    (there / "fig_1.csv").unlink()
    assert regenerate.stale(there, runs) == [
        "figures/fig_1.csv is missing: run `make figures`",
        "figures/fig_heads.csv is not what the results give: run `make figures`",
    ]


def test_a_folder_of_results_is_a_gallery_without_what_shows_the_paper_alone(tmp_path, monkeypatch):
    regenerate = script(GALLERY / "regenerate.py")
    monkeypatch.setattr(regenerate, "HERE", tmp_path)
    for name in ("cpu", "another"):
        write_run(tmp_path / "results" / name, metrics={"mbpp_mtp": {"pass@1": 0.5}})
    assert list(regenerate.galleries()) == ["another", "", "paper"]
    runs = regenerate.galleries()["another"]
    drawn = regenerate.draw_all(runs, ["table_s7", "table_s3", "fig_2"], paper=True, formats=())
    kept = regenerate.of_runs(drawn)
    assert [one.figure.name for one in kept.drawn] == ["table_s7"]
    assert kept.refused["fig_2"] == "fig_2 shows the paper alone: a diagram"
    assert "table_s3 shows the paper alone: no run measured it" in kept.refused["table_s3"]


def test_every_table_has_its_picture():
    for folder in (GALLERY / name for name in script(GALLERY / "regenerate.py").galleries()):
        tables = {path.stem for path in folder.glob("*.csv")}
        assert tables and tables == {path.stem for path in folder.glob("*.png")}


HOST = re.compile(
    r"(?<![\w.:/-])/(?:home|root|tmp|work|mnt|data|opt|usr|var|Users|scratch|workspace)/|"
    r"[A-Za-z]:\\\\|\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b|PyTorch version:|file://"
)


def test_results_hold_no_path_and_no_host():
    there = [*(GALLERY / "results").rglob("*"), *(GALLERY / "studies/results").rglob("*")]
    files = [path for path in there if path.is_file() and path.suffix != ".png"]
    assert len(files) > 10
    names = {socket.gethostname(), getpass.getuser()} - {"localhost", "root", "runner"}
    for path in files:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        assert (found := HOST.search(text)) is None, f"{path}: {found}"
        for name in names:
            assert not re.search(rf"\b{re.escape(name)}\b", text), f"{path}: {name}"


def test_import_takes_out_paths_hosts_and_texts_and_keeps_every_number(tmp_path):
    import_results = script(GALLERY / "import_results.py")
    run = write_run(
        tmp_path / "from",
        "a model",
        metrics={"humaneval_mtp": {"pass@1": 0.5}},
        samples={"humaneval_mtp": [{"pass@1": 1.0, "resps": [["secret"]]}, {"pass@1": 0.0}]},
        git_revision="abc",
        command="lm_eval --tasks x -o /home/somebody/deep/results --log_samples",
    )
    content = json.loads(run.read_text()) | {"pretty_env_info": "PyTorch version: 2"}
    content["config"]["model_args"] = {"pretrained": "/home/somebody/ckpt/7B_200B_4"}
    content["configs"]["humaneval_mtp"]["metadata"] = {"config_source": "/home/somebody/x.yaml"}
    content["configs"]["humaneval_mtp"]["doc_to_text"] = "{{prompt}}"
    run.write_text(json.dumps(content))
    into = tmp_path / "results"
    arguments = [str(tmp_path / "from"), "--into", str(into), "--note", "timed on a busy machine"]
    told = []
    for _ in range(2):  # the second time changes nothing
        assert import_results.main(arguments) == 0
        told.append({path: path.read_bytes() for path in into.rglob("*") if path.is_file()})
    assert told[0] == told[1] and len(told[0]) == 2
    (written,) = into.rglob("results_*.json")
    assert written.parent == into / "cpu" / "a model" / "humaneval_mtp"
    (packed,) = into.rglob("samples_*")
    assert packed.name.endswith(".jsonl.gz")
    text = gzip.decompress(packed.read_bytes()).decode() + written.read_text()
    assert not HOST.search(text) and "somebody" not in text and "secret" not in text
    kept = json.loads(written.read_text())
    assert kept["config"]["model_args"]["pretrained"] == "…/7B_200B_4"
    assert "-o …/results --log_samples" in kept["config"]["mtp"]["command"]
    before, after = read_runs([tmp_path / "from"]).values, read_runs([into]).values
    same = ["task", "metric", "value", "label", "n", "k"]
    assert before[same].equals(after[same])
    assert set(after["note"]) == {"timed on a busy machine"}


def test_import_keeps_how_many_answers_were_empty(tmp_path):
    import_results = script(GALLERY / "import_results.py")
    answers = [["secret", " "], ["", "\n"]]
    rows = [{"pass@1": 0.5, "resps": [own], "filtered_resps": own} for own in answers]
    told = {"generation": {"do_sample": False, "until": []}, "repeats": 2}
    scores = {"humaneval_mtp": {"pass@1": 0.5}}
    write_run(tmp_path / "from", metrics=scores, samples={"humaneval_mtp": rows}, **told)
    into = tmp_path / "into"
    assert import_results.main([str(tmp_path / "from"), "--into", str(into)]) == 0
    (brought,) = into.rglob("samples_*")
    kept = list(samples.read(brought))
    assert [one["n_empty_answers"] for one in kept] == [1, 2]
    (file,) = read_runs([into]).files.values()
    assert documents.empty_answers(file, "humaneval_mtp") == 3
    # Brought in once more, it is what it was.
    assert import_results.without_texts(kept[0]) == kept[0]


def test_leaderboard_and_report_read_what_was_brought_in(tmp_path, capsys):
    runs = [
        str(GALLERY / "results/cpu" / label / "docstring_mtp")
        for label in ("mtp-bytes-n1", "mtp-bytes-n4")
    ]
    assert leaderboard.main([*runs, "--baseline", "mtp-bytes-n1"]) == 0
    shown = capsys.readouterr().out
    assert "docstring_mtp: version 1.1, 20 documents, 1 sample" in shown
    assert re.search(r"rougeL_f1 +0\.\d{3} \[.*\] +0\.\d{3} \[", shown)
    assert report.main([*runs, "-o", str(tmp_path / "report.html")]) == 0


def test_claims_find_their_metrics_in_real_runs(capsys):
    folders = [str(path) for path in (GALLERY / "results/cpu").glob("*/mtp_*")]
    assert leaderboard.main([*folders, "--format", "json", "--claims"]) == 0
    claims = {one["claim"]: one for one in json.loads(capsys.readouterr().out)["claims"]}
    nearer = claims["Nearer heads are more accurate"]
    assert "accuracy on code" in nearer["measured"] and nearer["findings"]
    for claim, size in (
        ("With all four heads, decoding is up to 3 times as fast", "6B to 8B"),
        ("The speedup lasts at large batch sizes", "6B to 8B"),
        ("Several heads do polynomial arithmetic better than one", "20M to 200M"),
    ):
        assert claims[claim]["verdict"] == "not comparable" and size in claims[claim]["measured"]
        assert claims[claim]["findings"] == []


def test_import_refuses_what_cannot_be_drawn(tmp_path):
    write(tmp_path, json.dumps(WHOLE)[:200].encode())
    with pytest.raises(ValueError, match="is not JSON"):
        script(GALLERY / "import_results.py").main(
            [str(tmp_path), "--into", str(tmp_path / "into")]
        )


def test_pictures_of_the_gallery_have_a_palette_and_say_where_they_come_from():
    pictures = [path for path in GALLERY.rglob("*.png") if "studies" not in path.parts]
    assert pictures
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.mode == "P", f"{path}: run `make figures`"
            assert picture.text["Title"] == path.stem and "Source" in picture.text
            assert round(picture.info["dpi"][0]) == 300


def test_giving_a_palette_changes_no_colour_that_is_seen(tmp_path):
    path = tmp_path / "a.png"
    ramp = Image.linear_gradient("L").convert("RGB")
    texts = PngInfo()
    texts.add_text("Source", "x")
    ramp.save(path, dpi=(300, 300), pnginfo=texts)
    script(GALLERY / "regenerate.py").give_palette(path)
    with Image.open(path) as picture:
        assert picture.mode == "P" and picture.text == {"Source": "x"}
        assert not ImageChops.difference(picture.convert("RGB"), ramp).getbbox()
