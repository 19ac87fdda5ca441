"""Real processes on a built wheel: what a user types after `pip install`, and after worse.

Each environment is empty but for our wheel. One `.pth` line adds the packages of the running
Python, whose own `.pth` files are not read there: an editable install of ours cannot leak in.
"""

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from lm_eval.models import MODEL_MAPPING

# The environments are dear: one worker builds them and runs all of this file.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packaging")]

CHECKOUT = Path(__file__).resolve().parents[1]
STRAYS = ("MTP_HARNESS_NO_AUTOLOAD", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")

needs_model = pytest.mark.skipif(
    not (CHECKOUT / "mtp_harness/lm.py").exists()
    or not any((CHECKOUT / "tasks").rglob("humaneval*.yaml")),
    reason="needs mtp_harness/lm.py and the task humaneval_mtp",
)

# A task of the user's, with documents in a file beside it: needs no network and no package of ours.
USER_TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: DOCUMENTS}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: 0
"""
GRADING_TASK = """
task: graded_capitals
class: !function classes.Graded
"""
GRADING_CLASS = """
from lm_eval.api.task import ConfigurableTask

class Graded(ConfigurableTask):
    grades_programs = True
"""


class Environment:
    """A virtual environment and a folder to run in."""

    def __init__(self, root: Path):
        self.root = root
        self.python = root / "bin/python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = root / "lib" / version / "site-packages"

    @classmethod
    def create(cls, root: Path) -> "Environment":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
        self = cls(root)
        (self.site / "packages_of_the_running_python.pth").write_text(
            "\n".join(site.getsitepackages()) + "\n"
        )
        # The script that installing lm_eval makes; only its packages are here, not its scripts.
        script = root / "bin/lm_eval"
        script.write_text(
            f"#!{self.python}\nimport sys\nfrom lm_eval.__main__ import cli_evaluate\n"
            "sys.exit(cli_evaluate())\n"
        )
        script.chmod(0o755)
        return self

    def install(self, *what: str | Path) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        offline = ["--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed"]
        run = subprocess.run([*pip, *offline, *what], capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr

    def copy(self, root: Path) -> "Environment":
        shutil.copytree(self.root, root, symlinks=True)
        copied = Environment(root)
        script = root / "bin/lm_eval"
        script.write_text(script.read_text().replace(str(self.python), str(copied.python)))
        return copied

    def run(self, *command, folder, **environ):
        """Run a command of this environment in `folder`, offline and on the CPU."""
        kept = {name: value for name, value in os.environ.items() if name not in STRAYS}
        quiet = {
            "PATH": f"{self.root / 'bin'}{os.pathsep}{kept['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=kept | quiet | environ,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def lm_eval(self, *arguments, folder, **environ):
        return self.run("lm_eval", *arguments, folder=folder, **environ)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel, built from the sdist, as on a machine that has only that."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT]
    run = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    environment = Environment.create(tmp_path_factory.mktemp("installed") / "env")
    environment.install(wheel)
    return environment


@pytest.fixture
def folder(tmp_path):
    """Where a user works: a folder with a task, and nothing of ours."""
    documents = tmp_path / "documents.jsonl"
    rows = [{"question": f"Capital {i}?", "choices": ["a", "b"]} for i in range(3)]
    documents.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/capitals.yaml").write_text(USER_TASK.replace("DOCUMENTS", str(documents)))
    (tmp_path / "mine/graded.yaml").write_text(GRADING_TASK)
    (tmp_path / "mine/classes.py").write_text(GRADING_CLASS)
    return tmp_path


def results(folder):
    """The one results file below `folder`."""
    (path,) = folder.rglob("results_*.json")
    return json.loads(path.read_text())


DUMMY = ("--model", "dummy", "--tasks", "capitals", "--include_path", "mine", "-o", "out/")
OURS = ("--model", "mtp", "--tasks", "humaneval_mtp", "--limit", "2", "-o", "out/")
LOOK = """
import json, mtp_harness
from lm_eval.api.registry import get_model, model_registry
get_model("dummy")
print(json.dumps([mtp_harness.__file__, sorted(model_registry)]))
"""
# The same without reading the thousands of built-in tasks, which takes most of a short run.
EVALUATE = """
import lm_eval.models
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
tasks = TaskManager(include_path="mine", include_defaults=False)
run = simple_evaluate("dummy", model_args="", tasks=["capitals"], task_manager=tasks)
print(run["n-samples"]["capitals"]["effective"])
"""


# ---------------------------------------------------------------- what is in the wheel


def test_wheel_holds_the_package_the_tasks_and_the_start_up_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        path.relative_to(CHECKOUT)
        for top in ("mtp_harness", "tasks")
        for path in (CHECKOUT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {
        str(Path("mtp_harness") / path if path.parts[0] == "tasks" else path) for path in tracked
    } | {"mtp_harness.pth"}
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert names - metadata == expected


# ---------------------------------------------------------------- as typed


def test_built_in_models_are_all_still_there(installed, folder):
    run = installed.run("python", "-c", LOOK, folder=folder)
    assert run.returncode == 0, run.stderr
    file, names = json.loads(run.stdout)
    assert Path(file).is_relative_to(installed.site)
    assert set(names) == {*MODEL_MAPPING, "mtp", "mtp-vllm"}


@needs_model
def test_tasks_are_listed(installed, folder):
    run = installed.lm_eval("ls", "tasks", folder=folder)
    assert run.returncode == 0, run.stderr
    assert "humaneval_mtp" in run.stdout and "hellaswag" in run.stdout


@needs_model
@pytest.mark.parametrize("start", [["lm_eval"], ["python", "-m", "lm_eval"]], ids=" ".join)
def test_model_runs_as_typed(installed, folder, start):
    run = installed.run(*start, *OURS, folder=folder)
    assert run.returncode == 0, run.stderr
    assert results(folder)["n-samples"]["humaneval_mtp"]["effective"] == 2


@needs_model
def test_model_runs_under_torchrun(installed, folder):
    launch = ("python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    run = installed.run(
        *(*launch, "-m", "lm_eval", *OURS, "--log_samples"), folder=folder, ACCELERATE_USE_CPU="1"
    )
    assert run.returncode == 0, run.stderr
    assert results(folder)["n-samples"]["humaneval_mtp"]["effective"] == 2
    [samples] = folder.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert sorted(line["doc_id"] for line in lines) == [0, 1]
    assert all(line["n_answers"][0]["decode"]["n_kept"] > 0 for line in lines)


def test_other_models_run_as_before(installed, folder):
    save_tiny_llama(folder / "llama")
    run = installed.lm_eval(
        *("--model", "hf", "--model_args", "pretrained=llama", "--device", "cpu"),
        *("--tasks", "capitals", "--include_path", "mine", "-o", "out/"),
        folder=folder,
    )
    assert run.returncode == 0, run.stderr
    assert 0 <= results(folder)["results"]["capitals"]["acc,none"] <= 1


def save_tiny_llama(path):
    """Write a random Llama of a few thousand weights with a tokenizer of single characters."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {chr(code): code - 32 for code in range(32, 127)} | {"</s>": 95}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=95,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    fast.save_pretrained(path)


# ---------------------------------------------------------------- refused before the model loads


def test_refusal_is_one_sentence_without_a_traceback(installed, folder):
    blind = installed.copy(folder / "env")
    stub = (
        "class Report:\n"
        "    def require(self): raise RuntimeError('add --confirm_run_unsafe_code')\n"
        "def self_test(): return Report()\n"
    )
    sandbox = blind.site / "mtp_harness/sandbox/__init__.py"
    sandbox.write_text(sandbox.read_text() + stub)
    asked = ("--tasks", "graded_capitals", "--include_path", "mine")
    run = blind.lm_eval("--model", "dummy", *asked, folder=folder)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr and "Initializing dummy" not in run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert "graded_capitals" in last and "--confirm_run_unsafe_code" in last


# ---------------------------------------------------------------- other ways in, and out


def test_switched_off(installed, folder):
    run = installed.lm_eval(
        *("--model", "mtp", "--tasks", "capitals", "--include_path", "mine"),
        folder=folder,
        MTP_HARNESS_NO_AUTOLOAD="1",
    )
    assert run.returncode != 0 and "'mtp', but no model for this name found" in run.stderr


@needs_model
def test_own_command_needs_no_start_up_file(wheel, folder):
    target = folder / "target"
    bare = Environment.create(folder / "env")
    bare.install("--target", target, wheel)
    run = bare.run(
        *("python", "-m", "mtp_harness.cli", "lm_eval", *OURS),
        folder=folder,
        PYTHONPATH=str(target),
        MTP_HARNESS_NO_AUTOLOAD="1",
    )
    assert run.returncode == 0, run.stderr
    assert results(folder)["n-samples"]["humaneval_mtp"]["effective"] == 2


def test_editable_install(folder):
    editable = Environment.create(folder / "env")
    editable.install("--editable", CHECKOUT)
    run = editable.run("python", "-c", LOOK, folder=folder)
    assert run.returncode == 0, run.stderr
    file, names = json.loads(run.stdout)
    assert Path(file) == CHECKOUT / "mtp_harness/__init__.py" and "mtp" in names
    # A copy of the tasks in the environment would hide the checkout's.
    assert not (editable.site / "mtp_harness").exists()
    run = editable.run("mtp-harness", "tasks-dir", folder=folder)
    assert run.stdout.strip() == str(CHECKOUT / "tasks")


def test_uninstalling_takes_the_start_up_file_along(installed, folder):
    left = installed.copy(folder / "env")
    pip = (sys.executable, "-m", "pip", "--python", left.python)
    run = left.run(*pip, "uninstall", "--yes", "mtp-harness", folder=folder)
    assert run.returncode == 0, run.stderr
    assert not list(left.site.glob("mtp_harness*"))


# ---------------------------------------------------------------- a broken install


def cut(name):
    def damage(site_folder):
        path = site_folder / "mtp_harness" / name
        path.write_text(path.read_text()[:1700] + "\n(")  # wherever that falls, no Python

    return damage


def empty(name):
    return lambda site_folder: (site_folder / "mtp_harness" / name).write_text("")


def delete_package(site_folder):
    shutil.rmtree(site_folder / "mtp_harness")


@pytest.mark.parametrize(
    "damage",
    [
        cut("_startup.py"),
        empty("_startup.py"),
        cut("plugin.py"),
        empty("plugin.py"),
        delete_package,
    ],
    ids=["start-up cut", "start-up empty", "plugin cut", "plugin empty", "package deleted"],
)
def test_broken_install_stops_no_program(installed, folder, damage):
    broken = installed.copy(folder / "env")
    damage(broken.site)
    run = broken.run("python", "-c", "print(1)", folder=folder)
    assert (run.returncode, run.stdout, run.stderr) == (0, "1\n", "")
    run = broken.run("python", "-c", EVALUATE, folder=folder)
    assert (run.returncode, run.stdout) == (0, "3\n"), run.stderr


def test_broken_install_stops_no_run_of_the_harness(installed, folder):
    broken = installed.copy(folder / "env")
    cut("plugin.py")(broken.site)
    run = broken.lm_eval(*DUMMY, folder=folder)
    assert run.returncode == 0, run.stderr
    assert "acc,none" in results(folder)["results"]["capitals"]
    assert "mtp_harness could not add itself to lm_eval.tasks.manager (SyntaxError" in run.stderr


def test_start_up_costs_a_program_nothing_it_can_see(installed, folder):
    code = "import sys; print(len([name for name in sys.modules if name.startswith('mtp')]))"
    assert installed.run("python", "-c", code, folder=folder).stdout == "0\n"
