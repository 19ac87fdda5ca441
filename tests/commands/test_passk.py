"""`mtp-harness passk`: what models are called, what is left out (numbers: `test_code_runs`)."""

from mtp_harness.cli import main

from ..leaderboard.result_files import write_run

RIGHT = [[{"text": "", "verdict": {"outcome": "pass"}}]] * 3


def test_models_whose_names_end_alike_are_two_rows(tmp_path, capsys):
    for run in ("run1", "run2"):
        write_run(tmp_path / f"__ckpt__{run}__7B", answers=RIGHT).unlink()  # samples alone
    assert main(["passk", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["run1/7B", "run2/7B"]


def test_a_problem_that_is_not_judged_at_one_temperature_is_left_out(tmp_path, capsys):
    failed = [*RIGHT[:2], [{"text": "", "verdict": {"outcome": "error"}}]]
    for place, (t, answers) in enumerate({0.2: RIGHT, 0.8: failed}.items()):
        how = {"until": [], "max_gen_toks": 9, "do_sample": True, "temperature": t}
        stamp = f"2026-01-02T03-04-05.00000{place}"
        write_run(tmp_path / "m", answers=answers, generation=how, stamp=stamp)
    assert main(["passk", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "at the best of T=0.2, 0.8, which several" in line and line.endswith("n=1, 2 problems")
