"""Whether the user agreed, for the run in progress, to run programs without isolation."""

from collections.abc import Iterator
from contextlib import contextmanager

_consent = False


def consent_given() -> bool:
    """Return whether the run has `--confirm_run_unsafe_code`, which tasks cannot see."""
    return _consent


@contextmanager
def consent_for_this_run(given: bool) -> Iterator[None]:
    """Set the answer of `consent_given` for one run."""
    global _consent
    before, _consent = _consent, given
    try:
        yield
    finally:
        _consent = before
