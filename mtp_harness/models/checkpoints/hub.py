"""Names on the hub: the cached folder of a name's configuration, or of all its files.

The cache is used first, so that a name costs nothing that transformers would not fetch itself.
"""

from pathlib import Path

from huggingface_hub import is_offline_mode, snapshot_download, try_to_load_from_cache
from transformers.utils.hub import cached_file

from mtp_harness.models.checkpoints.checks import one_line, read_json
from mtp_harness.models.checkpoints.safetensors_files import CONFIG_FILE, INDEX_FILE
from mtp_harness.models.families import family_of, promised

_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
_ELSEWHERE = ["*/*"]  # copies in other forms


def looked_up(name: str, revision: str | None = None) -> Path | None:
    """Return the folder with a name's `config.json`, fetched if it is not in the cache.

    If the configuration is of a family and promises no modules, the index of the weights is
    fetched, too: its keys may be modules'. None if there is no configuration; loading the name then
    reports why.
    """
    config = _file(name, CONFIG_FILE, revision)
    if config is None:
        return None
    content = read_json(config)
    if family_of(content) and not promised(content):
        _file(name, INDEX_FILE, revision)
    return config.parent


def fetched(name: str, revision: str | None = None) -> Path:
    """Return the folder with a name's configuration, weights and tokenizer, fetched if needed.

    Raises:
        ValueError: the hub does not give them.
        FileNotFoundError: there are no safetensors, or they are not in the cache and the hub cannot
            be reached.
    """
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_FILES,
                ignore_patterns=_ELSEWHERE,
                local_files_only=is_offline_mode(),  # some clients ask for a commit's files else
            )
        )
    except Exception as error:  # errors of many libraries
        raise ValueError(
            f"{name} cannot be fetched from the hub ({one_line(error)}), expected its files there "
            "or in this machine's cache: check the name, the revision, the network and your token"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{name} has no safetensors in this machine's cache, and none were fetched: check that "
            "the hub can be reached (HF_HUB_OFFLINE is not set) and that the name has some"
        )
    return folder


def _file(name: str, file: str, revision: str | None) -> Path | None:
    try:
        found = try_to_load_from_cache(name, file, revision=revision)
        if found is None:
            found = cached_file(name, file, revision=revision)
    except Exception:  # no such name or file, no network, no access
        return None
    return Path(found) if isinstance(found, str) else None  # otherwise the hub does not have it
