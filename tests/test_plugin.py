"""How lm_eval gets our model, our tasks and our checks (in this process, with small stand-ins)."""

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lm_eval.api import registry
from lm_eval.api.registry import Registry
from lm_eval.models import MODEL_MAPPING
from lm_eval.tasks import TaskManager

from mtp_harness import _startup, cli, plugin, tasks_dir
from mtp_harness.errors import UserError
from mtp_harness.harness import checks, task_index
from mtp_harness.sandbox.consent import consent_given

CHECKOUT = Path(__file__).resolve().parents[1]


# ---------------------------------------------------------------- the model's name


@pytest.fixture
def models(monkeypatch):
    """A registry with the built-in names, as it is once `lm_eval.models` has run."""
    fresh = Registry("model")
    for name, target in MODEL_MAPPING.items():
        fresh.register(name, target=target)
    monkeypatch.setattr(registry, "model_registry", fresh)
    return fresh


def test_model_is_added_lazily_beside_all_built_in_ones(models):
    plugin.add_model(SimpleNamespace())
    assert set(models.keys()) == {*MODEL_MAPPING, "mtp", "mtp-vllm"}
    assert dict(models.items())["mtp"] == "mtp_harness.lm:MTPLM"


def test_model_is_added_once(models):
    plugin.add_model(SimpleNamespace())
    plugin.add_model(SimpleNamespace())


def test_model_is_left_to_an_lm_eval_that_reads_entry_points(models, monkeypatch):
    monkeypatch.setattr(registry, "import_plugins", lambda names: None, raising=False)
    monkeypatch.setattr(
        plugin.importlib.metadata, "entry_points", lambda **query: [("lm_eval.models", query)]
    )
    plugin.add_model(SimpleNamespace())
    assert "mtp" not in models


def test_model_is_added_where_the_entry_point_cannot_be_seen(models, monkeypatch):
    monkeypatch.setattr(registry, "import_plugins", lambda names: None, raising=False)
    monkeypatch.setattr(plugin.importlib.metadata, "entry_points", lambda **query: [])
    plugin.add_model(SimpleNamespace())
    assert "mtp" in models


# ---------------------------------------------------------------- the tasks


@pytest.fixture
def manager():
    """A module with a TaskManager of the real signature, which records the folders it reads."""

    class Manager:
        def __init__(self, verbosity=None, include_path=None, include_defaults=True, metadata=None):
            self.read = include_path
            self.include_path = include_path
            self.metadata = metadata

    module = SimpleNamespace(TaskManager=Manager)
    plugin.add_tasks(module)
    plugin.add_tasks(module)  # a second time changes nothing
    return module.TaskManager


def test_stand_in_has_the_real_signature():
    real = inspect.signature(getattr(TaskManager.__init__, "mtp_harness_original", TaskManager))
    assert {"include_path", "include_defaults"} <= set(real.parameters)


def test_our_tasks_are_read(manager):
    assert manager().read == [tasks_dir()]


@pytest.mark.parametrize("given", ["mine", Path("mine"), ["mine"], ("mine",)])
def test_our_tasks_are_read_before_the_users(manager, given):
    user_folder = given if isinstance(given, str | Path) else given[0]
    assert manager(include_path=given).read == [tasks_dir(), user_folder]


def test_the_users_include_path_stays_what_it_was(manager):
    assert manager(None, "mine", metadata={"a": 1}).include_path == "mine"
    assert manager().include_path is None


def test_our_folder_named_by_the_user_is_read_once(manager):
    assert manager(include_path=str(tasks_dir())).read == [str(tasks_dir())]


def test_our_tasks_are_not_read_without_the_defaults(manager):
    assert manager(include_path="mine", include_defaults=False).read == "mine"


def test_changed_task_manager_is_left_alone():
    class Manager:
        def __init__(self, folders):
            self.folders = folders

    with pytest.raises(TypeError, match="no parameter include_path, include_defaults"):
        plugin.add_tasks(SimpleNamespace(TaskManager=Manager))
    assert Manager("x").folders == "x"


# ---------------------------------------------------------------- the checks

TASK_CLASSES = """
from lm_eval.api.task import ConfigurableTask

class Grading(ConfigurableTask):
    grades_programs = True
    def __init__(self, config=None):
        raise AssertionError("a check built the task")

class Probe(ConfigurableTask):
    request_type = "head_logprobs"
"""

YAMLS = {
    "grading": "task: t_grading\ntag: t_tag\nclass: !function classes.Grading\n",
    "based": "include: grading.yaml\ntask: t_based\n",
    "probe": "task: t_probe\nclass: !function classes.Probe\n",
    "plain": "task: t_plain\noutput_type: generate_until\n",
    "group": "group: t_group\ntask:\n  - t_plain\n  - t_grading\n",
    "settings": "group: t_settings\ntask:\n  - task: t_based\n    repeats: 2\n",
    "inline": "group: t_inline\ntask:\n  - group: within\n    task: [t_plain, t_grading]\n",
    "nested": "group: t_nested\ntask: [t_group]\n",
    "broken": "task: t_broken\nclass: !function classes.Missing\n",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.py").write_text(TASK_CLASSES)
    for name, text in YAMLS.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.fixture
def task_manager(folder):
    return TaskManager(include_path=str(folder), include_defaults=False)


@pytest.fixture
def isolation(monkeypatch):
    """The sandbox's answer to the self-test; its `asked` counts how often it ran."""
    from mtp_harness.sandbox import IsolationReport

    report = IsolationReport(False, "process", detail="no namespaces")
    state = SimpleNamespace(report=report, asked=0)

    def self_test():
        state.asked += 1
        return state.report

    monkeypatch.setattr("mtp_harness.sandbox.self_test", self_test)
    return state


def check(task_manager, *tasks, **flags):
    checks.check_before_load(
        model=flags.pop("model", "dummy"), tasks=list(tasks), task_manager=task_manager, **flags
    )


@pytest.mark.parametrize(
    "task",
    ["t_grading", "t_based", "t_tag", "t_group", "t_settings", "t_inline", "t_nested"],
)
def test_grading_is_refused_before_the_model_loads(task_manager, isolation, task):
    with pytest.raises(UserError, match="--confirm_run_unsafe_code") as refusal:
        check(task_manager, task)
    sentence = str(refusal.value)
    assert "\n" not in sentence and "(no namespaces)" in sentence
    assert ("t_based" if task in ("t_based", "t_settings") else "t_grading") in sentence


def test_grading_is_found_through_files_configurations_and_built_tasks(
    folder, task_manager, isolation
):
    class Built:
        grades_programs = True
        task_name = "built"

    yaml = str(folder / "grading.yaml")
    for task in (yaml, {"task": "x", "class": Built}, {"task": "t_grading"}, Built()):
        with pytest.raises(UserError):
            check(task_manager, task)


@pytest.mark.parametrize("flag", ["predict_only", "confirm_run_unsafe_code"])
def test_no_isolation_is_asked_for(task_manager, isolation, flag):
    check(task_manager, "t_grading", **{flag: True})
    assert isolation.asked == 0


def test_runs_that_grade_nothing_never_test_the_sandbox(task_manager, isolation):
    check(task_manager, "t_plain", "not_a_task")
    assert isolation.asked == 0


def test_isolated_grading_needs_no_flag(task_manager, isolation):
    isolation.report = dataclasses.replace(isolation.report, sufficient=True)
    check(task_manager, "t_grading")
    assert isolation.asked == 1


def test_model_without_the_request_type_is_refused(task_manager):
    with pytest.raises(UserError, match="head_logprobs.*'dummy'.*--model mtp"):
        check(task_manager, "t_probe")
    with pytest.raises(UserError, match="SimpleNamespace"):
        check(task_manager, "t_probe", model=SimpleNamespace())


def test_model_with_the_request_type_is_accepted(task_manager):
    check(task_manager, "t_probe", model=SimpleNamespace(head_logprobs=len))


def test_cache_of_requests_is_refused_for_our_tasks_only(folder, task_manager, monkeypatch):
    check(task_manager, "t_plain", cache_requests=True)
    monkeypatch.setattr(task_index, "tasks_dir", lambda: folder)
    with pytest.raises(UserError, match="--cache_requests cannot be used with t_plain"):
        check(task_manager, "t_plain", cache_requests=True)


def test_tasks_that_cannot_be_looked_at_stop_no_run(task_manager, isolation, caplog):
    check(task_manager, "t_broken")
    check(object(), "t_plain")
    assert caplog.text.count("could not look at the tasks") == 2


def test_refusal_is_one_sentence_on_the_command_line():
    code = "from mtp_harness.errors import UserError; raise UserError('One sentence.')"
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "One sentence.\n")


# ---------------------------------------------------------------- the wrapped entry


@pytest.fixture
def evaluator():
    """A module with a `simple_evaluate` that notes the consent it runs under."""

    def simple_evaluate(
        model,
        model_args=None,
        tasks=None,
        cache_requests=False,
        rewrite_requests_cache=False,
        task_manager=None,
        predict_only=False,
        confirm_run_unsafe_code=False,
        metadata=None,
        evaluation_tracker=None,
        log_samples=True,
    ):
        evaluator.seen.append((model, consent_given()))
        if model == "failing":
            raise RuntimeError
        return evaluator.returned

    evaluator = SimpleNamespace(
        returned="results",
        simple_evaluate=simple_evaluate,
        evaluate=lambda lm, task_dict: None,
        seen=[],
    )
    plugin.add_checks(evaluator)
    plugin.add_checks(evaluator)  # a second time changes nothing
    return evaluator


def test_consent_reaches_the_run_and_ends_with_it(evaluator, task_manager):
    run = evaluator.simple_evaluate
    assert run("m", tasks=["t_plain"], task_manager=task_manager) == "results"
    run("m", None, ["t_plain"], task_manager=task_manager, confirm_run_unsafe_code=True)
    with pytest.raises(RuntimeError):
        run("failing", None, ["t_plain"], False, False, task_manager, False, True)
    run("m", tasks=["t_plain"], task_manager=task_manager)
    assert [consent for _, consent in evaluator.seen] == [False, True, True, False]
    assert not consent_given()


def test_refused_run_never_starts(evaluator, task_manager, isolation):
    with pytest.raises(ValueError):
        evaluator.simple_evaluate("m", tasks=["t_grading"], task_manager=task_manager)
    with pytest.raises(ValueError):
        evaluator.simple_evaluate(
            "dummy", tasks=["t_probe"], task_manager=task_manager, rewrite_requests_cache=True
        )
    assert evaluator.seen == []


def test_a_misspelt_model_of_ours_is_one_sentence(evaluator):
    with pytest.raises(UserError, match="no --model mpt; did you mean mtp?"):
        evaluator.simple_evaluate("mpt")
    assert evaluator.seen == []


def test_our_model_is_known_before_the_registry_is_filled(evaluator, monkeypatch):
    monkeypatch.setattr(plugin, "_known_models", set)
    evaluator.simple_evaluate("mtp")
    assert [model for model, _ in evaluator.seen] == ["mtp"]


def test_changed_simple_evaluate_is_left_alone():
    evaluator = SimpleNamespace(simple_evaluate=lambda model: model)
    with pytest.raises(TypeError, match="no parameter tasks"):
        plugin.add_checks(evaluator)
    assert evaluator.simple_evaluate("m") == "m"


def test_real_simple_evaluate_refuses_before_it_loads(task_manager, isolation, monkeypatch):
    import lm_eval.evaluator
    from lm_eval.models.dummy import DummyLM

    monkeypatch.setattr(lm_eval.evaluator, "simple_evaluate", lm_eval.evaluator.simple_evaluate)
    plugin.add_checks(lm_eval.evaluator)
    monkeypatch.setattr(DummyLM, "create_from_arg_obj", lambda *args: pytest.fail("loaded"))
    with pytest.raises(UserError):
        lm_eval.simple_evaluate(
            model="dummy", model_args={}, tasks=["t_grading"], task_manager=task_manager
        )


# ---------------------------------------------------------------- the command line's ending


@pytest.fixture
def command(evaluator):
    """A stand-in for the harness's command, which calls `simple_evaluate` with what a test sets."""

    class Run:
        @staticmethod
        def _execute(args):
            if args.fails:
                raise ValueError(args.fails)
            evaluator.simple_evaluate("m", log_samples=False, evaluation_tracker=args.tracker)

    plugin.add_closing(SimpleNamespace(Run=Run))
    plugin.add_closing(SimpleNamespace(Run=Run))
    return Run()._execute  # bound as the harness binds it


@pytest.mark.parametrize(("model", "lines"), [("mtp", 2), ("hf", 0)])
def test_a_run_of_our_model_ends_with_its_scores(command, evaluator, capsys, model, lines):
    evaluator.returned = {
        "config": {"model": model},
        "results": {"t": {"acc,none": 0.25, "acc_stderr,none": 0.125}},
    }
    command(SimpleNamespace(fails=None, tracker=SimpleNamespace(output_path="out")))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines
    assert not lines or (said[0] == "t     acc 0.250 ± 0.125" and "report out" in said[1])


def test_a_rank_without_results_says_nothing(command, evaluator, capsys):
    evaluator.returned = None
    command(SimpleNamespace(fails=None, tracker=None))
    assert capsys.readouterr().out == ""


def test_a_misspelt_task_of_ours_is_one_sentence(command):
    with pytest.raises(UserError, match="no task humanevl_mtp, x; did you mean humaneval_mtp?"):
        command(SimpleNamespace(fails="Tasks not found: humanevl_mtp, x"))
    for other in ("Tasks not found: qqqq", "something else"):
        with pytest.raises(ValueError, match=other) as caught:
            command(SimpleNamespace(fails=other))
        assert not isinstance(caught.value, UserError)


def test_the_harness_has_what_the_ending_hooks_into():
    from lm_eval._cli.run import Run

    assert isinstance(inspect.getattr_static(Run, "_execute"), staticmethod)


# ---------------------------------------------------------------- the start-up file

START_UP = (CHECKOUT / "mtp_harness.pth").read_text()

FAKE_HARNESS = {
    "lm_eval/__init__.py": "",
    "lm_eval/models.py": "names = ['built-in']",
    "lm_eval/tasks/__init__.py": "from lm_eval.tasks.manager import folders",
    "lm_eval/tasks/manager.py": "folders = []",
    "lm_eval/evaluator.py": "",
}
FAKE_PLUGIN = """
def add_model(module): module.names.append("mtp")
def add_tasks(module): module.folders.append("ours")
def add_checks(module): raise RuntimeError("by design")
"""


def python(path, code, **environ):
    """Run `code` after the start-up file's line, as Python's `site` does, with `path` in front."""
    code = f"import sys; sys.path[:0] = {list(map(str, path))!r}\n{START_UP}\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, env=environ
    )


@pytest.fixture
def harness(tmp_path):
    """A folder with a stand-in for lm_eval, and one with our start-up module and a stand-in."""
    files = {f"harness/{name}": text for name, text in FAKE_HARNESS.items()}
    files["ours/mtp_harness/__init__.py"] = ""
    files["ours/mtp_harness/plugin.py"] = FAKE_PLUGIN
    files["ours/mtp_harness/_startup.py"] = Path(_startup.__file__).read_text()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


READ_HARNESS = """
import lm_eval.models, lm_eval.tasks, lm_eval.evaluator
print(lm_eval.models.names, lm_eval.tasks.folders)
"""


def test_start_up_file_is_one_line_that_site_executes():
    assert START_UP.startswith("import ") and START_UP.count("\n") == 1


def test_start_up_reads_nothing_where_the_harness_is_not_used(harness):
    run = python(
        [harness / "ours"], "import json; print([m for m in sys.modules if 'mtp_harness' in m])"
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_start_up_adds_what_each_module_needs_and_logs_what_fails(harness):
    run = python([harness / "harness", harness / "ours"], READ_HARNESS)
    assert run.stdout == "['built-in', 'mtp'] ['ours']\n"
    assert run.stderr.startswith("mtp_harness could not add itself to lm_eval.evaluator (Runtime")
    assert run.stderr.count("\n") == 1


def test_start_up_is_off_with_the_switch_but_install_still_works(harness):
    path = [harness / "harness", harness / "ours"]
    run = python(path, READ_HARNESS, MTP_HARNESS_NO_AUTOLOAD="1")
    assert (run.stdout, run.stderr) == ("['built-in'] []\n", "")
    code = (
        f"import lm_eval.models; from mtp_harness import _startup; _startup.install(){READ_HARNESS}"
    )
    run = python(path, code, MTP_HARNESS_NO_AUTOLOAD="1")
    assert run.stdout == "['built-in', 'mtp'] ['ours']\n"


@pytest.mark.parametrize("breakage", ["nothing", "no package", "cut", "empty"])
def test_broken_install_stops_nothing(harness, breakage):
    start_up = harness / "ours/mtp_harness/_startup.py"
    path = [harness / "harness", harness / "ours"]
    if breakage == "no package":
        path.pop()
    elif breakage != "nothing":
        start_up.write_text(start_up.read_text()[: 1500 if breakage == "cut" else 0])
    assert python(path, "print(1)").stdout == "1\n"
    run = python(path, READ_HARNESS)
    ours = breakage == "nothing"
    assert run.stdout == ("['built-in', 'mtp'] ['ours']\n" if ours else "['built-in'] []\n")
    assert bool(run.stderr) == ours  # the stand-in's failing hook


def test_hooked_modules_keep_their_own_loader(harness):
    code = """
import inspect, lm_eval.models
from importlib.machinery import SourceFileLoader
print(type(lm_eval.models.__loader__) is SourceFileLoader, inspect.getsource(lm_eval.models))
"""
    run = python([harness / "harness", harness / "ours"], code)
    assert run.stdout.strip() == "True names = ['built-in']"


# ---------------------------------------------------------------- the command


def test_help_names_every_command_and_imports_no_torch():
    code = (
        "import sys; from mtp_harness.cli import main\n"
        "try: main(['--help'])\n"
        "finally: sys.stderr.write(str({'torch', 'lm_eval'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "set()"
    assert all(f"  {name} " in run.stdout for name in cli.COMMANDS)


def test_command_prints_the_tasks_folder(capsys):
    assert cli.main(["tasks-dir"]) == 0
    assert Path(capsys.readouterr().out.strip()) == tasks_dir()


@pytest.mark.parametrize("error", [ValueError("a\n  b"), FileNotFoundError("a b")])
def test_command_ends_with_one_line_for_the_user(monkeypatch, capsys, error):
    def failing(argv):
        assert argv == ["x", "--help"]
        raise error

    monkeypatch.setattr("mtp_harness.commands.tasks_dir.main", failing)
    assert cli.main(["tasks-dir", "x", "--help"]) == 2
    assert capsys.readouterr().err == "mtp-harness tasks-dir: a b\n"


def test_unknown_command_names_the_known_ones(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["inspct"])
    assert "'inspect'" in capsys.readouterr().err
