"""Documents as streams of characters: UTF-8 read in blocks, never a whole file as one Python string."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tune_rnn.errors import InputError

BLOCK_BYTES = 1 << 18  # small enough for a processor's cache, large enough that Python's overhead is invisible
_SPACE = ord(" ")


@dataclass(frozen=True)
class Source:
    """One document: a file, or bytes in memory.

    `keep_spaces` is False for texts that write one symbol per space-separated token, as ptb-char does.
    """

    name: str
    content: Path | bytes
    keep_spaces: bool = True

    def open(self) -> BinaryIO:
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        try:
            return self.content.open("rb")
        except OSError as error:
            raise InputError(self.name, f"cannot be read: {error.strerror}") from error


def digest(source: Source) -> tuple[str, int]:
    """Return the sha256 (hexadecimal) and the size (bytes) of what `source` holds, before any decoding."""
    with source.open() as file:
        sha256 = hashlib.sha256()
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
        return sha256.hexdigest(), file.tell()


def read_characters(source: Source) -> Iterator[NDArray[np.uint32]]:
    """Yield the document's Unicode code points, block by block.

    A byte-order mark at the start is dropped; CRLF and CR become LF, also where a block ends between the two.
    Raises InputError with the byte offset for a NUL byte (a binary file) and for anything that is not UTF-8.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    bytes_read = 0
    with source.open() as file:
        while True:
            block = file.read(BLOCK_BYTES)
            _refuse_binary(source, block, bytes_read)
            bytes_read += len(block)
            codes = _code_points(_decode(source, decoder, block, bytes_read))
            yield codes if source.keep_spaces else codes[codes != _SPACE]
            if not block:
                return


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _decode(source: Source, decoder: io.IncrementalNewlineDecoder, block: bytes, bytes_read: int) -> str:
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        # The failed object may begin with bytes kept from the block before, but it always ends where we are.
        offset = bytes_read - len(error.object) + error.start
        raise InputError(
            source.name,
            f"is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset} ({error.reason})",
            "Convert it first, for example with: iconv -f LATIN1 -t UTF-8 OLD > NEW",
        ) from error


def _refuse_binary(source: Source, block: bytes, offset: int) -> None:
    if (found := block.find(b"\0")) >= 0:
        raise InputError(
            source.name,
            f"looks like a binary file: NUL byte at offset {offset + found}",
            "Give a plain UTF-8 text; a UTF-16 text converts with: iconv -f UTF-16 -t UTF-8 OLD > NEW",
        )
