"""What each task measures and how long it takes, for the list of tasks and for suites.

Seconds cover decoding, reading and grading of all documents of a task; starting and loading come on
top. Measured values are of the shipped model `mtp-bytes-n4` (4M parameters): on 2 cores of an Intel
Xeon at 2.80 GHz at batch 16, and on one NVIDIA H200, where the four probes that read texts took 31
s together. Otherwise the estimate is an upper limit, which assumes the longest answers:

    documents × longest answer in tokens ÷ tokens per second

with the rates of `CPU_RATE` (the shipped model) and `GPU_RATE` (a 7B model on one H100).
"""

from collections.abc import Mapping
from typing import NamedTuple

CPU_RATE = 692.0
"""Tokens per second of `mtp-bytes-n4` on 2 cores, k = 4, batch 16, on HumanEval."""
NTP_TIMES = 2.0
"""How many times longer the same answers take with head 1 alone, grading included."""
GPU_RATE = 8777.0
"""Tokens per second of a 7B model, k = 4, batch 42, with prefill (`tests/benchmarks/README.md`)."""


class Facts(NamedTuple):
    """One task.

    Attributes:
        measures: in a few words.
        n_answers: that the model generates, one for each document.
        answer_tokens: the longest answer.
        cpu_s: seconds measured on 2 cores.
        quick_cpu_s: the same with `quick`.
        times_quick: how many times more work it is without `quick`.
        gpu_s: seconds measured on one GPU.
    """

    measures: str
    n_answers: int = 0
    answer_tokens: int = 0
    cpu_s: float | None = None
    quick_cpu_s: float | None = None
    times_quick: float = 1.0
    gpu_s: float | None = None

    @property
    def writes(self) -> bool:
        """Whether the model's answers are scored, which `--log_samples` saves."""
        return self.n_answers > 0

    def cpu(self) -> "Took":
        """Return the seconds on 2 cores."""
        if self.cpu_s is None and self.quick_cpu_s is not None:
            return Took(self.quick_cpu_s * self.times_quick, measured=False)
        return self._took(self.cpu_s, CPU_RATE)

    def gpu(self) -> "Took":
        """Return the seconds on one GPU."""
        return self._took(self.gpu_s, GPU_RATE)

    def _took(self, measured: float | None, rate: float) -> "Took":
        if measured is None:
            return Took(self.n_answers * self.answer_tokens / rate, measured=False)
        return Took(measured, measured=True)


class Took(NamedTuple):
    """Seconds of a task (0: unknown), and whether they were measured."""

    seconds: float
    measured: bool

    def __str__(self) -> str:
        """Return them as in a table; `~` stands before an estimate."""
        if not self.seconds:
            return "?"
        size, unit = self.seconds, "s"
        for longer, name, limit in ((60, "min", 120), (60, "h", 120), (24, "days", 48)):
            if size < limit:
                break
            size, unit = size / longer, name
        return f"{'' if self.measured else '~'}{max(1, round(size))} {unit}"


FACTS: Mapping[str, Facts] = {
    "apps_mtp": Facts("pass@1 on APPS, introductory test problems", 1000, 1024),
    "cnn_dailymail_mtp": Facts("ROUGE of summaries: CNN/DailyMail", 11_490, 128),
    "codecontests_mtp": Facts("pass@1 on CodeContests", 165, 1024),
    "docstring_mtp": Facts("ROUGE of docstrings of Python's own functions", 200, 96, cpu_s=80),
    "gsm8k_mtp": Facts("right answers on GSM8K, 8 shots", 1319, 256),
    "humaneval_mtp": Facts("pass@1 on HumanEval", 164, 512, cpu_s=81),
    "mbpp_mtp": Facts("pass@1 on MBPP, 3 shots", 500, 512),
    "mtp_acceptance": Facts(
        "drafts accepted along texts, by engines' rule", quick_cpu_s=54, times_quick=10
    ),
    "mtp_arithmetic": Facts(
        "right results of polynomial arithmetic",
        60_000,
        8,
        quick_cpu_s=20,
        times_quick=100,
        gpu_s=36,
    ),
    "mtp_drafts": Facts(
        "where drafts fail, and what a threshold trades", quick_cpu_s=12, times_quick=28
    ),
    "mtp_heads": Facts(
        "accuracy, loss and calibration of each head", quick_cpu_s=54, times_quick=10, gpu_s=31
    ),
    "mtp_induction": Facts(
        "recall of a name seen once, by head", quick_cpu_s=18, times_quick=5, gpu_s=9
    ),
    "mtp_long_context": Facts(
        "drafts accepted by how much text stands before", quick_cpu_s=70, times_quick=16
    ),
    "mtp_perplexity": Facts(
        "perplexity in a sliding window", quick_cpu_s=100, times_quick=20, gpu_s=31
    ),
    "mtp_positions": Facts(
        "accuracy by position and kind of token", quick_cpu_s=51, times_quick=10, gpu_s=31
    ),
    "mtp_solutions": Facts(
        "bits per byte of reference solutions", quick_cpu_s=15, times_quick=16, gpu_s=31
    ),
    "mtp_speculative": Facts(
        "tokens per forward and equal text, every k", quick_cpu_s=60, times_quick=28, gpu_s=21
    ),
    "mtp_speed": Facts(
        "tokens per second and speedup, every k", quick_cpu_s=14, times_quick=66, gpu_s=71
    ),
    "mtp_speed_paper": Facts(
        "the same at the paper's 17 batch sizes", quick_cpu_s=14, times_quick=500
    ),
    "multi_news_mtp": Facts("ROUGE of summaries: Multi-News", 5_622, 512),
    "orangesum_mtp": Facts("ROUGE of summaries: OrangeSum (French)", 1_500, 128),
    "pn_summary_mtp": Facts("ROUGE of summaries: pn-summary (Persian)", 5_593, 256),
    "samsum_mtp": Facts("ROUGE of summaries: SAMSum (dialogues)", 819, 128),
    "thaisum_mtp": Facts("ROUGE of summaries: ThaiSum (Thai)", 11_000, 512),
    "wikisummary_mtp": Facts("ROUGE of summaries: WikiSummary (Persian)", 5_074, 512),
    "xsum_mtp": Facts("ROUGE of summaries: XSum, one sentence", 11_334, 128),
}
"""By task, without those at other temperatures, which generate as many answers for each document as
their `n_samples` says."""
