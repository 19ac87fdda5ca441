"""Where the files of a benchmark are searched: a folder, the local hub cache, the hub.

The folder is `--metadata data_dir=…` or `MTP_HARNESS_DATA`. The hub comes last, and is not used if
`HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE` is set. If no place has the files, the error names all
three.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mtp_harness.files import user_path

if TYPE_CHECKING:
    import datasets

ENV_FOLDER = "MTP_HARNESS_DATA"


class Source(NamedTuple):
    """One benchmark's files."""

    title: str  # the benchmark's name in messages
    files: tuple[str, ...]  # names to search in the folder, best first; `*` matches any part
    repository: str  # data set on the hub
    pattern: str  # its files there
    columns: tuple[str, ...] = ()  # required columns
    revision: str | None = None  # branch of the repository; None for its main branch


def read_rows(
    source: Source, data_dir: str | None = None, at_most: int | None = None
) -> list[dict[str, Any]]:
    """Return the rows of all files of a benchmark, or the first, in the order of the files.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, there is no row, or a row lacks a column.
    """
    paths = find_files(source, data_dir)
    rows = list(islice((row for path in paths for row in rows_of(path)), at_most))
    if not rows:
        raise ValueError(f"{paths[0]} has no problems; expected those of {source.title}")
    for row in rows:
        require(row, source)
    return rows


def find_files(source: Source, data_dir: str | None = None) -> list[Path]:
    """Return the files that the problems are read from."""
    if paths := find_here(source, data_dir) or _from_hub(source, offline=False):
        return paths
    given = folders(data_dir)
    looked = f" in {', '.join(map(str, given))}," if given else ""
    raise FileNotFoundError(
        f"no {source.title}: looked{looked} in the local Hugging Face cache and on the hub for "
        f"{source.repository}; put {source.files[0]} into a folder named by {ENV_FOLDER} or "
        "--metadata data_dir=…, or run once where the hub can be reached"
    )


def find_here(source: Source, data_dir: str | None = None) -> list[Path]:
    """Return the files that are on this machine, in a folder or in the hub's cache."""
    return find_in(folders(data_dir), source.files) or _from_hub(source, offline=True)


def find_in(places: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """Return the files that match the first name, in the first folder that has any."""
    for folder in places:
        for name in names:
            if paths := sorted(path for path in folder.glob(name) if path.is_file()):
                return paths
    return []


def folders(data_dir: str | None) -> list[Path]:
    """Return the folders to search, in order; one that does not exist is refused."""
    given = {"data_dir": data_dir, ENV_FOLDER: os.environ.get(ENV_FOLDER)}
    named = {name: user_path(folder) for name, folder in given.items() if folder}
    for name, folder in named.items():
        if not folder.is_dir():
            raise ValueError(
                f"{name}={folder} is not a folder, expected one with a benchmark's files: check "
                "the path"
            )
    return list(named.values())


def _from_hub(source: Source, offline: bool) -> list[Path]:
    if not offline and any(os.environ.get(f"HF_{who}_OFFLINE") for who in ("HUB", "DATASETS")):
        return []
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(
            source.repository,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=[source.pattern],
            local_files_only=offline,
        )
    except Exception:  # not cached, or not reachable: the caller names all places
        return []
    return sorted(Path(folder).glob(source.pattern))


def from_hub(option: str, name: str, config: str | None, split: str) -> "datasets.Dataset":
    """Return a data set that a user names by `option`, from the hub, its cache or a folder.

    Raises:
        ValueError: it cannot be loaded.
    """
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # loaders of data sets may raise anything
        first = str(error).strip().split("\n")[0]
        where = f"{option}={name}" + (f", dataset_config={config}" if config else "")
        raise ValueError(f"{where}, split={split} cannot be loaded ({first})") from None


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of one file: Parquet, or JSON lines, which may be gzipped."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        with damage_named(path), pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
        return
    for where, row in json_lines(path):
        if not isinstance(row, dict):
            raise ValueError(f"{where} is a {type(row).__name__}, expected an object")
        yield row


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the lines of a file, which may be gzipped, parsed, each after `PATH:NUMBER`."""
    opener = gzip.open if path.suffix == ".gz" else open
    with damage_named(path), opener(path, "rt", encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                raise ValueError(f"{where} is not JSON: {error}") from None


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn the errors of a file format's reader into a ValueError that names the file."""
    try:
        yield
    except (EOFError, OSError, UnicodeDecodeError, zlib.error, ValueError) as error:
        if str(path) in str(error) and isinstance(error, ValueError):  # ours
            raise
        said = " ".join(str(error).split())
        raise ValueError(f"{path} is damaged ({said}): fetch it again") from None


def require(row: Mapping[str, Any], source: Source) -> None:
    """Refuse a row that lacks one of the columns."""
    if missing := [name for name in source.columns if name not in row]:
        raise ValueError(
            f"a row of {source.title} lacks {', '.join(missing)}; "
            f"expected {', '.join(source.columns)}"
        )


def describe(
    rows: Iterable[Mapping[str, str]], columns: Sequence[str], source: str
) -> dict[str, Any]:
    """Return what distinguishes two sets of documents, as plain JSON values.

    `bytes` and `sha256` are over the texts of these columns, in UTF-8.
    """
    digest, count, size = hashlib.sha256(), 0, 0
    for row in rows:
        for column in columns:
            raw = row[column].encode()
            digest.update(len(raw).to_bytes(8, "big") + raw)
            size += len(raw)
        count += 1
    return {"sha256": digest.hexdigest(), "n_documents": count, "bytes": size, "source": source}
