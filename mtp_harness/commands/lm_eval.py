"""`mtp-harness lm_eval`: lm_eval's own command line, with our model and tasks registered.

It works where the start-up file is not read (`pip --target`, PYTHONPATH) or is switched off.
"""

import sys
from collections.abc import Sequence

from mtp_harness import _startup


def main(argv: Sequence[str]) -> int:
    """Run the command with lm_eval's arguments."""
    _startup.install()
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm_eval", *argv]  # the harness reads its arguments from here only
    cli_evaluate()
    return 0
