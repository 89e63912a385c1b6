"""The cache of token arrays: whole or absent, whoever builds it, whatever happens to it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tune_rnn.data import Corpus, cache, load_corpus
from tune_rnn.errors import InputError


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_text("".join(np.random.default_rng(0).choice(list("abc def\n"), 200_000)))
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def load(text: Path, folder: Path | None) -> Corpus:
    task = SimpleNamespace(kind="char_lm", corpus=str(text), files=None, split=None, documents="separate")
    return load_corpus(task, cache=folder)


def test_built_once(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(text, tmp_path / "cache")
    monkeypatch.setattr("tune_rnn.data.corpus.build_entry", None)
    again = load(text, tmp_path / "cache")
    assert (again.directory, again.vocabulary, again.unseen) == (
        first.directory,
        first.vocabulary,
        first.unseen,
    )
    assert np.array_equal(again.train.tokens, first.train.tokens)


def test_another_split_or_document_rule_is_another_entry(text: Path, tmp_path: Path) -> None:
    directories = set()
    for split in (None, (0.5, 0.25, 0.25)):
        for documents in ("separate", "joined"):
            task = SimpleNamespace(kind="char_lm", corpus=str(text), files=None, split=split, documents=documents)
            directories.add(load_corpus(task, cache=tmp_path).directory)
    assert len(directories) == 4


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, Path.unlink])
@pytest.mark.parametrize("name", ["train.tokens", "test.documents", "vocabulary.json", "unseen.json", "checksums.json"])
def test_a_damaged_entry_is_built_anew(text: Path, tmp_path: Path, name: str, damage: Any) -> None:
    first = load(text, tmp_path / "cache")
    expected = first.train.tokens.tolist()
    damage(first.directory / name)
    again = load(text, tmp_path / "cache")
    assert cache.is_whole(again.directory)
    assert again.train.tokens.tolist() == expected
    assert names(tmp_path / "cache" / "tokens") == [first.directory.name]


def _load_and_sum(text: Path, folder: Path, start: float) -> int:
    time.sleep(max(0, start - time.time()))
    return int(load(text, folder).train.tokens.sum())


def test_four_processes_at_once(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        sums = pool.starmap(_load_and_sum, [(text, folder, time.time() + 1)] * 4, chunksize=1)
    assert len(set(sums)) == 1
    entries = names(folder / "tokens")
    assert len(entries) == 1
    assert not entries[0].startswith(".")


def test_another_process_was_faster(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = cache._seal

    def slow_seal(building: Path) -> None:
        monkeypatch.setattr(cache, "_seal", seal)
        load(text, tmp_path / "cache")  # what the other process does meanwhile
        seal(building)

    monkeypatch.setattr(cache, "_seal", slow_seal)
    corpus = load(text, tmp_path / "cache")
    assert cache.is_whole(corpus.directory)
    assert names(tmp_path / "cache" / "tokens") == [corpus.directory.name]


def test_full_disk(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(building: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cache, "_seal", full)
    with pytest.raises(InputError, match=r"No space left on device.*set TUNE_RNN_CACHE"):
        load(text, tmp_path / "cache")
    assert names(tmp_path / "cache" / "tokens") == []


def test_what_killed_processes_left_is_removed(text: Path, tmp_path: Path) -> None:
    old, new = (tmp_path / "tokens" / f".building-{name}" for name in ("old", "new"))
    old.mkdir(parents=True)
    new.mkdir()
    os.utime(old, (0, 0))
    load(text, tmp_path)
    assert not old.exists()
    assert new.exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNE_RNN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folders(None)[0] == tmp_path / ".cache" / "tune_rnn"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_folders(None)[0] == Path("/xdg/tune_rnn")
    monkeypatch.setenv("TUNE_RNN_CACHE", "/own")
    assert cache.cache_folders(None)[0] == Path("/own")
    assert cache.cache_folders(Path("/given"))[0] == Path("/given")
    assert cache.cache_folders(Path("here"))[0] == Path.cwd() / "here"


def test_a_folder_that_cannot_be_written(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "a file").touch()
    corpus = load(text, tmp_path / "a file")
    assert corpus.directory.is_relative_to(tmp_path / "temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a file"))
    with pytest.raises(InputError, match="no folder can be written"):
        load(text, tmp_path / "a file")


def test_a_read_only_cache_is_still_used(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    first = load(text, tmp_path / "cache")
    monkeypatch.setattr(os, "access", lambda path, mode: "temporary" in str(path))
    assert load(text, tmp_path / "cache").directory == first.directory
