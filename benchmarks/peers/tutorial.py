"""A character-level LSTM as tutorials write it: a `Dataset` of windows, a `DataLoader`, a module, Adam as it comes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

WINDOW, STREAMS = 64, 32


class Windows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """One window of a text, a tensor or a list of numbers, and the same one symbol later."""

    def __init__(self, text: torch.Tensor | list[int], window: int) -> None:
        self.text, self.window = text, window

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.window

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        first = index * self.window
        inputs, targets = self.text[first : first + self.window], self.text[first + 1 : first + self.window + 1]
        return torch.as_tensor(inputs), torch.as_tensor(targets)


class LanguageModel(torch.nn.Module):
    """Embedding, LSTM, linear layer; `batch_first` is how it takes symbols and gives logits."""

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        batch_first: bool = True,
    ) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary, embedding)
        self.lstm = torch.nn.LSTM(embedding, hidden, layers, batch_first=batch_first)
        self.dropout = torch.nn.Dropout(dropout)
        self.decoder = torch.nn.Linear(hidden, vocabulary)

    def forward(
        self, inputs: torch.Tensor, state: tuple[torch.Tensor, ...] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        outputs, state = self.lstm(self.embedding(inputs), state)
        return self.decoder(self.dropout(outputs)), state


class Study:
    """A training of one configuration: `epoch` trains and returns the validation loss, in nats per symbol."""

    def __init__(self, config: dict[str, Any], folder: str) -> None:
        train, validation = (Path(folder, f"{part}.txt").read_text("utf-8") for part in ("train", "validation"))
        symbols = {symbol: index for index, symbol in enumerate(sorted(set(train)))}
        self.train, self.validation = (
            torch.tensor([symbols.get(symbol, 0) for symbol in text]) for text in (train, validation)
        )
        self.loader = DataLoader(Windows(self.train, WINDOW), config["batch_size"], shuffle=True, drop_last=True)
        self.model = LanguageModel(len(symbols), 32, config["hidden_size"], dropout=config["dropout"])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config["learning_rate"])

    def epoch(self) -> float:
        self.model.train()
        for inputs, targets in self.loader:
            self.optimizer.zero_grad()
            logits, _ = self.model(inputs)
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return self.evaluate()

    @torch.no_grad()
    def evaluate(self) -> float:
        """In streams whose state is carried from window to window, as tune_rnn does it: one loss for all."""
        self.model.eval()
        length = (len(self.validation) - 1) // STREAMS
        streams = [self.validation[first : first + STREAMS * length].view(STREAMS, length) for first in (0, 1)]
        total, state = 0.0, None
        for inputs, targets in zip(*(stream.split(2 * WINDOW, dim=1) for stream in streams), strict=True):
            logits, state = self.model(inputs, state)
            total += cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        return total / (STREAMS * length)


def log(file: str, loss: float) -> None:
    """A line for each loss, and when it was known."""
    with open(file, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"time": time.time(), "loss": loss}) + "\n")
