"""`make check-real`, on a small random checkpoint: each check runs, and says one line."""

import pytest
import torch

from .benchmarks import check_real
from .models.byte_families import write_bytes


@pytest.mark.slow
def test_a_random_module_fails_as_untrained_and_decodes_all_the_same(tmp_path, monkeypatch, capsys):
    own, short = check_real.ran, {"64": "8", "1,4": "2"}

    def ran(*words):
        limit = ("--limit", "2") if words[0] == "lm_eval" else ()
        return own(*(short.get(word, word) for word in words), *limit)

    monkeypatch.setattr(check_real, "ran", ran)
    assert check_real.main([write_bytes(tmp_path, "mimo", dtype=torch.float32)]) == 1
    inspected, heads, verified = capsys.readouterr().out.splitlines()
    assert inspected.startswith("fail  inspect --probe  head 1: ")
    assert heads.startswith("fail  mtp_heads        first draft agrees with head 1: code 0.")
    assert verified.startswith("pass  verify           identical: all ")


def test_what_stops_a_check_is_its_line(monkeypatch, capsys):
    """A table that was begun is not a verdict."""
    told = {"inspect": "", "lm_eval": "", "verify": "batch   k    answers"}
    monkeypatch.setattr(check_real, "ran", lambda word, *_: (2, told[word], ["cannot be read"]))
    assert check_real.main(["x"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"fail  {name:16} cannot be read" for name in ("inspect --probe", "mtp_heads", "verify")
    ]
