"""What a start of vLLM writes, and the one sentence that a failed one ends in."""

import os
import subprocess
import sys
import time

import pytest

from mtp_harness.errors import UserError
from mtp_harness.harness.vllm_start import starting

ENGINE = r"""
import sys
print("(EngineCore pid=7) INFO loading", flush=True)
print("weights 50 %", end="\r", file=sys.stderr, flush=True)
sys.stderr.write('''(EngineCore pid=7) Process EngineCore:
(EngineCore pid=7) Traceback (most recent call last):
(EngineCore pid=7)   File "engine.py", line 1, in main
(EngineCore pid=7) ValueError: 3 GiB KV cache is needed, larger than 1 GiB.
(EngineCore pid=7) During handling of the above exception, another exception occurred:
(EngineCore pid=7) RuntimeError: it follows
''')
"""
FAILED = "Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def engine():
    subprocess.run([sys.executable, "-c", ENGINE], check=True)


def read_until(capfd, enough):
    """Return what was written; a thread passes it on, which may take a moment."""
    said, until = ("", ""), time.monotonic() + 30
    while not enough(*said):
        assert time.monotonic() < until, f"no more came through than {said}"
        time.sleep(0.01)
        said = tuple(a + b for a, b in zip(said, capfd.readouterr(), strict=True))
    return said


def test_the_reason_of_another_process_is_told_and_not_its_traceback(capfd):
    with (
        pytest.raises(UserError, match="vLLM 0.32 cannot load m: 3 GiB KV cache is needed, larger"),
        starting("m", "0.32"),
    ):
        engine()
        raise RuntimeError(FAILED)
    sys.stderr.write("afterwards\n")
    out, err = capfd.readouterr()
    assert "INFO loading" in out and "weights 50 %" in err and "afterwards" in err
    assert "Traceback" not in out + err


WORKER = r"""
import sys
log = "(VllmWorker-0 pid=8) ERROR 11-29 [executor.py:9] "
print(f"{log}CalledProcessError: Command 'a' returned non-zero exit status 1.")
print(f"{log}RuntimeError: Error raised in subprocess:")
print(f"{log}Traceback (most recent call last):\n{log}ValueError: 20 GiB are free, less than 21.")
sys.stderr.write("Traceback (most recent call last):\n")
sys.stderr.write("Exception: WorkerProc failed. See stack trace for root cause.\n")
"""


ODD = "Architectures ['A'] failed to be inspected. Please check the logs for more details."


@pytest.mark.parametrize("failed", [FAILED, "It failed. See stack trace for root cause.", ODD])
def test_the_reason_is_that_of_the_process_that_met_it_not_of_its_parent(capfd, failed):
    """Each of several GPUs has a worker, whose parent tells only that one of them failed."""
    with pytest.raises(UserError, match="m: 20 GiB are free, less than 21. Correct"):
        with starting("m", "0.32"):
            subprocess.run([sys.executable, "-c", WORKER], check=True)
            raise RuntimeError(failed)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_an_error_of_this_process_is_told_as_it_is():
    with pytest.raises(UserError, match="cannot load m: no such thing. Correct the model"):
        with starting("m", "0.32"):
            engine()
            raise ValueError("no such thing.")


def test_a_start_that_succeeds_shows_all_that_was_written(capfd):
    with starting("m", "0.32"):
        engine()
    out, err = read_until(capfd, lambda out, err: out and err.endswith("follows\n"))
    assert "INFO loading" in out and err.startswith("weights 50 %")


def test_processes_go_on_writing_after_the_start(capfd):
    wait = "import sys; sys.stdin.readline(); print('later', flush=True)"
    with starting("m", "0.32"):
        process = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE)
    process.communicate(b"\n")
    assert read_until(capfd, lambda out, err: out) == ("later\n", "")


def test_what_the_user_interrupts_is_no_error_of_vllm(capfd):
    with pytest.raises(KeyboardInterrupt), starting("m", "0.32"):
        raise KeyboardInterrupt
    sys.stdout.write("back\n")
    assert capfd.readouterr().out == "back\n"


def test_a_reader_that_is_gone_makes_nobody_wait():
    """`lm_eval … | head`: an engine that writes on gets the error that it would get without us."""
    read, write = os.pipe()
    os.close(read)
    stdout = os.dup(1)
    os.dup2(write, 1)
    os.close(write)
    try:
        with starting("m", "0.32"):
            much = "for _ in range(9): print('x' * 50_000, flush=True)"
            process = subprocess.Popen([sys.executable, "-c", much], stderr=subprocess.DEVNULL)
            assert process.wait(30) != 0
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
