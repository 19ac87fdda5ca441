"""`mtp-harness demo` on a real run, and `mtp-harness measure` on a small piece of the corpus."""

import json
import subprocess
import sys
from operator import truediv

import pytest

from mtp_harness.commands import demo, measure
from mtp_harness.probes.windows import windows

RUN = "--model mtp --tasks humaneval_mtp --limit 2 --log_samples --gen_kwargs max_gen_toks=40"


@pytest.mark.slow
def test_demo_compares_a_run_with_plain_decoding(tmp_path, monkeypatch, capsys):
    command = [sys.executable, "-m", "lm_eval", *RUN.split(), "--output_path", str(tmp_path)]
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True)
    monkeypatch.setattr(demo, "WINDOWS", 1)
    monkeypatch.setattr(demo, "WINDOW", 256)
    assert demo.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "pass@1                   0 of 2" in shown
    assert "text identical to NTP    2 of 2" in shown
    assert "tokens/s, 2 prompts one by one" in shown

    # An answer that plain decoding does not give must show.
    [path] = tmp_path.rglob("samples_humaneval_mtp_*.jsonl")
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    samples[0]["resps"][0][0] += "x"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    demo.main([str(tmp_path)])
    assert "text identical to NTP    1 of 2" in capsys.readouterr().out


def test_demo_of_a_drafter_names_it_and_reads_no_more_than_the_context(
    shared_data, tmp_path, monkeypatch, capsys
):
    data = shared_data / "drafters"
    if not data.is_dir():
        pytest.skip(f"needs {data}")
    trunk, drafter = str(data / "trunk"), str(data / "medusa")
    mtp = {"pretrained": trunk, "drafter": drafter, "n_future_tokens": 4}
    mtp |= {"draft_heads": 4, "dtype": "float32", "device": "cpu"}
    part = {"results": {demo.TASK: {}}, "configs": {demo.TASK: {}}}
    (tmp_path / "results_1.json").write_text(
        json.dumps(part | {"config": {"model": "mtp", "mtp": mtp}})
    )
    asked = {"arg_0": "t7 t9 t30", "arg_1": {"max_gen_toks": 6, "until": []}}
    sample = {"doc_id": 0, "arguments": {"gen_args_0": asked}, "resps": [["x"]], "pass@1": 0}
    (tmp_path / f"samples_{demo.TASK}_1.jsonl").write_text(json.dumps(sample) + "\n")
    seen = []
    monkeypatch.setattr(demo, "WINDOWS", 1)
    monkeypatch.setattr(
        "mtp_harness.probes.windows.windows", lambda *asked: seen.append(asked) or windows(*asked)
    )
    assert demo.main([str(tmp_path)]) == 0
    assert f"{trunk} with {drafter}, 4 heads, greedy" in capsys.readouterr().out
    assert seen[0][3] == 1024


def test_demo_without_a_run_says_which_command_makes_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="--tasks humaneval_mtp --log_samples"):
        demo.main([str(tmp_path)])


def test_demo_of_another_model(tmp_path):
    (tmp_path / "results_1.json").write_text(
        json.dumps({"results": {"t": {}}, "configs": {"t": {}}, "config": {"model": "hf"}})
    )
    with pytest.raises(ValueError, match="not a run of --model mtp"):
        demo.main([str(tmp_path)])


def test_measure_prints_a_table_of_what_it_writes(tmp_path, capsys):
    sizes = "--windows 2 --window 128 --prompts 2 --prompt-tokens 32 --new-tokens 24 --batch 2"
    out = tmp_path / "new" / "numbers.json"
    arguments = ["mtp-bytes-n4", *sizes.split(), "--device", "cpu", "-o", str(out)]
    assert measure.main(arguments) == 0
    found = json.loads(out.read_text())
    assert found["heads"]["n_states"] == 2 * (128 - 4)
    by_k = found["decoding"]["by_k"]
    assert [row["identical_to_ntp"] for row in by_k.values()] == [2] * 4
    assert by_k["1"]["tokens_per_forward"] == 1.0
    cells = {line[:34].strip(): line[34:].split() for line in capsys.readouterr().out.splitlines()}
    assert cells["accuracy"] == [f"{one:.3f}" for one in found["heads"]["accuracy"]]
    assert cells["answers identical to NTP"] == ["2/2"] * 4
    for k, row in by_k.items():
        seconds = sorted(row["wall_s_trials"])
        n_tokens = round(row["tokens_per_s"] * seconds[1])  # the median of three
        low, high = (round(n_tokens / one) for one in (seconds[2], seconds[0]))
        assert cells["lowest to highest of 3 trials"][int(k) - 1] == f"{low}-{high}"
        ratios = map(truediv, by_k["1"]["wall_s_trials"], row["wall_s_trials"])
        assert row["speedup"] == sorted(ratios)[1]


@pytest.mark.parametrize(
    "argument",
    ["--windows 0", "--window 0", "--prompts 0", "--batch 0", "--window 5000", "--trials 0"],
)
def test_measure_refuses_sizes_that_cannot_be(argument):
    with pytest.raises(ValueError, match=argument):
        measure.main(["mtp-bytes-n4", *argument.split(), "--device", "cpu"])
