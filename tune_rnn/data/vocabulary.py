"""The symbols a model knows, and the way between text and token numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_rnn.errors import InputError

UNKNOWN = "<unk>"
_REPLACEMENT_CHARACTER = 0xFFFD


@dataclass(frozen=True)
class Vocabulary:
    """Characters of the training split in code point order; symbol 0 stands for every other character.

    A character that training never showed becomes `<unk>` and, in validation and test, has to be predicted as
    such: no character is skipped, so losses stay comparable. A symbol is one code point, never a combination
    of several.
    """

    symbols: tuple[str, ...]

    @classmethod
    def of(cls, characters: Iterable[str]) -> Vocabulary:
        """Build the vocabulary of the distinct `characters`."""
        return cls((UNKNOWN, *sorted(set(characters))))

    @property
    def size(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned little-endian integer type that holds every token."""
        return np.dtype("u1" if self.size <= 1 << 8 else "<u2" if self.size <= 1 << 16 else "<u4")

    def encode(self, text: str) -> NDArray[Any]:
        """Return the tokens of `text`, one per code point; lone surrogates, too, are unknown characters."""
        return self.encode_codes(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4"))

    def encode_codes(self, codes: NDArray[np.uint32]) -> NDArray[Any]:
        """Return the tokens of an array of Unicode code points."""
        return self._token_of_code.take(codes, mode="clip")

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of `tokens`; the unknown symbol is shown as U+FFFD."""
        return self._code_of_token[np.asarray(tokens, dtype=np.int64)].tobytes().decode("utf-32-le")

    def to_json(self) -> str:
        return json.dumps({"symbols": list(self.symbols)})

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Read what `to_json` wrote; InputError if it is anything else."""
        try:
            symbols = tuple(json.loads(text)["symbols"])
            usable = len(symbols) > 1 and symbols == cls.of(symbols[1:]).symbols
            usable = usable and all(len(symbol) == 1 for symbol in symbols[1:])
        except (ValueError, KeyError, TypeError):
            usable = False
        if not usable:
            raise InputError("vocabulary", 'must be {"symbols": ["<unk>", …]}, characters in code point order')
        return cls(symbols)

    @cached_property
    def _code_of_token(self) -> NDArray[np.uint32]:
        return np.array([_REPLACEMENT_CHARACTER, *map(ord, self.symbols[1:])], dtype="<u4")

    @cached_property
    def _token_of_code(self) -> NDArray[Any]:
        # The last entry stays 0, and code points beyond the table are clipped to it: unknown.
        table = np.zeros(int(self._code_of_token[1:].max(initial=0)) + 2, dtype=self.dtype)
        table[self._code_of_token[1:]] = np.arange(1, self.size)
        return table
