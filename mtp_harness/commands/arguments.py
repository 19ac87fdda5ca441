"""The arguments of a command: how every parser begins, and the kinds that most have."""

import argparse
from typing import Any

from mtp_harness.files import user_path


class Parser(argparse.ArgumentParser):
    """Reads a command's arguments; its help ends with an example."""

    def __init__(self, name: str, about: str | None, example: str) -> None:
        """Begin the parser of `mtp-harness name`."""
        called = f"mtp-harness {name}"
        super().__init__(prog=called, description=about, epilog=f"example: {called} {example}")

    def results(self, files: str = "results_….json", nargs: str = "+") -> None:
        """Take files of a run, or folders of them."""
        self.add_argument("results", help=f"{files} files, or folders of them", nargs=nargs)

    def path(self, *names: str, about: str, **how: Any) -> None:
        """Take a path of the user's."""
        self.add_argument(*names, help=about, type=user_path, **how)

    def switch(self, name: str, about: str) -> None:
        """Take a flag."""
        self.add_argument(name, help=about, action="store_true")

    def number(self, name: str, default: float, about: str, metavar: str | None = None) -> None:
        """Take a number of the default's type; the help says the default."""
        about, kind = f"{about} (default: %(default)s)", type(default)
        self.add_argument(name, help=about, type=kind, default=default, metavar=metavar)

    def baseline(self) -> None:
        """Take a row of a leaderboard."""
        about = "label or name of the row to compare the others with (default: none)"
        self.add_argument("--baseline", help=about)

    def device(self) -> None:
        """Take a device."""
        about = "such as cpu or cuda:1 (default: the GPU where there is one)"
        self.add_argument("--device", help=about)


def device_of(args: argparse.Namespace) -> str:
    """Return the device that was given, or by default the GPU if there is one."""
    import torch

    return args.device or ("cuda" if torch.cuda.is_available() else "cpu")
