"""Where downloads and token arrays are kept between runs.

An entry is a directory of arrays, named after everything that determines them. It is built in a hidden
sibling and renamed into place: it is either whole or absent, however many processes build it at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
import zlib
from pathlib import Path

from tune_rnn.data.tokens import Recipe, write_arrays
from tune_rnn.errors import InputError

_CHECKSUMS = "checksums.json"
_ABANDONED_S = 24 * 3600.0


def cache_folders(cache: Path | None) -> list[Path]:
    """Return the folders to look for ready entries in, best first.

    The first of `cache`, $TUNE_RNN_CACHE, $XDG_CACHE_HOME/tune_rnn and ~/.cache/tune_rnn that is given, then
    a folder of this user among the temporary files. A folder that cannot be written may still hold an entry.
    """
    temporary = Path(tempfile.gettempdir()) / f"tune_rnn-{os.getuid()}"
    preferred = cache or _preferred()
    # Among temporary files somebody else could have made the folder, to slip us arrays of theirs.
    ours = not temporary.exists() or temporary.stat().st_uid == os.getuid()
    folders = ([preferred] if preferred is not None else []) + ([temporary] if ours else [])
    return [folder.absolute() for folder in folders]  # other processes may run in another directory


def first_writable(folders: list[Path]) -> Path:
    """Return the first folder in which files can be created, making it if need be."""
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    tried = ", ".join(map(str, folders))
    raise InputError("cache", f"no folder can be written (tried {tried})", "Set TUNE_RNN_CACHE to one that can.")


def is_whole(entry: Path) -> bool:
    """Whether the entry is there and every byte of its files is as it was written."""
    try:
        checksums = json.loads((entry / _CHECKSUMS).read_bytes())
        return bool(checksums) and all(_checksum(entry / name) == value for name, value in checksums.items())
    except (OSError, ValueError, AttributeError):
        return False


def build_entry(entry: Path, recipe: Recipe) -> None:
    """Tokenise the recipe's sources into `entry`; InputError for unusable texts and for a full disk."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(entry.parent)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=entry.parent) as folder:
            building = Path(folder) / entry.name
            building.mkdir()
            write_arrays(building, recipe)
            _seal(building)
            _publish(building, entry)
    except OSError as error:  # a source that cannot be read is an InputError already, so this is the cache
        raise InputError(
            str(entry.parent),
            f"the token cache cannot be written: {error.strerror}",
            "Free some space there, or set TUNE_RNN_CACHE to a folder on another disk.",
        ) from error


def _seal(building: Path) -> None:
    """Write the checksum of every file, with all of them safe on the disk.

    Without fsync a power cut after the rename could leave a published entry full of zeros.
    """
    checksums = {path.name: _checksum(path) for path in building.iterdir()}
    (building / _CHECKSUMS).write_text(json.dumps(checksums), encoding="utf-8")
    for path in building.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _publish(building: Path, entry: Path) -> None:
    if entry.exists() and not is_whole(entry):
        with contextlib.suppress(FileNotFoundError):  # another process may be replacing it, too
            entry.rename(building.parent / "damaged")
    try:
        building.rename(entry)
    except OSError:
        if not is_whole(entry):  # else another process was faster, and its arrays are the same
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes left half-built."""
    for path in folder.glob(".building-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _preferred() -> Path | None:
    if given := os.environ.get("TUNE_RNN_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "tune_rnn"
    try:
        return Path.home() / ".cache" / "tune_rnn"
    except RuntimeError:  # no home directory at all
        return None
