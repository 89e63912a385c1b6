"""What a text is cut into, characters or words: one way to read each, and one vocabulary for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tune_rnn.data.text import Source, read_characters
from tune_rnn.data.vocabulary import Vocabulary
from tune_rnn.data.words import WordNumbers, WordVocabulary
from tune_rnn.errors import InputError

AnyVocabulary = Vocabulary | WordVocabulary


class Reader(Protocol):
    """Reads documents as numbers of symbols; once all are read, it knows the vocabulary."""

    noun: str

    def read(self, source: Source) -> Iterator[NDArray[np.uint32]]:
        """Yield the numbers of a document's symbols, block by block: the same in every pass."""
        ...

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        """The symbols with these numbers."""
        ...

    def vocabulary(self, counts: NDArray[np.int64]) -> tuple[AnyVocabulary, NDArray[Any]]:
        """The vocabulary, and the token of each number; `counts` are those of the training split, by number."""
        ...


class Characters:
    """Unicode code points; every one of the training split is in the vocabulary."""

    noun = "character"

    def read(self, source: Source) -> Iterator[NDArray[np.uint32]]:
        return read_characters(source)

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        return [chr(number) for number in numbers]

    def vocabulary(self, counts: NDArray[np.int64]) -> tuple[AnyVocabulary, NDArray[Any]]:
        vocabulary = Vocabulary.of(map(chr, np.flatnonzero(counts)))
        return vocabulary, vocabulary.token_of_code


@dataclass(frozen=True)
class WordLimits:
    """Which words of the training split are in the vocabulary: the most frequent, if they are frequent enough."""

    size: int | None
    minimum_count: int


class Words:
    """Words between white space."""

    noun = "word"

    def __init__(self, limits: WordLimits) -> None:
        self.limits, self._words = limits, WordNumbers()

    def read(self, source: Source) -> Iterator[NDArray[np.uint32]]:
        return self._words.read(source)

    def names_of(self, numbers: Sequence[int]) -> list[str]:
        words = list(self._words.numbers)
        return [words[number] for number in numbers]

    def vocabulary(self, counts: NDArray[np.int64]) -> tuple[AnyVocabulary, NDArray[Any]]:
        return WordVocabulary.of(self._words, counts, self.limits.size, self.limits.minimum_count)


def vocabulary_from_json(text: str) -> AnyVocabulary:
    """Read what either vocabulary's `to_json` wrote; InputError if it is anything else."""
    try:
        content = json.loads(text)
        words = "words" in content
        symbols = content["words" if words else "symbols"]
    except (ValueError, KeyError, TypeError):
        symbols = None
    if not isinstance(symbols, list):
        raise InputError("vocabulary", 'must be {"symbols": ["<unk>", …]} or {"words": ["<unk>", "<eos>", …]}')
    return (WordVocabulary if words else Vocabulary).from_symbols(tuple(symbols))
