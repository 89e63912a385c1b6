"""A task small enough for a test: a text of a few thousand characters, and configurations by sections."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np

from tune_rnn.data import Split, Vocabulary
from tune_rnn.report import TrialBudget
from tune_rnn.schema import TrialConfig
from tune_rnn.training import Training, TrainingData


def text(characters: int) -> str:
    """Sums in words, the same on every machine and in every Python."""
    words = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
    sums = [f"{words[n % 10]} und {words[n * n % 7]} ist {words[(n + n * n) % 9]}\n" for n in range(characters // 15)]
    return "".join(sums)[:characters]


VOCABULARY = Vocabulary.of(text(2000))

STUDY = """
name: study
task: {{corpus: {corpus}}}
model: {{embedding_size: 16, hidden_size: {{choice: [32, 64]}}}}
training: {{batch_size: 8, sequence_length: 32, learning_rate: {{log_uniform: [1e-3, 1e-2]}}, precision: fp32}}
budget: {{epochs: 6, trials: 6}}
search: {{algorithm: hyperopt, seed: 3}}
final: {{top_k: 0}}
storage: "{storage}"
"""
"""A study of some seconds, as a file; `corpus` and `storage` are to be filled in."""


def split(characters: int, documents: int = 1) -> Split:
    """The text's first characters, cut into documents of nearly equal length."""
    starts = np.arange(documents, dtype=np.int64) * characters // documents
    return Split(VOCABULARY.encode(text(characters)), starts)


DATA = TrainingData(VOCABULARY.size, split(2000), split(500), "separate")


def config(**sections: dict[str, Any]) -> TrialConfig:
    """A trial of a tiny model in fp32; `sections` say what is not so."""
    small: dict[str, dict[str, Any]] = {
        "model": {"embedding_size": 6, "hidden_size": 8},
        "training": {"batch_size": 4, "sequence_length": 16, "precision": "fp32", "learning_rate": 0.01},
    }
    merged = {name: small.get(name, {}) | sections.get(name, {}) for name in {*small, *sections}}
    return TrialConfig.model_validate(merged)


def training(epochs: tuple[float, ...] = (1.0,), seed: int = 0, **sections: dict[str, Any]) -> Training:
    """A training that reports at `epochs`; one epoch of `DATA` has 32 steps."""
    return Training(config(**sections), DATA, TrialBudget("epochs", epochs), seed)


def packed(size: int = 10) -> bytes:
    """What passes for a whole checkpoint of so many bytes, as torch's files are zip archives."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("data", "w" * size)
    return content.getvalue()
