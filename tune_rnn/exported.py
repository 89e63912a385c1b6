"""The trained model as a directory of plain files, `best/`, and back: no pickle, no Ray.

    model = tune_rnn.load_model("results/quickstart")
    print(model.sample("The ", length=200))

The directory has `model.safetensors` (parameters), `config.json` (sizes, precision, threads, metrics, the trial's
configuration) and `vocabulary.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tune_rnn import decoder, evaluation, model, regularizers
from tune_rnn.data import AnyVocabulary, Split, vocabulary_from_json
from tune_rnn.errors import InputError
from tune_rnn.feed import Feed
from tune_rnn.precision import is_available, use_tf32

FORMAT = 1


@dataclass(frozen=True)
class TrainedModel:
    """A model with its vocabulary; `metadata` is what `config.json` holds besides the sizes."""

    sizes: model.Sizes
    parameters: model.Parameters
    vocabulary: AnyVocabulary
    metadata: Mapping[str, Any]

    @property
    def device(self) -> torch.device:
        return self.parameters["embedding.weight"].device

    def evaluate(self, split: Split, documents: str = "separate") -> float:
        """Loss in nats per predicted symbol by the protocol that the search used.

        In the precision of the training where this device has it, else in fp32.
        """
        precision = str(self.metadata.get("precision", "fp32"))
        if not is_available(precision, self.device, self.sizes.cell):
            precision = "fp32"
        use_tf32(precision == "tf32")
        feed = Feed(evaluation.evaluation_windows(split, documents), self.device)
        return evaluation.evaluate(self.sizes, self.parameters, feed, precision, self._masks())

    @torch.no_grad()
    def sample(self, prompt: str = "", length: int = 200, temperature: float = 1.0, seed: int = 0) -> str:
        """`length` characters, or words, drawn in fp32 after `prompt`; temperature 0 takes the likeliest.

        The prompt is not repeated; what it has that the model does not know is read as `<unk>`, which is never drawn.
        An empty prompt starts after a line break. The same seed gives the same text. Raises InputError for a negative
        temperature.
        """
        if not temperature >= 0:
            raise InputError("temperature", "must be 0 or more", value=temperature)
        generator = torch.Generator().manual_seed(seed)
        inputs_TB = torch.from_numpy(self.vocabulary.encode(prompt or "\n")).long().unsqueeze(1).to(self.device)
        state = model.zero_state(self.sizes, 1, self.device)
        masks, drawn = self._masks(), list[int]()
        for _ in range(length):
            outputs_TBH, state = model.encode(self.sizes, self.parameters, state, inputs_TB, masks)
            log_probabilities_TBV = decoder.log_probabilities(self.parameters, outputs_TBH[-1:])
            drawn.append(_draw(log_probabilities_TBV[0, 0].cpu(), temperature, generator))
            inputs_TB = torch.tensor([[drawn[-1]]], device=self.device)
        return self.vocabulary.continuation(prompt, drawn)

    def _masks(self) -> dict[str, torch.Tensor]:
        """Zoneout's expected state is a part of the model, and its rates are in the trial's configuration."""
        strengths = self.metadata.get("config", {}).get("regularizers", {})
        rates = {name: strengths.get(name, 0.0) for name in ("zoneout_hidden", "zoneout_cell")}
        return regularizers.expected_masks(self.sizes, regularizers.Dropout(**rates), self.device)


def _draw(log_probabilities_V: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    known = log_probabilities_V[1:].double()  # never <unk>, which is symbol 0
    if temperature == 0:
        return 1 + int(known.argmax())
    probabilities = torch.softmax((known - known.max()) / temperature, dim=-1)  # no overflow near temperature 0
    return 1 + int(torch.multinomial(probabilities, 1, generator=generator))


def export(
    directory: Path,
    sizes: model.Sizes,
    parameters: Mapping[str, torch.Tensor],
    vocabulary: AnyVocabulary,
    metadata: Mapping[str, Any],
) -> None:
    """Write a model directory; an existing one is replaced only when the new one is complete."""
    fresh = directory.with_name(directory.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    (fresh / "model.safetensors").write_bytes(save(tensors))  # `save_file` lets nobody else read it
    config = {"format": FORMAT, "sizes": asdict(sizes), **metadata}
    (fresh / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (fresh / "vocabulary.json").write_text(vocabulary.to_json() + "\n", "utf-8")
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.replace(directory, old)
    os.replace(fresh, directory)
    shutil.rmtree(old, ignore_errors=True)


def load_model(path: str | Path, device: str = "cpu") -> TrainedModel:
    """The model of a run directory, or of a `best/` directory itself.

    Raises InputError where there is none, or its files are damaged or do not belong together.
    """
    directory = Path(path)
    if not (directory / "config.json").is_file():
        directory = directory / "best"
    if not (directory / "config.json").is_file():
        remedy = "Give a run directory that has best/, or best/ itself."
        raise InputError(str(path), "holds no exported model", remedy)
    try:
        config = dict(json.loads((directory / "config.json").read_text("utf-8")))
        if config.pop("format") != FORMAT:
            raise InputError(str(directory / "config.json"), f"is not of format {FORMAT}", "Update tune_rnn.")
        raw = config.pop("sizes")
        sizes = model.Sizes(**raw | {"hidden": tuple(raw["hidden"])})
        vocabulary = vocabulary_from_json((directory / "vocabulary.json").read_text("utf-8"))
        parameters = load_file(directory / "model.safetensors")
        _check_sizes(sizes, parameters, vocabulary)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        remedy = "Export it again with `tune-rnn resume`, or copy the whole directory."
        raise InputError(str(directory), f"is not a complete model directory ({error})", remedy) from error
    return TrainedModel(sizes, model.to_device(parameters, torch.device(device)), vocabulary, config)


def _check_sizes(sizes: model.Sizes, parameters: model.Parameters, vocabulary: AnyVocabulary) -> None:
    """Raise ValueError where the three files are not of one model."""
    if {name: tuple(value.shape) for name, value in parameters.items()} != model.shapes(sizes):
        raise ValueError("model.safetensors has other sizes than config.json says")
    if vocabulary.size != sizes.vocabulary:
        raise ValueError(f"vocabulary.json has {vocabulary.size} symbols, config.json says {sizes.vocabulary}")
