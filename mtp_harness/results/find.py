"""Finds the files that `lm_eval` writes: results, and the samples that belong to them.

    --output_path FOLDER      FOLDER/MODEL/results_DATE.json   samples_TASK_DATE.jsonl beside it
    --output_path X/RES.json  X/RES_DATE.json                  samples_TASK_DATE.jsonl beside it

Results are recognised by their content, samples by the date that they share with their results.
`mtp-harness grade` puts `samples_TASK_DATE.graded.jsonl` beside the samples; it is read instead of
them as long as it holds the same answers. Each `.jsonl` may be a `.jsonl.gz`; if both exist, the
one that is not compressed counts.
"""

import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mtp_harness.files import user_path, write_whole

Place = TypeVar("Place")
Content = TypeVar("Content")

DATE = r"\d{4}-\d\d-\d\dT\d\d[-:]\d\d[-:]\d\d(?:\.\d+)?"
KEYS = frozenset({"results", "configs", "config"})
"""Keys of every results file of the harness."""

GRADED = ".graded.jsonl"
PACKED = ".gz"
ENDINGS = (".jsonl", ".jsonl" + PACKED)

_DATED = re.compile(rf"(?P<what>.+)_(?P<date>{DATE})")
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<date>{DATE})(?P<graded>\.graded)?\.jsonl(\.gz)?")
_BEGINNING = re.compile(rb'\s*\{\s*"results"\s*:')


class SamplesName(NamedTuple):
    """The parts of a samples file's name."""

    task: str
    date: str
    is_graded: bool


def find_results(places: Iterable[str | Path]) -> dict[Path, str]:
    """Return the results files named, and those below folders, each with its name below the folder.

    A file that was cut off while it was written is included, so that its reader can say so.

    Raises:
        FileNotFoundError: A place does not exist, or no place holds a results file.
    """
    found: dict[Path, str] = {}
    given = [user_path(place) for place in places]
    for place in given:
        if not place.exists():
            raise FileNotFoundError(
                f"no {place}: give results_….json files, or folders with them below"
            )
        if place.is_dir():
            below = results_below(place)
            found |= {path: path.relative_to(place).as_posix() for path in below}
        else:
            found[place] = place.name
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, given))} holds no results_….json: run `lm_eval --model mtp "
            f"--tasks … --output_path {given[0]} --log_samples` first"
        )
    return found


def results_below(folder: Path) -> list[Path]:
    """Return the results files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*.json") if _is_results(path))


def _is_results(path: Path) -> bool:
    if path.name.startswith("results_"):
        return True
    if not path.is_file():
        return False
    try:
        data = path.read_bytes()
    except OSError:
        return False
    if not data.strip():
        return _DATED.fullmatch(path.stem) is not None
    begins = _BEGINNING.match(data) is not None
    if not begins and not all(f'"{key}"'.encode() in data for key in KEYS):
        return False  # most files need no parsing
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return begins
    return isinstance(content, dict) and KEYS <= content.keys()


def samples_of(results: Path, task: str) -> Path | None:
    """Return the samples file to read for a task, the graded one if there is one; None without any.

    Raises:
        ValueError: The graded copy holds other answers than its source.
    """
    written = written_samples(results, task)
    graded = graded_copy(written)
    if graded.is_file():
        refuse_other_answers(graded)
        return graded
    return written if written.is_file() else None


def written_samples(results: Path, task: str) -> Path:
    """Return where the harness puts a task's samples, whether or not they exist."""
    return _as_it_is(results.with_name(f"samples_{task}_{_date_of(results)}.jsonl"))


def all_samples(results: Path) -> list[Path]:
    """Return the samples files of all tasks of a run, without graded copies."""
    return _each_once(results.parent.glob(f"samples_*_{_date_of(results)}.jsonl*"))


def samples_below(folder: Path) -> list[Path]:
    """Return the samples files below a folder, with graded copies, sorted."""
    return _each_once(folder.rglob("samples_*.jsonl*"))


def _each_once(found: Iterable[Path]) -> list[Path]:
    return sorted({_as_it_is(_plain(path)) for path in found if path.name.endswith(ENDINGS)})


def _plain(path: Path) -> Path:
    """Return the name of a file before it was compressed."""
    return path.with_suffix("") if path.suffix == PACKED else path


def _as_it_is(plain: Path) -> Path:
    """Return the compressed file if only that exists."""
    packed = plain.with_name(plain.name + PACKED)
    return packed if packed.is_file() and not plain.is_file() else plain


def results_of(samples: Path) -> Path | None:
    """Return the results file of samples; None if it is not beside them."""
    named = read_name(samples)
    beside = samples.parent.glob(f"*_{named.date}.json") if named else ()
    return next(iter(sorted(beside)), None)


def read_name(samples: Path) -> SamplesName | None:
    """Return the parts of a samples file's name; None if it is not the harness's form."""
    found = _SAMPLES.fullmatch(samples.name)
    return SamplesName(found["task"], found["date"], bool(found["graded"])) if found else None


def is_graded(samples: Path) -> bool:
    """Return whether a file is named like a graded copy of `mtp-harness grade`."""
    return _plain(samples).name.endswith(GRADED)


def graded_copy(samples: Path) -> Path:
    """Return the path of the graded copy of a samples file."""
    return _as_it_is(_plain(samples).with_suffix(GRADED))


def source_of(graded: Path) -> Path:
    """Return the path of the samples that a graded copy was made from."""
    return _as_it_is(graded.with_name(_plain(graded).name.removesuffix(GRADED) + ".jsonl"))


def _date_of(results: Path) -> str:
    found = _DATED.fullmatch(results.stem)
    return found["date"] if found else results.stem.removeprefix("results_")


def lines_of(samples: Path) -> Iterator[bytes]:
    """Yield the lines of a samples file, compressed or not.

    Raises:
        ValueError: It is compressed and damaged; the message names it.
    """
    with gzip.open(samples) if samples.suffix == PACKED else samples.open("rb") as lines:
        try:
            yield from lines
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{samples} cannot be unpacked ({error}), expected gzip: was it cut off? copy it "
                "again, or run again"
            ) from None


def write_lines(samples: Path, lines: Iterable[str]) -> None:
    """Write a samples file, compressed if its name says so; equal lines give equal bytes."""
    text = "".join(f"{line}\n" for line in lines)
    data = text.encode("utf-8", "backslashreplace")  # half characters, as `files` writes them
    write_whole(samples, gzip.compress(data, mtime=0) if samples.suffix == PACKED else data)


def refuse_other_answers(graded: Path) -> None:
    """Refuse a graded copy whose answers differ from the samples beside it.

    Raises:
        ValueError: They differ.
    """
    written = source_of(graded)
    if not written.is_file():  # only the copy was kept
        return
    states = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in (graded, written))
    if not _hold_the_same(graded, written, states):
        raise ValueError(
            f"{graded} holds other answers than {written.name}, expected the same with verdicts: "
            f"remove it, then run `mtp-harness grade {written}` again"
        )


@lru_cache(maxsize=256)
def _hold_the_same(graded: Path, written: Path, _states: object) -> bool:
    return _answers(graded) == _answers(written)


def _answers(path: Path) -> list[Any]:
    """Return what identifies each line; a damaged line equals no other."""
    found: list[Any] = []
    for line in lines_of(path):
        try:
            sample = json.loads(line)
            found.append([sample.get(name) for name in ("doc_id", "filter", "resps")])
        except (ValueError, RecursionError, AttributeError):
            found.append(object())
    return found


def in_words(error: ValueError | OSError) -> str:
    """Return on one line what is wrong with a file; the system's own errors are put into words."""
    if not isinstance(error, OSError) or error.errno is None:
        return " ".join(str(error).split())
    return f"{error.filename} cannot be read ({str(error.strerror).lower()}): check the file"


def read_each(places: Iterable[Place], read: Callable[[Place], Content]) -> list[Content]:
    """Return what reading each place gives; places that cannot be read are reported on stderr.

    Args:
        places: Files, or whatever `read` takes.
        read: Raises a ValueError that names the file, or an error of the system.

    Raises:
        ValueError: Nothing could be read.
    """
    found, problems = [], []
    for place in places:
        try:
            found.append(read(place))
        except (ValueError, OSError) as error:
            problems.append(in_words(error))
    if problems and not found:
        raise ValueError("; ".join(problems))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return found
