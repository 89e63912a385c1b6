"""Words: where they are cut, how they are numbered, which of them a vocabulary has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_rnn.data import load_corpus, vocabulary_from_json
from tune_rnn.data import text as text_module
from tune_rnn.data.text import Source
from tune_rnn.data.words import WordNumbers, WordVocabulary, split_words
from tune_rnn.errors import InputError

words = st.text(st.sampled_from("ab é\n\t語"), max_size=60)


def read(text: str, numbers: WordNumbers) -> list[str]:
    found = np.concatenate(list(numbers.read(Source("x", text.encode()))))
    return [list(numbers.numbers)[number] for number in found]


def build(text: str, size: int | None = None, minimum_count: int = 1) -> WordVocabulary:
    numbers = WordNumbers()
    counts = np.bincount(np.concatenate(list(numbers.read(Source("x", text.encode())))), minlength=len(numbers.numbers))
    return WordVocabulary.of(numbers, counts, size, minimum_count)[0]


def test_a_line_s_end_is_a_word() -> None:
    assert split_words(" the  cat\n\nsat ") == ["the", "cat", "<eos>", "<eos>", "sat"]


@given(words, st.integers(1, 7))
def test_words_are_the_same_wherever_a_block_ends(text: str, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "BLOCK_BYTES", block)
        assert read(text, WordNumbers()) == split_words(text)


def test_the_more_frequent_come_first_and_equals_in_order() -> None:
    assert build("b a c a b d <unk>\n").symbols == ("<unk>", "<eos>", "a", "b", "c", "d")
    assert build("b a c a b d\n", size=4).symbols == ("<unk>", "<eos>", "a", "b")
    assert build("b a c a b d\n", minimum_count=2).symbols == ("<unk>", "<eos>", "a", "b")


def test_text_there_and_back() -> None:
    vocabulary = build("the cat sat on the mat\n")
    tokens = vocabulary.encode("the mat\nsat dog on\n")
    assert [vocabulary.symbols[token] for token in tokens] == ["the", "mat", "<eos>", "sat", "<unk>", "on", "<eos>"]
    assert vocabulary.decode(tokens) == "the mat\nsat <unk> on\n"
    assert vocabulary.decode(vocabulary.encode("\n\nthe\n\n\ncat")) == "\n\nthe\n\n\ncat"
    assert vocabulary.encode("").tolist() == [1], "what comes before a text is the end of another line"


@pytest.mark.parametrize(
    ("prompt", "expected"), [("", "the cat"), ("on", " the cat"), ("on ", "the cat"), ("on\n", "the cat")]
)
def test_a_continuation_can_be_appended(prompt: str, expected: str) -> None:
    vocabulary = build("the cat sat on the mat\n")
    assert vocabulary.continuation(prompt, vocabulary.encode("the cat")) == expected


@given(st.text(st.sampled_from("ab é語\n"), min_size=1))
def test_json_round_trip(text: str) -> None:
    vocabulary = build(f"{text} one")
    assert vocabulary_from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize(
    "text",
    [
        '{"words": "abc"}',
        '{"words": ["<unk>", "<eos>"]}',
        '{"words": ["<eos>", "<unk>", "a"]}',
        '{"words": ["<unk>", "<eos>", "a", "a"]}',
        '{"words": ["<unk>", "<eos>", ""]}',
        '{"words": ["<unk>", "<eos>", 1]}',
    ],
)
def test_refuses_what_it_did_not_write(text: str) -> None:
    with pytest.raises(InputError, match="vocabulary"):
        vocabulary_from_json(text)


def task(corpus: Path, **values: Any) -> SimpleNamespace:
    default = {"kind": "word_lm", "files": None, "split": None, "documents": "separate"}
    limits = {"vocabulary_size": None, "minimum_count": 1}
    return SimpleNamespace(corpus=str(corpus), **default | limits | values)


def test_a_corpus_of_words(corpus: Path) -> None:
    found = load_corpus(task(corpus))
    expected = split_words(corpus.read_text())
    tokens = np.concatenate([found.train.tokens, found.validation.tokens, found.test.tokens])  # type: ignore[union-attr]
    assert [found.vocabulary.symbols[token] for token in tokens] == expected
    assert len(found.train) == int(0.8 * len(expected))


def test_rare_words_are_unknown_and_counted(corpus: Path) -> None:
    found = load_corpus(task(corpus, vocabulary_size=5))
    assert found.vocabulary.size == 5
    held_out = [*found.validation.tokens, *found.test.tokens]  # type: ignore[union-attr]
    assert sum(found.unseen.values()) == sum(token == 0 for token in held_out) > 0
    assert set(found.unseen).isdisjoint(found.vocabulary.symbols[1:])


def test_limits_make_another_cache_entry(corpus: Path) -> None:
    assert load_corpus(task(corpus)).directory != load_corpus(task(corpus, minimum_count=2)).directory


def test_a_text_of_few_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("word " * 999)
    with pytest.raises(InputError, match="the text has 999 words, at least 1000 are needed"):
        load_corpus(task(tmp_path / "short.txt"))


def test_a_text_of_one_word_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("word " * 9999)
    with pytest.raises(InputError, match="one distinct word only"):
        load_corpus(task(tmp_path / "one.txt"))


def test_a_count_that_no_word_reaches_is_refused(corpus: Path) -> None:
    most = max(Counter(split_words(corpus.read_text())).values())
    message = rf"^task\.minimum_count: {most}: no word .* so often \(the largest count is [\d,]+\)\. Lower it\.$"
    with pytest.raises(InputError, match=message):
        load_corpus(task(corpus, minimum_count=most))


def test_penn_treebank_has_its_published_sizes(data_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE_RNN_DATA", str(data_sets))
    found = load_corpus(task(Path("ptb-word")))
    assert found.test is not None
    sizes = [len(found.train), len(found.validation), len(found.test), found.vocabulary.size]
    assert sizes == [929_589, 73_760, 82_430, 10_000]
    assert not found.unseen, "the text itself has <unk>, which is not news"
