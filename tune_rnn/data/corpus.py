"""A corpus as training sees it: a vocabulary and memory-mapped splits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_rnn.data.cache import build_entry, cache_folders, first_writable, is_whole
from tune_rnn.data.sources import recipe_of
from tune_rnn.data.symbols import AnyVocabulary, vocabulary_from_json
from tune_rnn.data.text import digest
from tune_rnn.data.tokens import Recipe, Split, open_split
from tune_rnn.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """Where the arrays lie and what they mean; small and picklable; splits are mapped when asked for.

    `sha256` identifies the content: that of the file, or of the concatenated sha256s of several files in
    order. `files` has name, sha256 and bytes of each source. `unseen` counts the symbols of validation and test
    that training never shows (they are `<unk>` there).
    """

    name: str
    sha256: str
    files: tuple[dict[str, Any], ...]
    vocabulary: AnyVocabulary
    unseen: dict[str, int]
    directory: Path

    @property
    def train(self) -> Split:
        return self._split("train")

    @property
    def validation(self) -> Split:
        return self._split("validation")

    @property
    def test(self) -> Split | None:
        """The test split, or None; nothing reads it unless it is asked for here."""
        return open_split(self.directory, "test", self.vocabulary)

    def _split(self, name: str) -> Split:
        split = open_split(self.directory, name, self.vocabulary)
        if split is None:
            raise InputError(str(self.directory), f"the {name} split has disappeared", "Run the command again.")
        return split


def load_corpus(task: Any, *, beside: Path | None = None, cache: Path | None = None) -> Corpus:
    """Find the text that `task` names, tokenise it unless the cache has it already, and return the corpus.

    `task` has the attributes corpus (a name in CORPORA, a path, a directory, a list of paths, or None for
    pydoc), files (train, validation, test, or None), split (three fractions, None for 0.8, 0.1, 0.1; used where
    there are no official files), documents ("separate" or "joined"), kind, and for kind "word_lm" vocabulary_size
    (None for all) and minimum_count. `beside` is the folder of the
    experiment file. Raises InputError.
    """
    folders = cache_folders(cache)
    recipe = recipe_of(task, beside, first_writable(folders))
    digests = [digest(source) for source in recipe.sources]
    sha256s = [sha256 for sha256, _ in digests]
    entry = _find_or_build(recipe, recipe.key(sha256s), folders)
    return Corpus(
        name=recipe.name,
        sha256=sha256s[0] if len(sha256s) == 1 else hashlib.sha256("".join(sha256s).encode()).hexdigest(),
        files=tuple(
            {"name": source.name, "sha256": sha256, "bytes": size}
            for source, (sha256, size) in zip(recipe.sources, digests, strict=True)
        ),
        vocabulary=vocabulary_from_json((entry / "vocabulary.json").read_text(encoding="utf-8")),
        unseen=json.loads((entry / "unseen.json").read_text(encoding="utf-8")),
        directory=entry,
    )


def _find_or_build(recipe: Recipe, key: str, folders: list[Path]) -> Path:
    for folder in folders:
        if is_whole(folder / "tokens" / key):
            return folder / "tokens" / key
    entry = first_writable(folders) / "tokens" / key
    build_entry(entry, recipe)
    return entry
