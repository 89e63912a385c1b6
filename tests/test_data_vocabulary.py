"""Vocabulary: order, the unknown symbol, round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.data import Vocabulary, vocabulary_from_json
from tune_rnn.errors import InputError

characters = st.characters(codec="utf-8")


def test_symbols_are_sorted_behind_the_unknown() -> None:
    vocabulary = Vocabulary.of("banana é")
    assert vocabulary.symbols == ("<unk>", " ", "a", "b", "n", "é")
    assert vocabulary.size == 6
    assert vocabulary.encode("ban\ud800x\U0001f600").tolist() == [3, 2, 4, 0, 0, 0]
    assert vocabulary.decode([3, 2, 4, 0]) == "ban\ufffd"


@given(known=st.text(characters, min_size=1), text=st.text(characters))
def test_known_characters_survive_and_others_become_unknown(known: str, text: str) -> None:
    vocabulary = Vocabulary.of(known)
    assert vocabulary.decode(vocabulary.encode(known)) == known
    tokens = vocabulary.encode(text)
    assert len(tokens) == len(text)
    assert [token == 0 for token in tokens] == [character not in known for character in text]


@given(st.text(characters, min_size=1))
def test_json_round_trip(known: str) -> None:
    vocabulary = Vocabulary.of(known)
    assert vocabulary_from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(("size", "dtype"), [(2, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")])
def test_the_smallest_type_that_holds_every_token(size: int, dtype: str) -> None:
    codes = [code for code in range(70_000) if not 0xD800 <= code < 0xE000][: size - 1]
    vocabulary = Vocabulary.of(map(chr, codes))
    assert vocabulary.dtype == np.dtype(dtype)
    assert vocabulary.encode(chr(codes[-1])).tolist() == [size - 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"symbols": "abc"}',
        '{"symbols": ["<unk>"]}',
        '{"symbols": ["a", "b"]}',
        '{"symbols": ["<unk>", "b", "a"]}',
        '{"symbols": ["<unk>", "a", "a"]}',
        '{"symbols": ["<unk>", "ab"]}',
        '{"symbols": ["<unk>", 1]}',
    ],
)
def test_refuses_what_it_did_not_write(text: str) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        vocabulary_from_json(text)
