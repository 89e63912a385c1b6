"""Documents as streams of words: white space parts them, and the end of a line is a word of its own, `<eos>`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_rnn.data.text import Source, read_characters
from tune_rnn.data.vocabulary import UNKNOWN, smallest_type
from tune_rnn.errors import InputError

END = "<eos>"


class WordNumbers:
    """Numbers for words in the order in which they are first read; the same for all sources and all passes."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {UNKNOWN: 0, END: 1}

    def read(self, source: Source) -> Iterator[NDArray[np.uint32]]:
        """Yield the numbers of the document's words, block by block."""
        rest = ""
        for codes in read_characters(source):
            text = rest + codes.tobytes().decode("utf-32-le")
            cut = max(text.rfind(" "), text.rfind("\n")) + 1  # the last word may go on in the next block
            rest = text[cut:]
            yield self._numbers_of(text[:cut])
        yield self._numbers_of(rest)

    def _numbers_of(self, text: str) -> NDArray[np.uint32]:
        numbers = self.numbers
        return np.array([numbers.setdefault(word, len(numbers)) for word in split_words(text)], dtype=np.uint32)


def split_words(text: str) -> list[str]:
    """The words of a text, `<eos>` for each end of a line."""
    return text.replace("\n", f" {END} ").split()


@dataclass(frozen=True)
class WordVocabulary:
    """`<unk>`, `<eos>`, then the words of the training split, the more frequent first (equals in alphabetical order).

    A word that is not among them is read, and has to be predicted, as `<unk>`; so is `<unk>` itself where a text was
    prepared with it, as Penn Treebank's.
    """

    symbols: tuple[str, ...]

    @classmethod
    def of(
        cls, words: WordNumbers, counts: NDArray[np.int64], size: int | None, minimum_count: int
    ) -> tuple[WordVocabulary, NDArray[Any]]:
        """The vocabulary of the `size` most frequent words that occur `minimum_count` times or more in training.

        `counts` are those in the training split, by the numbers of `words`; `size` counts `<unk>` and `<eos>`. The
        second result maps the numbers to tokens.
        """
        known = [
            (-int(counts[number]), word, number)
            for word, number in words.numbers.items()
            if number > 1 and counts[number] >= max(1, minimum_count)
        ]
        kept = sorted(known)[: None if size is None else size - 2]
        vocabulary = cls((UNKNOWN, END, *(word for _, word, _ in kept)))
        token_of_number = np.zeros(len(words.numbers), dtype=vocabulary.dtype)
        token_of_number[1] = 1
        token_of_number[[number for _, _, number in kept]] = np.arange(2, vocabulary.size)
        return vocabulary, token_of_number

    @property
    def size(self) -> int:
        return len(self.symbols)

    @property
    def dtype(self) -> np.dtype[Any]:
        return smallest_type(self.size)

    def encode(self, text: str) -> NDArray[Any]:
        """Return the tokens of the words of `text`."""
        tokens = [self._token_of_word.get(word, 0) for word in split_words(text)]
        return np.array(tokens or [1], dtype=self.dtype)

    def decode(self, tokens: ArrayLike) -> str:
        """Return the words of `tokens` with spaces between them, and a line break for each `<eos>`."""
        words = [self.symbols[token] for token in np.asarray(tokens, dtype=np.int64)]
        runs = itertools.groupby(words, lambda word: word == END)
        return "".join("\n" * len(list(run)) if ends else " ".join(run) for ends, run in runs)

    def continuation(self, prompt: str, tokens: ArrayLike) -> str:
        """The text of `tokens` such that it can be appended to the prompt."""
        text = self.decode(tokens)
        return text if not prompt or prompt[-1].isspace() or text.startswith("\n") else f" {text}"

    def to_json(self) -> str:
        return json.dumps({"words": list(self.symbols)}, ensure_ascii=False)

    @classmethod
    def from_symbols(cls, symbols: tuple[Any, ...]) -> WordVocabulary:
        """Check what `to_json` wrote; InputError if it is anything else."""
        texts = all(isinstance(word, str) and word for word in symbols)
        if not texts or symbols[:2] != (UNKNOWN, END) or len(set(symbols)) != len(symbols) or len(symbols) < 3:
            raise InputError("vocabulary", 'must be {"words": ["<unk>", "<eos>", …]}, each word once')
        return cls(symbols)

    @cached_property
    def _token_of_word(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.symbols)}
