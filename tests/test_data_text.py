"""Reading UTF-8 in blocks gives what reading at once would give, and names the first byte that is wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.data import text as text_module
from tune_rnn.data.text import Source, digest, read_characters
from tune_rnn.errors import InputError


def read(content: bytes | Path, *, keep_spaces: bool = True) -> str:
    codes = np.concatenate(list(read_characters(Source("document", content, keep_spaces))))
    return codes.astype("<u4").tobytes().decode("utf-32-le")


@pytest.fixture(params=[1, 2, 3, 5, 64])
def small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"\xef\xbb\xbf", ""),
        (b"\xef\xbb\xbfab", "ab"),
        ("a\ufeffb".encode(), "a\ufeffb"),  # a mark in the middle is a character like any other
        (b"a\r\nb\rc\nd\r", "a\nb\nc\nd\n"),
        (b"\r\r\n\n", "\n\n\n"),
        ("é\u4e2d\U0001f600\u2028x".encode(), "é\u4e2d\U0001f600\u2028x"),
    ],
)
def test_block_borders_change_nothing(content: bytes, expected: str) -> None:
    assert read(content) == expected


@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0")), block=st.integers(1, 9))
def test_reads_like_python(text: str, block: int) -> None:
    expected = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
        assert read(text.encode()) == expected


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc\0def", "NUL byte at offset 3"),
        (b"plain \xe9 latin-1", "byte 0xe9 at offset 6"),
        (b"\xef\xbb\xbfabc\xff", "byte 0xff at offset 6"),
        (b"cut in a character: \xe4\xb8", "byte 0xe4 at offset 20"),
        (b"\xff\xfea\0b\0", r"byte 0xff at offset 0|NUL byte at offset 3"),  # UTF-16
        (b"\xed\xa0\x80 is a surrogate", "byte 0xed at offset 0"),
    ],
)
def test_names_the_wrong_byte(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(content)


def test_symbols_parted_by_spaces() -> None:
    assert read(b"t h e _ c a t \n s a t", keep_spaces=False) == "the_cat\nsat"


def test_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert digest(Source("text", path)) == (hashlib.sha256(path.read_bytes()).hexdigest(), 7)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        digest(Source("text", tmp_path / "nothing"))
