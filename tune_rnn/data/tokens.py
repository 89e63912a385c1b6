"""Text to token arrays on disk, in blocks, and back as memory maps."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_rnn.data.symbols import AnyVocabulary, Characters, Reader, WordLimits, Words
from tune_rnn.data.text import Source
from tune_rnn.data.vocabulary import UNKNOWN
from tune_rnn.errors import InputError

FORMAT = 3  # raise it when the arrays or their meaning change: old cache entries are then not found any more
SPLITS = ("train", "validation", "test")
MINIMUM_SYMBOLS = 1000  # of the whole corpus
MINIMUM_SPLIT_SYMBOLS = 100


@dataclass(frozen=True, eq=False)
class Split:
    """Tokens (1-D, read-only memory map) and where each document starts (int64, ascending, first 0)."""

    tokens: NDArray[Any]
    document_starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def predictions(self) -> int:
        """Tokens that are predicted in one pass: all but the first of every document."""
        return len(self.tokens) - len(self.document_starts)


@dataclass(frozen=True)
class Recipe:
    """What determines the arrays: one group of sources to cut at `fractions`, or one group for each split."""

    name: str
    groups: tuple[tuple[Source, ...], ...]
    fractions: tuple[float, float, float]
    joined: bool
    words: WordLimits | None = None  # None: characters

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(source for group in self.groups for source in group)

    def key(self, sha256s: list[str]) -> str:
        """Name the arrays; `sha256s` are those of `sources`, in order."""
        group_sizes = [len(group) for group in self.groups]
        fractions = self.fractions if len(self.groups) == 1 else None
        spaces = [source.keep_spaces for source in self.sources]
        words = asdict(self.words) if self.words else None
        parts = [FORMAT, sha256s, group_sizes, fractions, spaces, self.joined, words]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def open_split(directory: Path, name: str, vocabulary: AnyVocabulary) -> Split | None:
    """Map one split of what `write_arrays` wrote; None if the corpus has no such split."""
    if not (directory / f"{name}.tokens").exists():
        return None
    tokens = np.memmap(directory / f"{name}.tokens", dtype=vocabulary.dtype, mode="r")
    return Split(tokens, np.fromfile(directory / f"{name}.documents", dtype="<i8"))


def write_arrays(directory: Path, recipe: Recipe) -> None:
    """Write vocabulary, unseen symbols, and tokens and document starts of every split.

    Three passes, in memory for the vocabulary alone: how long the text is, which symbols each split has, the tokens.
    Raises InputError for a text that nothing can be learnt from.
    """
    reader: Reader = Words(recipe.words) if recipe.words else Characters()
    ends = _split_ends(recipe, reader)
    counts = _count(recipe, reader, ends)
    vocabulary, token_of_number = reader.vocabulary(counts[0])
    if np.count_nonzero(counts[0]) == 1 or vocabulary.size == 2:
        raise _too_few_symbols(recipe, reader.noun, counts[0])
    known = token_of_number.take(np.arange(counts.shape[1]), mode="clip") > 0
    unseen = np.where(known, 0, counts[1:].sum(axis=0))
    numbers = np.flatnonzero(unseen).tolist()
    named = zip(reader.names_of(numbers), unseen[numbers].tolist(), strict=True)
    unseen_counts = {name: count for name, count in named if name != UNKNOWN}  # a text may be prepared with it
    (directory / "vocabulary.json").write_text(vocabulary.to_json(), encoding="utf-8")
    (directory / "unseen.json").write_text(json.dumps(unseen_counts), encoding="utf-8")
    _write_tokens(directory, recipe, reader, ends, token_of_number)


def _too_few_symbols(recipe: Recipe, noun: str, counts: NDArray[np.int64]) -> InputError:
    """The error for a vocabulary of one symbol; `counts` are those in the training split, by number."""
    most = int(counts[2:].max(initial=0))  # 0 and 1 are <unk> and <eos> of words
    if recipe.words and np.count_nonzero(counts) > 1 and 0 < most < recipe.words.minimum_count:
        rule = f"no word of the training text occurs so often (the largest count is {most:,})"
        return InputError("task.minimum_count", rule, "Lower it.", recipe.words.minimum_count)
    return InputError(recipe.name, f"the training text has one distinct {noun} only", "Give a real text.")


def _split_ends(recipe: Recipe, reader: Reader) -> list[int]:
    """Return where train, validation and test end when all sources are strung together, in symbols."""
    sizes = [sum(len(numbers) for source in group for numbers in reader.read(source)) for group in recipe.groups]
    total = sum(sizes)
    if total < MINIMUM_SYMBOLS:
        rule = f"the text has {total} {reader.noun}s, at least {MINIMUM_SYMBOLS} are needed" if total else "is empty"
        raise InputError(recipe.name, rule, "Give more text.")
    if len(sizes) == 1:
        train, _, test = recipe.fractions
        ends = [int(total * train), total - int(total * test), total]
    else:
        ends = list(accumulate(sizes))
    for name, size in zip(SPLITS, np.diff(ends, prepend=0), strict=True):
        if size < MINIMUM_SPLIT_SYMBOLS and not (name == "test" and size == 0):
            rule = f"the {name} split has {size} {reader.noun}s, at least {MINIMUM_SPLIT_SYMBOLS} are needed"
            raise InputError(recipe.name, rule, "Give more text, or change task.split or task.files.")
    return ends


def _count(recipe: Recipe, reader: Reader, ends: list[int]) -> NDArray[np.int64]:
    """Return how often each symbol occurs in each split, shape (3, numbers of symbols)."""
    counts = np.zeros((len(SPLITS), 0), dtype=np.int64)
    for split, _, numbers in _pieces(recipe, reader, ends):
        found = np.bincount(numbers)
        if len(found) > counts.shape[1]:
            counts = np.pad(counts, ((0, 0), (0, max(len(found), 2 * counts.shape[1]) - counts.shape[1])))
        counts[split, : len(found)] += found
    return counts


def _write_tokens(
    directory: Path, recipe: Recipe, reader: Reader, ends: list[int], token_of_number: NDArray[Any]
) -> None:
    names = [name for name, size in zip(SPLITS, np.diff(ends, prepend=0), strict=True) if size]
    written, starts = [0 for _ in names], [list[int]() for _ in names]
    with ExitStack() as stack:
        files = [stack.enter_context((directory / f"{name}.tokens").open("wb")) for name in names]
        for split, starts_document, numbers in _pieces(recipe, reader, ends):
            if starts_document:
                starts[split].append(written[split])
            files[split].write(token_of_number.take(numbers, mode="clip").data)
            written[split] += len(numbers)
    for name, size, split_starts in zip(names, written, starts, strict=True):
        if size == len(split_starts):
            raise InputError(recipe.name, f"every document of the {name} split is one {reader.noun}", "Join them.")
        (directory / f"{name}.documents").write_bytes(np.array(split_starts, dtype="<i8").tobytes())


def _pieces(recipe: Recipe, reader: Reader, ends: list[int]) -> Iterator[tuple[int, bool, NDArray[np.uint32]]]:
    """Yield (split, whether a document starts here, numbers of symbols) for all sources, one after another.

    A document cut by the end of a split becomes two; when documents are joined, each split is one.
    """
    changed = InputError(recipe.name, "changed while it was being read", "Run the command again.")
    position, split_starts = 0, {0, *ends}
    for source in recipe.sources:
        source_start = position
        for numbers in reader.read(source):
            while len(numbers):
                if position == ends[-1]:
                    raise changed
                split = bisect_right(ends, position)
                piece, numbers = numbers[: ends[split] - position], numbers[ends[split] - position :]
                starts_document = position == source_start and not recipe.joined
                yield split, starts_document or position in split_starts, piece
                position += len(piece)
    if position != ends[-1]:
        raise changed
