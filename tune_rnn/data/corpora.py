"""Corpora with a name: a name means the same bytes everywhere, wherever they were found."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tune_rnn.data.text import Source, digest
from tune_rnn.errors import InputError

DOWNLOAD_TIMEOUT_S = 30.0  # of one network operation, not of the whole download


@dataclass(frozen=True)
class PublishedFile:
    """A file with a known content; `url` is None where no stable address is known."""

    name: str
    sha256: str
    url: str | None


@dataclass(frozen=True)
class NamedCorpus:
    """What a corpus name stands for: one file to be split, or an official train, validation and test file."""

    about: str
    files: tuple[PublishedFile, ...]
    keep_spaces: bool = True


_GITHUB = "https://raw.githubusercontent.com/"
_PTB = _GITHUB + "arthurdehgan/IFT6135_assignment_2/191820cabc95c8d8af11d0bf3679207dd3b97e08/data/"
_SHAKESPEARE = _GITHUB + "karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/"

CORPORA: dict[str, NamedCorpus] = {
    "pydoc": NamedCorpus("the English text of Python's own help topics; it differs between Python releases", ()),
    "tinyshakespeare": NamedCorpus(
        "1,115,394 characters of Shakespeare's plays (public domain; selection by A. Karpathy)",
        (
            PublishedFile(
                "input.txt",
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                _SHAKESPEARE + "input.txt",
            ),
        ),
    ),
    "ptb-char": NamedCorpus(
        "Penn Treebank in characters (Mikolov's files; Wall Street Journal, not free: for measurements only)",
        (
            PublishedFile(
                "ptb.char.train.txt",
                "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9",
                _PTB + "ptb.char.train.txt",
            ),
            PublishedFile(
                "ptb.char.valid.txt",
                "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8",
                _PTB + "ptb.char.valid.txt",
            ),
            PublishedFile(
                "ptb.char.test.txt",
                "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe",
                _PTB + "ptb.char.test.txt",
            ),
        ),
        keep_spaces=False,  # the files write "t h e _ c a t": spaces part the symbols, "_" is the blank
    ),
    "ptb-word": NamedCorpus(
        "Penn Treebank in 10,000 words (Mikolov's files; Wall Street Journal, not free: for measurements only)",
        (
            PublishedFile(
                "ptb.train.txt",
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                _PTB + "ptb.train.txt",
            ),
            PublishedFile(
                "ptb.valid.txt",
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                _PTB + "ptb.valid.txt",
            ),
            PublishedFile(
                "ptb.test.txt",
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
                _PTB + "ptb.test.txt",
            ),
        ),
    ),
    "kjv": NamedCorpus(
        "the King James Bible, one verse a line",
        (PublishedFile("kjv.txt", "a2e77d5b72e45d7926f4d635846ea5d295007cafa3b90e28d4b3ff171e79f796", None),),
    ),
}


def find_corpus(name: str, cache: Path) -> tuple[Source, ...]:
    """Return the documents of a named corpus: from $TUNE_RNN_DATA, the cache, or the network."""
    corpus = CORPORA[name]
    if not corpus.files:
        return _python_topics()
    folder = cache / "corpora" / name
    return tuple(Source(f"{name}/{file.name}", _find(name, file, folder), corpus.keep_spaces) for file in corpus.files)


def _python_topics() -> tuple[Source, ...]:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:  # some distributions split the standard library
        raise InputError(
            "task.corpus",
            "this Python has no pydoc_data.topics",
            "Install the full standard library.",
            "pydoc",
        ) from error
    return tuple(Source(f"pydoc/{topic}", topics[topic].encode()) for topic in sorted(topics))


def _find(name: str, file: PublishedFile, folder: Path) -> Path:
    local = _local_file(name, file)
    if local is not None and local.is_file():
        if digest(Source(str(local), local))[0] != file.sha256:
            raise InputError(
                str(local),
                f"is not the published file of {name} (sha256 {file.sha256})",
                "Replace it, or use it under its own path: task.corpus: PATH",
            )
        return local
    cached = folder / file.name
    if not (cached.is_file() and digest(Source(str(cached), cached))[0] == file.sha256):
        _download(name, file, cached)
    return cached


def _local_file(name: str, file: PublishedFile) -> Path | None:
    root = os.environ.get("TUNE_RNN_DATA")
    return Path(root).expanduser() / name.replace("-", "_") / file.name if root else None


def _download(name: str, file: PublishedFile, target: Path) -> None:
    """Fetch a file into the cache; it appears there under its name only when its sha256 is right."""
    folder_name = name.replace("-", "_")
    by_hand = f"Put the file at $TUNE_RNN_DATA/{folder_name}/{file.name}, or use a text of yours: task.corpus: PATH"
    if file.url is None:
        rule = f"{file.name} (sha256 {file.sha256}) has no download address"
        raise InputError("task.corpus", rule, by_hand, name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            part = Path(folder) / file.name
            with (
                urllib.request.urlopen(file.url, timeout=DOWNLOAD_TIMEOUT_S) as response,
                part.open("wb") as copy,
            ):
                shutil.copyfileobj(response, copy)
            found, size = digest(Source(file.name, part))
            if found != file.sha256:
                rule = f"{file.url} gave {size} bytes with sha256 {found}, not {file.sha256}"
                raise InputError("task.corpus", rule, f"Try again. {by_hand}", name)
            part.replace(target)
    except (OSError, HTTPException) as error:
        rule = f"{file.url} could not be downloaded: {error}"
        raise InputError("task.corpus", rule, f"Connect to the network and try again. {by_hand}", name) from error
