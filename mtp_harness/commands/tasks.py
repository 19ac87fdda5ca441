"""`mtp-harness tasks`: a line for every task: what it measures, its time, whether its data is here.

The tasks come from the harness's own index, measures and times from `harness.task_facts`, and the
state of the documents from `mtp-harness data check`.
"""

import sys
from collections.abc import Mapping, Sequence

from mtp_harness.commands.arguments import Parser
from mtp_harness.commands.data import Status, check_tasks
from mtp_harness.harness.task_facts import CPU_RATE, FACTS, GPU_RATE, Took
from mtp_harness.harness.task_index import configuration, leaves, our_index
from mtp_harness.results.samples import family_of

HEADING = ("task", "measures", "2 cores", "one GPU", "--log_samples")

LEGEND = f"""
2 cores, one GPU: time for all documents, without starting and loading. Measured with the shipped
  model mtp-bytes-n4 on 2 cores of an Intel Xeon at 2.80 GHz, and on one H200 (the probes that take
  31 s took them together). "~" marks an estimate: probes from their time with `quick` on 2 cores;
  other tasks as documents x longest answer, at {CPU_RATE:,.0f} tokens/s (mtp-bytes-n4, 2 cores) and
  {GPU_RATE:,.0f} tokens/s (a 7B model with 4 heads, one H100). A task at a temperature
  (humaneval_mtp_t0.8) takes as many times longer as it draws samples.
--log_samples: saves the answers, which the report, `grade`, `passk` and `rouge` read. Probes keep
  their tables in the results.
documents: `mtp-harness data check TASK` says where they are, or how to get them.
With --metadata '{{"quick": true}}' probes read a part of their documents, in minutes on 2 cores.
"""


def main(argv: Sequence[str]) -> int:
    """Print the list, or the table of the README."""
    given = _parser().parse_args(argv)
    rows: list[tuple[str, ...]] = [(*HEADING, "documents")]
    if given.markdown:
        sys.stdout.write(markdown())
        return 0
    found = check_tasks(given.tasks, given.data_dir)
    shown = found if given.tasks else [name for name in found if name in FACTS]
    rows += [(*_facts(name), found[name].state) for name in shown]
    if not given.tasks:
        rows += _groups(found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.write(LEGEND)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "tasks",
        "List every task: what it measures, how long it takes, whether it needs --log_samples, and "
        "whether its documents are on this machine.",
        "humaneval_mtp mtp_probes",
    )
    about = "tasks or groups (default: all of this package)"
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=about)
    about = (
        "folder to look for documents in, before the one that MTP_HARNESS_DATA names "
        "(default: none)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help=about)
    about = "print the table of the README, without documents (default: for the screen)"
    parser.switch("--markdown", about)
    return parser


def _facts(name: str) -> tuple[str, ...]:
    """Return a task's line; at a temperature, the plain task's time is taken for each sample."""
    facts = FACTS.get(family_of(name))
    if facts is None:
        return name, "one of lm_eval's own tasks", "?", "?", "?"
    measures, times = facts.measures, [facts.cpu(), facts.gpu()]
    if name not in FACTS:
        metadata = configuration(our_index()[name])["metadata"]
        n = metadata["n_samples"]
        measures += f", {n} samples, temperature {metadata['temperature']}"
        times = [Took(n * one.seconds, measured=False) for one in times]
    return name, measures, *map(str, times), "yes" if facts.writes else "no"


def _groups(found: Mapping[str, Status]) -> list[tuple[str, ...]]:
    """Return a line for each group: how many tasks it has, and for how many documents are here."""
    index = our_index()
    rows: list[tuple[str, ...]] = []
    for name in sorted(index):
        config = configuration(index[name])
        if "group" not in config:
            continue
        members = list(dict.fromkeys(leaf.name for leaf in leaves(name, index)))
        states = [state for one in members if (state := _state(one, found))]
        here = sum(state in ("there", "made") for state in states)
        said = f"group of {len(members)}: {config['group_alias']}"
        rows.append((name, said, "", "", "", f"{here} of {len(members)} here"))
    return rows


def _state(name: str, found: Mapping[str, Status]) -> str | None:
    """Return what was found for a task, or for the task without its temperature."""
    status = found.get(name) or found.get(family_of(name))
    return status and status.state


def markdown() -> str:
    """Return the table of the README."""
    rows: list[tuple[str, ...]] = [HEADING, ("---",) * len(HEADING), *map(_facts, sorted(FACTS))]
    marked = [(f"`{name}`" if name in FACTS else name, *rest) for name, *rest in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in marked)
