"""From text to batches: sources → characters → cached token arrays → windows. No torch, no Ray."""

from __future__ import annotations

from tune_rnn.data.corpora import CORPORA
from tune_rnn.data.corpus import Corpus, load_corpus
from tune_rnn.data.sources import absolute_paths
from tune_rnn.data.symbols import AnyVocabulary, vocabulary_from_json
from tune_rnn.data.tokens import Split
from tune_rnn.data.variable import VariableWindows
from tune_rnn.data.vocabulary import Vocabulary
from tune_rnn.data.windows import IGNORE, Batch, RandomWindows, Spans, StreamWindows, cut_windows

__all__ = [
    "CORPORA",
    "IGNORE",
    "AnyVocabulary",
    "Batch",
    "Corpus",
    "RandomWindows",
    "Spans",
    "Split",
    "StreamWindows",
    "VariableWindows",
    "Vocabulary",
    "absolute_paths",
    "cut_windows",
    "load_corpus",
    "vocabulary_from_json",
]
