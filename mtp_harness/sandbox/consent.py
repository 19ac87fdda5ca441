"""Whether the user agreed, for the run in progress, to run programs without isolation."""

from collections.abc import Iterator
from contextlib import contextmanager

_consent = False


def consent_given() -> bool:
    """Return whether the run in progress was started with `--confirm_run_unsafe_code`.

    The harness hands the flag to no task. A task that grades programs asks here whether it may go
    on where the sandbox's self-test finds that it cannot isolate them.
    """
    return _consent


@contextmanager
def consent_for_this_run(given: bool) -> Iterator[None]:
    """Have `consent_given` answer for one run.

    Args:
        given: Whether the run was started with `--confirm_run_unsafe_code`.
    """
    global _consent
    before, _consent = _consent, given
    try:
        yield
    finally:
        _consent = before
