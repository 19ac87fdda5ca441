"""`~` is the home folder in every path that a user gives, also where no shell expands it."""

import json

import pytest
from lm_eval.api.instance import Instance

from mtp_harness import lm as lm_module
from mtp_harness.cli import main
from mtp_harness.commands import measure
from mtp_harness.data import humaneval, induction_texts, sources, texts
from mtp_harness.figures.diagram_figures import architecture_of
from mtp_harness.harness.task_options import problem
from mtp_harness.lm import MTPLM
from mtp_harness.models.load import detect, resolve
from mtp_harness.pipeline.evaluation import run_evaluation_pipeline
from mtp_harness.pipeline.suite import make_suite
from mtp_harness.results.result_file import ResultFile
from mtp_harness.results.tracking import Store

from .data.code_fixtures import write
from .leaderboard.result_files import write_run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder, and another one to be in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir()), "a folder called ~ was made"


def test_journal_and_tokenizer(home):
    (home / "tok").mkdir()
    request = Instance("generate_until", {}, ("def f", {"until": [], "max_gen_toks": 2}), 0)
    MTPLM(device="cpu", journal="~/sub/journal.jsonl").generate_until([request])
    assert (home / "sub" / "journal.jsonl").is_file()
    with pytest.raises(FileNotFoundError, match=f"{home}/tok is empty"):
        MTPLM(device="cpu", tokenizer="~/tok")


@pytest.mark.parametrize("name", ["tokenizer", "peft", "delta", "offload_folder"])
def test_arguments_of_ordinary_models(home, monkeypatch, name):
    class Asked(Exception):
        pass

    def ask(self, **kwargs):
        raise Asked(kwargs[name])

    (home / "model").mkdir()
    (home / "model" / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setattr(lm_module.HFLM, "__init__", ask)
    monkeypatch.setattr(lm_module, "check_ordinary", lambda folder: None)
    with pytest.raises(Asked, match=f"^{home}/x$"):
        MTPLM(pretrained="~/model", device="cpu", **{name: "~/x"})


def test_what_a_loader_is_given(home, monkeypatch):
    given = []

    def load(spec, pretrained):
        given.append(pretrained)
        raise ValueError

    monkeypatch.setattr("mtp_harness.models.load.load_with", load)
    for pretrained in ("~/x", "./x", "org/name"):
        with pytest.raises(ValueError):
            MTPLM(pretrained=pretrained, loader="a:b", device="cpu")
    assert given == [f"{home}/x", "./x", "org/name"]


def test_a_name_that_nobody_has_is_a_path_to_nothing():
    assert resolve("~nobody-of-that-name/x") == "~nobody-of-that-name/x"
    with pytest.raises(FileNotFoundError, match="~nobody-of-that-name/a/x does not exist"):
        detect("~nobody-of-that-name/a/x")


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_data_folders(home, monkeypatch, how):
    row = dict.fromkeys(humaneval.KEYS, "text")
    path = write(home / "data" / "HumanEval.jsonl", [row])
    other = write(home / "data" / "x.jsonl", [{}])
    monkeypatch.setenv("MTP_HARNESS_DATA", "~/data" if how == "variable" else "")
    given = "~/data" if how == "argument" else None
    assert humaneval.find_file(given) == path
    assert sources.find_here(sources.Source("X", ("x.jsonl",), "a/b", "*"), given) == [other]
    assert problem({"data_dir": "~/data"}, {"t": ["data_dir"]}) is None
    assert main(["data", "check", "humaneval_mtp", *(["--data-dir", given] if given else [])]) == 0


def test_texts_and_stories(home):
    story = "Once, Mia went out. There was Mia, and then Mia ran. But Mia, she sang."
    (home / "texts").mkdir()
    (home / "texts" / "a.txt").write_text(story)
    assert texts.load(folder="~/texts")["test"][0]["text"] == story
    found = induction_texts.load(stories="~/texts", n_texts=1)["test"]
    assert {row["source"] for row in found} >= {"folder texts"}


def test_suite(home):
    content = {"models": [{"label": "a"}], "tasks": ["t"], "output": "~/out", "include_path": "~/t"}
    suite = make_suite(content, "name", "where")
    assert (suite.output, suite.include_path) == (home / "out", f"{home}/t")


def test_suite_file_and_its_output(home, capsys):
    content = {"models": [{"label": "a"}], "tasks": ["mtp_heads"], "settings": {"limit": 1}}
    (home / "suite.yaml").write_text(json.dumps(content))
    assert main(["run", "~/suite.yaml", "-o", "~/out", "--dry-run"]) == 0
    assert f"--output_path {home}/out/a/mtp_heads" in capsys.readouterr().out


def test_evaluation_pipeline(home):
    (home / "config.yaml").write_text("output: ~/out\nnothing: 1\n")
    with pytest.raises(ValueError, match="config has the unknown key nothing"):
        run_evaluation_pipeline("~/config.yaml", None, "~/model")


def test_checkpoint_of_a_result(home):
    (home / "model").mkdir()
    config = {"n_future_tokens": 2, "num_hidden_layers": 4, "hidden_size": 8}
    (home / "model" / "config.json").write_text(json.dumps(config))
    file = ResultFile(home / "r", "r", "", {"config": {"mtp": {"pretrained": "~/model"}}})
    assert architecture_of(file) is not None


@pytest.mark.parametrize(
    "command",
    [
        "figures ~/results -o ~/out",
        "leaderboard ~/results -o ~/out/file",
        "report ~/results -o ~/out/file",
        "passk ~/results --json ~/out/file",
    ],
)
def test_results_and_outputs(home, command):
    judged = [[{"text": "pass", "verdict": {"outcome": "pass"}}]] * 3
    write_run(home / "results", answers=judged)
    assert main(command.split()) == 0
    assert list((home / "out").iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "grade ~/x",
        "rouge ~/x",
        "choice ~/x",
        "demo ~/x",
        "export ~/x --format speculation-profile",
        "convert ~/x ~/y",
        "inspect ~/x",
        "verify ~/x",
        "measure ~/x",
        "train ~/out --data ~/x",
    ],
)
def test_places_that_are_not_there_are_named_in_full(home, capsys, command):
    assert main(command.split()) == 2
    assert f"{home}/x" in capsys.readouterr().err


def test_numbers_of_a_measurement(home, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda args: {"n": 1})
    monkeypatch.setattr(measure, "screen", lambda found: "")
    assert main(["measure", "mtp-bytes-n4", "-o", "~/new/m.json"]) == 0
    assert json.loads((home / "new" / "m.json").read_text()) == {"n": 1}


def test_store_of_mlflow(home):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    assert Store("sqlite:///~/mlflow.db", "e").uri == f"sqlite:///{home}/mlflow.db"
    assert (home / "mlflow.db").is_file()
