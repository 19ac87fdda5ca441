"""`--help` of every command: each option with its meaning and default, and an example line."""

import argparse

import pytest

from mtp_harness import cli

NOT_OURS = {"lm_eval"}
"""The harness's own command line."""


class _Stopped(Exception):
    pass


def parsers(command, monkeypatch):
    """Return the parser of a command, and those of its subcommands."""
    seen = []

    def stop(self, args=None, namespace=None):
        seen.append(self)
        raise _Stopped

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    module = __import__(f"mtp_harness.commands.{command.replace('-', '_')}", fromlist=["main"])
    with pytest.raises(_Stopped):
        module.main([])
    [parser] = seen
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [parser, *(one for action in below for one in action.choices.values())]


@pytest.mark.parametrize("command", sorted(set(cli.COMMANDS) - NOT_OURS))
def test_every_option_says_what_it_means_and_its_default(command, monkeypatch):
    for parser in parsers(command, monkeypatch):
        assert f"example: mtp-harness {command}" in parser.epilog or "tasks-dir" in parser.epilog
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            assert action.help, f"{parser.prog} {action.option_strings or action.dest}"
            if action.option_strings and not action.required:
                assert "default" in action.help, f"{parser.prog} {action.option_strings}"
        parser.format_help()  # a stray % would raise
