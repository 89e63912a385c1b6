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


def smallest_type(size: int) -> np.dtype[Any]:
    """The smallest unsigned little-endian integer type that holds every token of a vocabulary."""
    return np.dtype("u1" if size <= 1 << 8 else "<u2" if size <= 1 << 16 else "<u4")


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
        return smallest_type(self.size)

    def encode(self, text: str) -> NDArray[Any]:
        """Return the tokens of `text`, one per code point; lone surrogates, too, are unknown characters."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        return self.token_of_code.take(codes, mode="clip")

    def decode(self, tokens: ArrayLike) -> str:
        """Return the text of `tokens`; the unknown symbol is shown as U+FFFD."""
        return self._code_of_token[np.asarray(tokens, dtype=np.int64)].tobytes().decode("utf-32-le")

    def continuation(self, prompt: str, tokens: ArrayLike) -> str:
        """The text of `tokens` such that it can be appended to the prompt."""
        return self.decode(tokens)

    def to_json(self) -> str:
        return json.dumps({"symbols": list(self.symbols)})

    @classmethod
    def from_symbols(cls, symbols: tuple[Any, ...]) -> Vocabulary:
        """Check what `to_json` wrote; InputError if it is anything else."""
        characters = all(isinstance(symbol, str) and len(symbol) == 1 for symbol in symbols[1:])
        if not characters or len(symbols) < 2 or symbols != cls.of(symbols[1:]).symbols:
            raise InputError("vocabulary", 'must be {"symbols": ["<unk>", …]}, characters in code point order')
        return cls(symbols)

    @cached_property
    def _code_of_token(self) -> NDArray[np.uint32]:
        return np.array([_REPLACEMENT_CHARACTER, *map(ord, self.symbols[1:])], dtype="<u4")

    @cached_property
    def token_of_code(self) -> NDArray[Any]:
        """The token of each code point; the last entry is 0, and code points beyond are to be clipped to it."""
        table = np.zeros(int(self._code_of_token[1:].max(initial=0)) + 2, dtype=self.dtype)
        table[self._code_of_token[1:]] = np.arange(1, self.size)
        return table
