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
    """One task."""

    measures: str  # in a few words
    n_answers: int = 0  # that the model generates, one for each document
    answer_tokens: int = 0  # the longest answer
    cpu_s: float | None = None  # seconds measured on 2 cores
    quick_cpu_s: float | None = None  # the same with `quick`
    times_quick: float = 1.0  # how many times more work it is without `quick`
    gpu_s: float | None = None  # seconds measured on one GPU

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


# Task, n_answers, answer_tokens, cpu_s, quick_cpu_s, times_quick, gpu_s, measures: see `Facts`.
_TABLE = """
apps_mtp            1000  1024   -    -    -   -  pass@1 on APPS, introductory test problems
cnn_dailymail_mtp  11490   128   -    -    -   -  ROUGE of summaries: CNN/DailyMail
codecontests_mtp     165  1024   -    -    -   -  pass@1 on CodeContests
docstring_mtp        200    96  80    -    -   -  ROUGE of docstrings of Python's own functions
gsm8k_mtp           1319   256   -    -    -   -  right answers on GSM8K, 8 shots
humaneval_mtp        164   512  81    -    -   -  pass@1 on HumanEval
mbpp_mtp             500   512   -    -    -   -  pass@1 on MBPP, 3 shots
mtp_acceptance         -     -   -   54   10   -  drafts accepted along texts, by engines' rule
mtp_arithmetic     60000     8   -   20  100  36  right results of polynomial arithmetic
mtp_drafts             -     -   -   12   28   -  where drafts fail, and what a threshold trades
mtp_heads              -     -   -   54   10  31  accuracy, loss and calibration of each head
mtp_induction          -     -   -   18    5   9  recall of a name seen once, by head
mtp_long_context       -     -   -   70   16   -  drafts accepted by how much text stands before
mtp_perplexity         -     -   -  100   20  31  perplexity in a sliding window
mtp_positions          -     -   -   51   10  31  accuracy by position and kind of token
mtp_solutions          -     -   -   15   16  31  bits per byte of reference solutions
mtp_speculative        -     -   -   60   28  21  tokens per forward and equal text, every k
mtp_speed              -     -   -   14   66  71  tokens per second and speedup, every k
mtp_speed_paper        -     -   -   14  500   -  the same at the paper's 17 batch sizes
multi_news_mtp      5622   512   -    -    -   -  ROUGE of summaries: Multi-News
orangesum_mtp       1500   128   -    -    -   -  ROUGE of summaries: OrangeSum (French)
pn_summary_mtp      5593   256   -    -    -   -  ROUGE of summaries: pn-summary (Persian)
samsum_mtp           819   128   -    -    -   -  ROUGE of summaries: SAMSum (dialogues)
thaisum_mtp        11000   512   -    -    -   -  ROUGE of summaries: ThaiSum (Thai)
wikisummary_mtp     5074   512   -    -    -   -  ROUGE of summaries: WikiSummary (Persian)
xsum_mtp           11334   128   -    -    -   -  ROUGE of summaries: XSum, one sentence
"""


def _row(line: str) -> tuple[str, Facts]:
    name, *numbers, measures = line.split(maxsplit=len(Facts._fields))
    given = zip(Facts._fields[1:], numbers, strict=True)
    return name, Facts(measures, **{field: int(one) for field, one in given if one != "-"})


FACTS: Mapping[str, Facts] = dict(map(_row, _TABLE.strip().splitlines()))
"""By task, without those at other temperatures, which generate as many answers for each document as
their `n_samples` says."""
