"""Corpora: splits, documents, where sources are found, and one clear message for every bad input."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.data import CORPORA, Corpus, RandomWindows, Split, StreamWindows, Vocabulary, load_corpus
from tune_rnn.data.corpora import NamedCorpus, PublishedFile
from tune_rnn.data.symbols import Characters
from tune_rnn.data.text import Source
from tune_rnn.data.tokens import Recipe, _pieces  # the split's arithmetic, without files
from tune_rnn.errors import InputError

ALPHABET = "abcdefghijklmnopqrstuvwxyz .\n"


def task(**values: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"kind": "char_lm", "corpus": None, "files": None, "split": None, "documents": "separate"} | values
    )


def a_text(characters: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(ALPHABET), characters))


def text_of(corpus: Corpus, split: Split | None) -> str:
    assert split is not None
    return corpus.vocabulary.decode(split.tokens)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(a_text(5000), encoding="utf-8")
    return path


def test_split_by_characters(text_file: Path) -> None:
    corpus = load_corpus(task(corpus=str(text_file)))
    text = text_file.read_text()
    parts = [text_of(corpus, split) for split in (corpus.train, corpus.validation, corpus.test)]
    assert parts == [text[:4000], text[4000:4500], text[4500:]]
    assert corpus.vocabulary == Vocabulary.of(text[:4000])
    assert corpus.train.predictions == 3999
    assert not corpus.train.tokens.flags.writeable
    assert corpus.name == "text.txt"
    assert corpus.sha256 == hashlib.sha256(text_file.read_bytes()).hexdigest()
    assert corpus.files == ({"name": str(text_file), "sha256": corpus.sha256, "bytes": 5000},)


def test_no_test_split_where_its_fraction_is_zero(text_file: Path) -> None:
    corpus = load_corpus(task(corpus=str(text_file), split=(0.9, 0.1, 0)))
    assert (len(corpus.train), len(corpus.validation), corpus.test) == (4500, 500, None)


def test_line_ends_and_byte_order_mark_change_nothing_but_the_sha256(text_file: Path, tmp_path: Path) -> None:
    plain = load_corpus(task(corpus=str(text_file)))
    other = tmp_path / "other.txt"
    other.write_bytes(b"\xef\xbb\xbf" + text_file.read_bytes().replace(b"\n", b"\r\n"))
    corpus = load_corpus(task(corpus=str(other)))
    assert np.array_equal(corpus.train.tokens, plain.train.tokens)
    assert corpus.sha256 != plain.sha256


def test_unseen_characters_are_unknown_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("ab" * 1000 + "éa" * 120 + "b" * 130 + "中é" * 5 + "a" * 120, encoding="utf-8")
    corpus = load_corpus(task(corpus=str(path), split=[0.8, 0.1, 0.1]))
    assert corpus.vocabulary.symbols == ("<unk>", "a", "b")
    assert corpus.unseen == {"é": 125, "中": 5}
    assert text_of(corpus, corpus.validation).count("\ufffd") == 120


@pytest.mark.parametrize("documents", ["separate", "joined"])
def test_a_directory_is_its_text_files(tmp_path: Path, documents: str) -> None:
    texts = [a_text(size, size) for size in (700, 400, 900)]
    for name, text in zip(["a.txt", "b.txt", "c.txt"], texts, strict=True):
        (tmp_path / name).write_text(text)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "notes.md").write_text("not a document")
    corpus = load_corpus(task(corpus=str(tmp_path), split=(0.5, 0.2, 0.3), documents=documents))
    # 1,000 characters train, 400 validation, 600 test: the second and the third document are cut in two.
    starts = [split.document_starts.tolist() for split in (corpus.train, corpus.validation, corpus.test) if split]
    assert starts == ([[0, 700], [0, 100], [0]] if documents == "separate" else [[0], [0], [0]])
    assert text_of(corpus, corpus.train) + text_of(corpus, corpus.validation) == "".join(texts)[:1400]
    sha256s = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(tmp_path.glob("*.txt"))]
    assert corpus.sha256 == hashlib.sha256("".join(sha256s).encode()).hexdigest()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.data())
def test_documents_begin_where_sources_and_splits_do(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    ends = sorted(data.draw(st.lists(st.integers(0, total), min_size=2, max_size=2)))
    contents = [chr(97 + number) * size for number, size in enumerate(sizes)]
    sources = tuple(Source("x", content.encode()) for content in contents)
    pieces = list(_pieces(Recipe("x", (sources,), (0.8, 0.1, 0.1), joined=False), Characters(), [*ends, total]))
    assert sum(len(codes) for _, _, codes in pieces) == total
    position = 0
    source_starts = {sum(sizes[:number]) for number in range(len(sizes))}
    for split, starts_document, codes in pieces:
        assert split == sum(position >= end for end in ends)
        assert starts_document == (position in source_starts | {0, *ends})
        position += len(codes)


def test_files_for_each_split(tmp_path: Path) -> None:
    for name, size in {"one": 600, "two": 700, "valid": 200, "test": 150}.items():
        (tmp_path / name).write_text(a_text(size, size))
    files: dict[str, Any] = {"train": ["one", "two"], "validation": "valid"}
    corpus = load_corpus(task(files=files), beside=tmp_path)
    assert corpus.train.document_starts.tolist() == [0, 600]
    assert (len(corpus.train), len(corpus.validation), corpus.test) == (1300, 200, None)
    assert corpus.name == "one and 1 more"
    with_test = load_corpus(task(files=SimpleNamespace(**files, test="test")), beside=tmp_path)
    assert text_of(with_test, with_test.test) == a_text(150, 150)
    assert len(with_test.files) == 4


def test_the_current_directory_comes_before_the_experiment_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for number, folder in enumerate((here, beside)):
        folder.mkdir()
        (folder / "text").write_text(a_text(2000, number))
    monkeypatch.chdir(here)
    corpus = load_corpus(task(corpus="text"), beside=beside)
    assert text_of(corpus, corpus.train) == a_text(2000, 0)[:1600]
    (here / "text").unlink()
    corpus = load_corpus(task(corpus="text"), beside=beside)
    assert text_of(corpus, corpus.train) == a_text(2000, 1)[:1600]


def test_a_pickled_corpus_is_small_and_opens_the_same_arrays(text_file: Path) -> None:
    corpus = load_corpus(task(corpus=str(text_file)))
    content = pickle.dumps(corpus)
    assert len(content) < 2000
    assert np.array_equal(pickle.loads(content).train.tokens, corpus.train.tokens)


@pytest.mark.parametrize("alphabet", [ALPHABET, "é中\U0001f600ñ\n "])
@pytest.mark.parametrize("streams", [1, 32, 256, 4096])
def test_any_text_over_20_kb_trains_with_any_batch_size(tmp_path: Path, alphabet: str, streams: int) -> None:
    path = tmp_path / "text"
    path.write_text("".join(np.random.default_rng(0).choice(list(alphabet), 21_000)), encoding="utf-8")
    corpus = load_corpus(task(corpus=str(path)))
    for split in (corpus.train, corpus.validation):
        windows = StreamWindows(split, streams, 64)
        assert sum(windows.batch(index).predictions for index in range(len(windows))) == split.predictions
        assert RandomWindows(split, streams, 64, seed=0).batch(0).predictions > 0


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


GOOD = a_text(3000).encode()
BAD_INPUT: dict[str, tuple[dict[str, bytes], dict[str, Any], str]] = {
    "missing": (
        {},
        {"corpus": "nothing.txt"},
        r"task.corpus: 'nothing.txt': neither a named corpus nor an ex",
    ),
    "near a name": ({}, {"corpus": "tinyshakespear"}, "Did you mean tinyshakespeare?"),
    "empty name": ({}, {"corpus": ""}, "task.corpus: '': neither a named corpus"),
    "a text for a path": ({}, {"corpus": "word " * 1000}, "neither a named corpus nor an existing path"),
    "empty list": ({}, {"corpus": []}, "task.corpus: .*names no file"),
    "empty": ({"a": b""}, {"corpus": "a"}, "^a: is empty"),
    "only a byte-order mark": ({"a": b"\xef\xbb\xbf"}, {"corpus": "a"}, "^a: is empty"),
    "binary": ({"a": GOOD + b"\0"}, {"corpus": "a"}, "a: looks like a binary file: NUL byte at offset 3000"),
    "not UTF-8": ({"a": GOOD + b"\xe9"}, {"corpus": "a"}, "a: is not UTF-8: byte 0xe9 at offset 3000"),
    "one character": ({"a": b"a" * 3000}, {"corpus": "a"}, "a: .*one distinct character only"),
    "too short": ({"a": GOOD[:999]}, {"corpus": "a"}, "a: the text has 999 characters, at least 1000 are"),
    "short validation": (
        {"a": GOOD},
        {"corpus": "a", "split": [0.9, 0.01, 0.09]},
        "validation split has 30 characters, at least 100 .* task.split",
    ),
    "short validation file": (
        {"a": GOOD, "b": GOOD[:99]},
        {"files": {"train": "a", "validation": "b"}},
        "the validation split has 99 characters",
    ),
    "sum of the split": (
        {"a": GOOD},
        {"corpus": "a", "split": [0.8, 0.1, 0.2]},
        r"task.split: \[0.8, 0.1, 0.2\]:",
    ),
    "nothing to train on": ({"a": GOOD}, {"corpus": "a", "split": [0.0, 0.5, 0.5]}, "task.split: .* above 0"),
    "two fractions": ({"a": GOOD}, {"corpus": "a", "split": [0.9, 0.1]}, "task.split: .*three fractions"),
    "negative fraction": ({"a": GOOD}, {"corpus": "a", "split": [0.8, 0.3, -0.1]}, "task.split: "),
    "not a number": ({"a": GOOD}, {"corpus": "a", "split": [float("nan"), 0.1, 0.1]}, "task.split: "),
    "split of official files": (
        {"a": GOOD, "b": GOOD},
        {"files": {"train": "a", "validation": "b"}, "split": [0.5, 0.4, 0.1]},
        "task.split: .*Remove task.split",
    ),
    "directory without text": (
        {"d/a.md": GOOD},
        {"corpus": "d"},
        "task.corpus: 'd': the directory has no .txt",
    ),
    "only train": ({"a": GOOD}, {"files": {"train": "a"}}, "task.files.validation: is missing"),
    "only validation": ({"a": GOOD}, {"files": {"validation": "a"}}, "task.files.train: is missing"),
    "missing file": (
        {"a": GOOD},
        {"files": {"train": "a", "validation": "b"}},
        "task.files.validation: 'b': no such",
    ),
    "both": (
        {"a": GOOD},
        {"corpus": "a", "files": {"train": "a", "validation": "a"}},
        "task: corpus and files",
    ),
    "documents of one character": (
        {f"d/{number:04}.txt": b"ab"[number % 2 :][:1] for number in range(1000)},
        {"corpus": "d"},
        "every document of the train split is one character",
    ),
}


@pytest.mark.parametrize(("files", "values", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input(
    files: dict[str, bytes],
    values: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    work.mkdir()
    _write(work, files)
    monkeypatch.chdir(work)
    with pytest.raises(InputError, match=message):
        load_corpus(task(**values), cache=cache)
    assert not [path for path in cache.rglob("*") if path.name != "tokens"], "nothing half-written"


def test_pydoc_is_the_default() -> None:
    corpus = load_corpus(task())
    from pydoc_data.topics import topics

    assert corpus.name == "pydoc"
    assert len(corpus.files) == len(topics)
    assert text_of(corpus, corpus.train).startswith(topics[min(topics)])
    assert len(corpus.train.document_starts) > 30


@pytest.mark.parametrize(
    ("name", "sizes", "symbols"),
    [
        ("tinyshakespeare", [892_315, 111_540, 111_539], 65),
        ("ptb-char", [5_017_482, 393_042, 442_423], 50),
        ("kjv", [3_321_296, 415_162, 415_162], 73),
    ],
)
def test_published_sizes(name: str, sizes: list[int], symbols: int, data_sets: Path) -> None:
    corpus = load_corpus(task(corpus=name))
    assert corpus.test is not None
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == sizes
    assert corpus.vocabulary.size == symbols + 1  # and the unknown


class TestNamedCorpora:
    """Where a named corpus is looked for, with a corpus of our own at a file:// address."""

    CONTENT = a_text(2000).encode()

    @pytest.fixture(autouse=True)
    def _published(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.origin, self.cache = tmp_path / "origin.txt", tmp_path / "cache"
        self.origin.write_bytes(self.CONTENT)
        file = PublishedFile("text.txt", hashlib.sha256(self.CONTENT).hexdigest(), self.origin.as_uri())
        monkeypatch.setitem(CORPORA, "our-text", NamedCorpus("a test", (file,)))
        monkeypatch.delenv("TUNE_RNN_DATA", raising=False)

    def load(self) -> Corpus:
        return load_corpus(task(corpus="our-text"), cache=self.cache)

    def test_download_once(self) -> None:
        first = self.load()
        self.origin.unlink()
        assert self.load().sha256 == first.sha256 == hashlib.sha256(self.CONTENT).hexdigest()
        assert first.files[0]["name"] == "our-text/text.txt"

    def test_damaged_download_is_fetched_again(self) -> None:
        self.load()
        (self.cache / "corpora" / "our-text" / "text.txt").write_bytes(b"cut off")
        assert self.load().files[0]["bytes"] == 2000

    def test_local_directory_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TUNE_RNN_DATA", str(tmp_path))
        (tmp_path / "our_text").mkdir()
        local = tmp_path / "our_text" / "text.txt"
        local.write_bytes(self.CONTENT)
        self.origin.unlink()
        self.load()
        assert not (self.cache / "corpora").exists()
        local.write_bytes(self.CONTENT + b"!")
        with pytest.raises(InputError, match="is not the published file of our-text"):
            self.load()

    def test_offline(self) -> None:
        self.origin.unlink()
        with pytest.raises(InputError, match="could not be downloaded") as caught:
            self.load()
        for part in (self.origin.as_uri(), "$TUNE_RNN_DATA/our_text/text.txt", "Connect to the network"):
            assert part in str(caught.value)
        assert not list((self.cache / "corpora" / "our-text").iterdir())

    def test_wrong_content(self) -> None:
        self.origin.write_bytes(b"something else")
        with pytest.raises(InputError, match=r"gave 14 bytes with sha256 .*, not "):
            self.load()
        assert not list((self.cache / "corpora" / "our-text").iterdir())

    def test_no_address(self) -> None:
        with pytest.raises(InputError, match=r"kjv.txt .* has no download address.*TUNE_RNN_DATA/kjv/kjv.txt"):
            load_corpus(task(corpus="kjv"), cache=self.cache)
