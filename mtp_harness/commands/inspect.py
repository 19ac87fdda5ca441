"""`mtp-harness inspect PATH`: what a checkpoint is, what is wrong, whether its heads are plausible.

Exit status: 0 for a sound checkpoint, 1 with all problems listed, 2 if there is no checkpoint.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtp_harness.commands.arguments import Parser
from mtp_harness.commands.model_options import add_model_options, open_from_options
from mtp_harness.errors import in_words
from mtp_harness.files import user_path

if TYPE_CHECKING:
    from mtp_harness.models.checkpoints.layout import Layout, Summary
    from mtp_harness.models.controls import Control
    from mtp_harness.models.load import Opened
    from mtp_harness.models.plausibility import HeadProbe

_LABEL_WIDTH = 14

_VERDICTS = {
    "worse": "worse, as it should be",
    "better": "better: the row is wrong",
    "alike": "no difference on this text",
    "unknown": "inconclusive: the module is trained too little",
}


def _parser() -> Parser:
    parser = Parser(
        "inspect",
        "Say what a checkpoint is and what is wrong with it, without loading it.",
        "/ckpt/7B_200B_4 --probe",
    )
    about = (
        "a checkpoint's folder, a shipped model, or a name on the hub (one with heads is fetched)"
    )
    parser.add_argument("pretrained", nargs="?", metavar="PATH", help=about)
    add_model_options(parser)
    parser.switch("--json", "print JSON (default: text)")
    parser.add_argument(
        "--probe",
        nargs="?",
        const="",
        metavar="FILE",
        help="also load the model on the CPU and score every head on the beginning of FILE "
        "(default: not at all; without FILE, a module of the standard library); sequential "
        "modules are read the other way, too, which must be worse",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a description of a checkpoint; return 0 if it is sound, 1 if not.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: the path holds no checkpoint, or is a name of an ordinary model on the hub.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not (arguments.pretrained or arguments.loader):
        parser.error("the following arguments are required: PATH")

    from mtp_harness.models.inspection import summarise, summarise_loaded
    from mtp_harness.models.load import detect, located
    from mtp_harness.models.plausibility import default_text

    opened, layout = None, None
    if arguments.loader:
        opened = open_from_options(arguments)
        name = arguments.pretrained or arguments.loader
        summary = summarise_loaded(name, *opened, arguments.tokenizer)
    else:
        drafter = arguments.drafter
        arguments.pretrained = located(arguments.pretrained, drafter=drafter)
        summary = summarise(arguments.pretrained, arguments.tokenizer, drafter)
        layout = detect(arguments.pretrained, drafter=drafter)
    probes: list[HeadProbe] = []
    controls: list[Control] = []
    if arguments.probe is not None and layout and layout.ordinary:
        summary.notes.append("not probed: --probe is for checkpoints with heads")
    elif arguments.probe is not None and not summary.problems:
        text = _read_text(user_path(arguments.probe)) if arguments.probe else default_text()
        probes, controls = _probe(summary, opened or open_from_options(arguments), text)
    elif arguments.probe is not None:
        summary.notes.append("not probed: the problems come first")
    form = (
        _json(summary, probes, controls)
        if arguments.json
        else _text(summary, layout, probes, controls)
    )
    sys.stdout.write(f"{form}\n")
    return 1 if summary.problems else 0


def _probe(summary: Summary, opened: Opened, text: str) -> tuple[list[HeadProbe], list[Control]]:
    """Score heads, and how sequential ones are read; note what is implausible."""
    from mtp_harness.models.controls import FEWEST_STATES, probe_row
    from mtp_harness.models.plausibility import probe_heads
    from mtp_harness.models.sequential import SequentialModel

    (model, tokenizer), controls = opened, []
    probes = probe_heads(model, tokenizer, text)
    if isinstance(model, SequentialModel):
        controls = probe_row(model, tokenizer, text)
        if not controls:
            summary.notes.append(
                f"no controls of how the modules are read: the text scores {probes[0].n_states} "
                f"positions, expected {FEWEST_STATES} or more"
            )
    wrong = [problem for control in controls if (problem := control.problem())]
    summary.problems += wrong
    for probe in probes:
        # A module that is read wrongly also scores badly: that is not a second problem.
        if (doubt := probe.doubt()) and not (wrong and probe.offset > 1):
            summary.problems.append(f"head {probe.offset}: {doubt}")
    return probes, controls


@in_words()
def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}), expected text to "
            "score the heads on: name another file"
        ) from error


def _json(summary: Summary, probes: Sequence[HeadProbe], controls: Sequence[Control]) -> str:
    content = dataclasses.asdict(summary)
    content["probe"] = [{**probe._asdict(), "doubt": probe.doubt()} for probe in probes]
    content["controls"] = [{**each._asdict(), "verdict": each.verdict()} for each in controls]
    content["ok"] = not summary.problems
    return json.dumps(content, indent=2)


def _text(
    summary: Summary,
    layout: Layout | None,
    probes: Sequence[HeadProbe],
    controls: Sequence[Control],
) -> str:
    """Return aligned lines for people; what is not known is left out."""
    attention = f"{summary.attention_heads} attention heads"
    if summary.kv_heads not in (None, summary.attention_heads):
        attention += f" ({summary.kv_heads} key/value)"
    width = {
        str(summary.width): summary.width,
        f"feed-forward {summary.ffn_width}": summary.ffn_width,
        attention: summary.attention_heads,
    }
    rows = {
        "layout": layout.title if layout else "read by your own loader",
        "drafter": summary.drafter,
        "model": summary.architecture,
        "heads": _heads(summary, layout),
        "width": ", ".join(part for part, value in width.items() if value is not None),
        "vocabulary": summary.vocabulary,
        "context": None if summary.context is None else f"{summary.context} tokens",
        "parameters": _parameters(summary),
        "stored": _stored(summary),
        "tokenizer": summary.tokenizer,
    }
    lines = [summary.path]
    lines += [f"  {label:{_LABEL_WIDTH}}{value}" for label, value in rows.items() if value]
    lines += [f"  {'note':{_LABEL_WIDTH}}{note}" for note in summary.notes]
    if probes:
        lines += ["", *_probe_table(probes)]
    if controls:
        lines += ["", *_control_table(controls)]
    lines.append("")
    if summary.problems:
        lines.append(f"{len(summary.problems)} problem(s):")
        lines += [f"  - {problem}" for problem in summary.problems]
    else:
        lines.append("no problems found")
    return "\n".join(lines)


def _heads(summary: Summary, layout: Layout | None) -> str | None:
    """Return n and the depth, in words."""
    n, trunk = summary.n_future_tokens, summary.trunk_layers
    if n is None:
        return None
    if layout and layout.ordinary:
        return "n = 1" + (f", {trunk} layers" if trunk is not None else "")
    each = "one layer each " if summary.drafter is None else ""
    depth = "" if trunk is None else f", {each}on a trunk of {trunk} layers"
    if summary.modules:
        which = "one module" if summary.modules == 1 else f"{summary.modules} modules"
        depth = f", by {which} on a trunk of {trunk} layers"
    return f"n = {n} (offsets 1 to {n}){depth}"


def _parameters(summary: Summary) -> str | None:
    """Return the counts of the parts."""
    parts = dict(summary.parameters)
    total, heads = parts.pop("total", None), parts.pop("heads", [])
    if total is None:
        return None
    detail = [f"{name} {count:,}" for name, count in parts.items()]
    if heads:
        even = len(set(heads)) == 1
        detail.append(f"per head {heads[0]:,}" if even else f"heads {heads}")
    return f"{total:,}" + (f" = {', '.join(detail)}" if detail else "")


def _stored(summary: Summary) -> str | None:
    """Return types, bytes and files."""
    if not summary.stored_bytes:
        return None
    kinds = ", ".join(f"{kind} {size:,} bytes" for kind, size in summary.stored_bytes.items())
    return f"{kinds} in {len(summary.files)} file(s)"


def _probe_table(probes: Sequence[HeadProbe]) -> list[str]:
    """Return one line per head under a heading, and what the columns mean."""
    lines = [
        f"top-1 accuracy over {probes[0].n_states} positions",
        "  head    own  shifted  constant",
    ]
    for p in probes:
        line = f"  {p.offset:4}  {p.accuracy:5.3f}    {p.shifted:5.3f}     {p.constant:5.3f}"
        lines.append(f"{line}  {p.doubt() or ''}".rstrip())
    return [
        *lines,
        "  own: the token that head k predicts, k after the position. It should be the largest.",
        "  shifted: the token before or after that one, whichever is guessed more often. If it is",
        "  the largest, the head predicts another offset: heads are out of order.",
        "  constant: accuracy of always answering the most frequent token. If it is the largest,",
        "  the head is trained too little for this test.",
    ]


def _control_table(controls: Sequence[Control]) -> list[str]:
    """Return one line per control under a heading, and what the columns mean."""
    width = max(len(way) for each in controls for way in (each.way, each.other_way))
    lines = [
        f"how the modules are read (row {controls[0].row}): cross-entropy in nats per token over "
        f"{controls[0].n_states} positions",
        f"  head  {'row':{width}}   nats  {'control':{width}}   nats  difference",
    ]
    for c in controls:
        lines.append(
            f"  {c.offset:4}  {c.way:{width}}  {c.nats:5.2f}  {c.other_way:{width}}  "
            f"{c.other_nats:5.2f}  {c.other_nats - c.nats:+5.2f} ± {c.error:4.2f}  "
            f"{_VERDICTS[c.verdict()]}"
        )
    return [
        *lines,
        "  row: how this family's modules are read. control: the same module read the other way.",
        "  nats: lower is better. ±: standard error. The control of a trained module is worse.",
    ]
