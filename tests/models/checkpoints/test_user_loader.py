"""`loader=module:function`: what it is given, what it may return, what is said when it fails."""

import sys

import pytest

from mtp_harness.models import MTPLlamaForCausalLM
from mtp_harness.models.checkpoints.user_loader import load_with

MODULE = """
from mtp_harness.models import MTPLlamaConfig, MTPLlamaForCausalLM

SEEN = []
NUMBER = 7

def load(pretrained):
    SEEN.append(pretrained)
    config = MTPLlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=3,
                            num_attention_heads=1, num_key_value_heads=1, n_future_tokens=2)
    return MTPLlamaForCausalLM(config)

def load_nothing(pretrained):
    return {"weights": pretrained}

def fail(pretrained):
    raise RuntimeError("my own trouble")

class Loaders:
    load = staticmethod(load)
"""


@pytest.fixture
def my_layout(tmp_path, monkeypatch):
    """A module in the current folder, importable by nothing but the loader's rule."""
    (tmp_path / "my_layout.py").write_text(MODULE)
    (tmp_path / "broken_layout.py").write_text("import no_such_library\n")
    (tmp_path / "misspelt_layout.py").write_text("def load(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("my_layout", "broken_layout", "misspelt_layout"):
        sys.modules.pop(name, None)


def refusal(spec):
    with pytest.raises(ValueError) as caught:
        load_with(spec, "x")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("pretrained", ["/ckpt/mine", None])
def test_function_of_the_current_folder_is_called_with_pretrained(my_layout, pretrained):
    model = load_with("my_layout:load", pretrained)
    assert isinstance(model, MTPLlamaForCausalLM) and model.n_future_tokens == 2
    assert sys.modules["my_layout"].SEEN == [pretrained]


def test_dotted_function(my_layout):
    assert load_with("my_layout:Loaders.load", None).n_future_tokens == 2


@pytest.mark.parametrize("spec", ["my_layout", "my_layout:", ":load", ""])
def test_malformed_spec(my_layout, spec):
    assert "expected module:function" in refusal(spec)


@pytest.mark.parametrize(
    ("spec", "facts"),
    [
        ("no_such_layout:load", ["No module named 'no_such_layout'"]),
        ("broken_layout:load", ["importing broken_layout", "No module named 'no_such_library'"]),
        ("misspelt_layout:load", ["SyntaxError"]),
        ("my_layout:lode", ["my_layout.py", "has no lode"]),
        ("my_layout:NUMBER", ["NUMBER is a int", "expected a function"]),
        ("my_layout:load_nothing", ["returned a builtins.dict", "expected a MultiHeadModel"]),
    ],
)
def test_what_is_wrong_is_said(my_layout, spec, facts):
    message = refusal(spec)
    assert all(fact in message for fact in facts), message


def test_the_functions_own_errors_pass_through(my_layout):
    with pytest.raises(RuntimeError, match="my own trouble"):
        load_with("my_layout:fail", None)
