"""What a results file says about where its numbers come from."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from mtp_harness import __version__
from mtp_harness.models import provenance


def test_versions_are_those_of_the_running_packages():
    found = provenance.versions()
    assert found["mtp_harness"] == __version__
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]  # "+cu130": some builds
    assert set(found) == {"mtp_harness", "python", *provenance.PACKAGES}


def test_packages_that_are_absent_are_left_out(monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(provenance, "version", absent)
    assert set(provenance.versions()) == {"mtp_harness", "python"}


def test_command_can_be_typed_again(monkeypatch):
    typed = ["/usr/bin/lm_eval", "--model_args", "pretrained=a b,x='1'", "--gen_kwargs", '{"a":1}']
    monkeypatch.setattr(sys, "argv", typed)
    assert shlex.split(provenance.command()) == ["lm_eval", *typed[1:]]
    monkeypatch.setattr(sys, "argv", [""])
    assert provenance.command() == "python"


def test_hardware_on_the_cpu():
    found = provenance.hardware(torch.device("cpu"))
    assert found["cpu"] and found["cores"] >= 1 and "gpu" not in found
    assert found["threads"] == torch.get_num_threads()


def test_weights_hash_covers_all_weight_files(tmp_path, monkeypatch):
    assert provenance.weights_sha256(tmp_path) is None
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "config.json").write_bytes(b"{}")
    assert provenance.weights_sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()
    (tmp_path / "config.json").write_bytes(b"changed")
    assert provenance.weights_sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()
    monkeypatch.setattr(provenance, "LARGEST_HASHED_BYTES", 6)
    assert provenance.weights_sha256(tmp_path) is not None
    monkeypatch.setattr(provenance, "LARGEST_HASHED_BYTES", 5)
    assert provenance.weights_sha256(tmp_path) is None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The module as if it lay in a git checkout of its own."""
    (tmp_path / "mtp_harness" / "models").mkdir(parents=True)
    module = tmp_path / "mtp_harness" / "models" / "provenance.py"
    module.write_text("# tracked\n")
    monkeypatch.setattr(provenance, "__file__", str(module))
    return tmp_path


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_git_revision_is_none_outside_a_checkout(checkout):
    assert provenance.git_revision() is None


def test_git_revision_marks_changed_files(checkout):
    git(checkout, "init", "-q")
    assert provenance.git_revision() is None  # no commit yet
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "one")
    head = git(checkout, "rev-parse", "HEAD")
    assert provenance.git_revision() == head and len(head) == 40
    (checkout / "untracked").write_text("x")
    assert provenance.git_revision() == head
    (checkout / "mtp_harness" / "models" / "provenance.py").write_text("# changed\n")
    assert provenance.git_revision() == head + "+dirty"


@pytest.mark.parametrize(("load", "said"), [(0.3, False), (2.4, False), (2.6, True)])
def test_a_busy_machine_is_named(monkeypatch, load, said):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0, 0))
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    assert (provenance.busy() or "").startswith(f"note: the machine is busy (load {load}") == said


RECORD = {"curve": [{"tokens": 5, "step": 1}, {"tokens": 10, "step": 2}], "recipe": {"seed": 3}}


def test_what_the_trainer_wrote_down_is_read(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(RECORD))
    assert provenance.trained(tmp_path) == {"train_tokens": 10, "train_step": 2, "train_seed": 3}


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", "{}", '{"curve": []}', json.dumps(RECORD | {"recipe": {"seed": "3"}})],
)
def test_another_program_s_record_says_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "training.json").write_text(content)
    assert provenance.trained(tmp_path) == {}
