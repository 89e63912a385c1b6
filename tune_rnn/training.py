"""Training one configuration: a generator of reports that knows nothing of tuning.

    training = Training(config, data, budget, seed=0)
    for report in training.run():
        ...

A step is a function of (parameters, state, step number, seed): masks and the data position derive from them, so
a checkpoint is the tensors and a few numbers, and training goes on from it bit for bit (CPU, fp32, same threads).

Shapes: T time steps, B streams, V symbols.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tune_rnn import evaluation, feed, model, regularizers
from tune_rnn.captured import Captured
from tune_rnn.data import RandomWindows, Split, StreamWindows, VariableWindows
from tune_rnn.errors import TrialFailed
from tune_rnn.interval import Interval
from tune_rnn.loss_scale import LossScale
from tune_rnn.memory import check_memory
from tune_rnn.objective import forward_pass, objective
from tune_rnn.optimization import Optimizer, Schedule
from tune_rnn.precision import autocast, is_available, use_tf32
from tune_rnn.report import Report, TrialBudget
from tune_rnn.schema import TrialConfig

CHECK_EVERY = 25
"""Training steps between looks at the loss for divergence (a look makes a GPU wait)."""

GRACE = 0.05
"""Fraction of the budget during which a loss may be above twice the baseline."""


@dataclass(frozen=True)
class TrainingData:
    """What a trial reads: vocabulary size and two splits. The test split is not among them."""

    vocabulary_size: int
    train: Split
    validation: Split
    documents: str

    @property
    def baseline_loss(self) -> float:
        """Loss of the uniform distribution over the vocabulary, in nats."""
        return math.log(self.vocabulary_size)


class Training:
    """One trial: parameters, optimizer, carried state and position; `run` yields its reports."""

    def __init__(
        self, config: TrialConfig, data: TrainingData, budget: TrialBudget, seed: int, device: str = "cpu"
    ) -> None:
        training = config.training
        self.config, self.budget, self.seed = config, budget, seed
        self.baseline_loss = data.baseline_loss
        self.device = torch.device(device)
        if not is_available(training.precision, self.device, config.model.cell):
            hint = "Set training.precision: auto."
            what = f"cell {config.model.cell} cannot train with {training.precision}"
            raise TrialFailed(f"{what} on this {self.device.type}. {hint}")
        use_tf32(training.precision == "tf32")
        self.sizes = sizes_of(config, data.vocabulary_size)
        check_memory(self.sizes, training.optimizer, self.device)
        self.learning_rate = training.learning_rate
        self.windows = _training_windows(config, data, seed)
        self.feed = feed.Feed(self.windows, self.device)
        self.validation = feed.Feed(evaluation.evaluation_windows(data.validation, data.documents), self.device)
        self.predictions = data.train.predictions
        self.parameters = self._initial_parameters()
        self.dropout = regularizers.Dropout.of(config.regularizers)
        self.total_steps = self._steps(budget.report_at[-1])
        self.averaging = regularizers.Averaging(config.regularizers, self.total_steps)
        self.optimizer = Optimizer(training.optimizer, list(self.parameters.values()))
        self.generator = torch.Generator(self.device)
        self.captured = self._captured()
        self.loss_scale = LossScale(self.device) if training.precision == "fp16" else None
        self.schedule = Schedule(training.schedule, training.learning_rate, self.total_steps)
        self.state = model.zero_state(self.sizes, training.batch_size, self.device)
        self.best_parameters: model.Parameters = {}
        self.best_loss = math.inf
        self.best_step = self.step = self.tokens = self.reports = self.reports_without_improvement = 0

    def run(self) -> Iterator[Report]:
        """Train to the end of the budget; a report at each of its amounts.

        Ends sooner when the trial diverges (a loss that is not finite, or above twice the uniform
        distribution's after the first 5 % of the budget) or when `patience` reports in a row did not improve.
        """
        self.captured = self.captured or self._captured()
        try:
            for spent in self.budget.report_at[self.reports :]:
                report = self._iteration(spent)
                self.reports += 1
                yield report
                if report.finished:
                    return
        finally:
            self.captured = None  # it refers to this training, which would keep its memory on the GPU

    def _iteration(self, spent: float) -> Report:
        """Train up to the amount `spent`, evaluate, report."""
        started, tokens_before = time.perf_counter(), self.tokens
        interval = Interval(self.device)
        loss, reason = math.nan, ""
        while not reason and self.step < self._steps(spent):
            before = self.tokens
            interval.add(*self.train_step(), self.tokens - before)
            if self.step % CHECK_EVERY == 0:
                reason = self._divergence(interval.recent_loss(), "training loss")
        train_loss, gradient_norm = interval.means()
        trained = time.perf_counter()
        if not reason:
            loss = self.evaluate()
            if self.averaging.listens:
                self.averaging.observe(loss, self.step)
            reason = self._divergence(loss, "validation loss")
        improved = not reason and self._compare(loss)
        finished, reason = ("diverged", reason) if reason else self._ending(spent)
        diverged = finished == "diverged"
        return Report(
            spent=spent,
            tokens=self.tokens,
            step=self.step,
            train_loss=None if diverged else train_loss,
            validation_loss=None if diverged else loss,
            best_loss=self.best_loss if math.isfinite(self.best_loss) else None,
            learning_rate=self.learning_rate,
            gradient_norm=gradient_norm,
            tokens_per_second=(self.tokens - tokens_before) / max(trained - started, 1e-9),
            training_s=time.perf_counter() - started,
            improved=improved,
            finished=finished,
            reason=reason,
        )

    def train_step(self) -> tuple[Tensor, Tensor]:
        """Train on one window; returns its loss, and the gradient norm before clipping."""
        regularizers.seed_for_step(self.generator, self.seed, self.step)
        noise = regularizers.noise_deviation(self.config.regularizers.gradient_noise, self.step)
        spans = self.windows.spans(self.step)
        self.learning_rate = self._rate(spans.steps)
        if self.captured is not None and spans.steps == self.config.training.sequence_length:
            places_3B = feed.upload(spans, self.device)
            numbers = torch.tensor([self.learning_rate, noise]).pin_memory().to(self.device, non_blocking=True)
            loss, norm, *parts = self.captured(places_3B, numbers, *model.parts_of(self.state))
            self.state = model.state_of(self.sizes, parts)
        else:
            loss, norm, self.state = self._step(self.feed.window(spans), self.state, self.learning_rate, noise)
        self.step += 1
        self.tokens += spans.predictions
        self.averaging.update(self.parameters, self.step)
        return loss, norm

    def _captured(self) -> Captured | None:
        """The step on a window of full length as one launch, on a GPU, where no shape depends on the data."""
        if self.device.type != "cuda" or self.sizes.decoder == "adaptive" or self.config.training.windows == "variable":
            return None
        return Captured(self._step_of_tensors, self.generator)

    def _step_of_tensors(self, places_3B: Tensor, numbers: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        """`_step` as a function of tensors alone: where the windows are, (learning rate, noise), and the state's."""
        window = self.feed.cut(places_3B, self.config.training.sequence_length)
        loss, norm, state = self._step(window, model.state_of(self.sizes, parts), numbers[0], numbers[1])
        return loss, norm, *model.parts_of(state)

    def _step(
        self, window: feed.Window, state: model.State, learning_rate: float | Tensor, noise: float | Tensor
    ) -> tuple[Tensor, Tensor, model.State]:
        """Change the parameters; returns loss, gradient norm and state. Looks at no number on the device."""
        strengths, (inputs_TB, targets_TB, fresh_B) = self.config.regularizers, window
        draws = 2 if strengths.fraternal_dropout > 0 else 1
        shape_TB = (inputs_TB.shape[0], inputs_TB.shape[1])
        masks = [regularizers.draw_masks(self.sizes, self.dropout, shape_TB, self.generator) for _ in range(draws)]
        if strengths.state_reset > 0:
            fresh_B = regularizers.reset_some(fresh_B, strengths.state_reset, self.generator)
        state = model.reset_state(state, fresh_B)
        with autocast(self.device, self.config.training.precision):
            passes = [forward_pass(self.sizes, self.parameters, state, inputs_TB, drawn) for drawn in masks]
            loss, total = objective(self.parameters, passes, targets_TB, strengths)
        if self.loss_scale is not None:
            total = total * self.loss_scale.scale
        total.backward()
        gradient_norm = self._update(learning_rate, noise)
        return loss.detach(), gradient_norm, model.detach_state(passes[0].state)

    def _rate(self, length: int) -> float:
        """The step's learning rate; windows of variable length have it in proportion to theirs."""
        training = self.config.training
        scale = length / training.sequence_length if training.windows == "variable" else 1.0
        return scale * self.schedule.rate(self.step)

    def _update(self, learning_rate: float | Tensor, noise: float | Tensor) -> Tensor:
        """Penalise, clip, add noise, decay, step, limit; returns the gradient norm before clipping."""
        strengths, parameters = self.config.regularizers, list(self.parameters.values())
        if self.loss_scale is not None:
            self.loss_scale.unscale([parameter.grad for parameter in parameters if parameter.grad is not None])
        if strengths.l1 > 0 or strengths.l2 > 0:
            regularizers.add_penalty(regularizers.penalised(self.parameters), strengths.l1, strengths.l2)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        gradient_norm = regularizers.clip_gradients(gradients, strengths.clip_value, strengths.clip_norm)
        if strengths.gradient_noise > 0:
            regularizers.add_noise(gradients, noise, self.generator)
        with torch.no_grad():
            regularizers.decay_weights(parameters, learning_rate, strengths.weight_decay)
        self.optimizer.step(learning_rate)
        if strengths.max_norm > 0:
            with torch.no_grad():
                regularizers.limit_norms(self.parameters, strengths.max_norm)
        return gradient_norm

    def evaluate(self) -> float:
        """Loss on the validation split, in nats per predicted symbol, of the averaged weights where there are any."""
        return self._evaluate(self.averaging.evaluated(self.parameters))

    def _evaluate(self, parameters: model.Parameters) -> float:
        masks = regularizers.expected_masks(self.sizes, self.dropout, self.device)
        return evaluation.evaluate(self.sizes, parameters, self.validation, self.config.training.precision, masks)

    def _divergence(self, loss: float, what: str) -> str:
        """Why a loss means that the trial diverged; empty if it does not."""
        if not math.isfinite(loss):
            return f"{what} became {loss} at step {self.step}"
        if self.step > GRACE * self.total_steps and loss > 2 * self.baseline_loss:
            limit = 2 * self.baseline_loss
            return f"{what} rose to {loss:.3f} at step {self.step}, above twice the uniform loss ({limit:.3f})"
        return ""

    def _compare(self, loss: float) -> bool:
        """Keep the parameters of the lowest validation loss so far; whether this was it."""
        improved = loss < self.best_loss
        if improved:
            self.best_loss, self.best_step = loss, self.step
            evaluated = self.averaging.evaluated(self.parameters)
            self.best_parameters = {name: value.detach().clone() for name, value in evaluated.items()}
        self.reports_without_improvement = 0 if improved else self.reports_without_improvement + 1
        self.schedule.observe(improved)
        return improved

    def _ending(self, spent: float) -> tuple[str, str]:
        """Whether this report is the last one, and why."""
        if spent == self.budget.report_at[-1]:
            return "budget", "trained to the end of its budget"
        patience = self.config.training.patience
        if 0 < patience <= self.reports_without_improvement:
            return "patience", f"no improvement in {patience} reports"
        return "", ""

    def _steps(self, amount: float) -> int:
        """Training steps that an amount of the budget buys, at least one."""
        passes = amount if self.budget.unit == "epochs" else amount / self.predictions
        return max(1, round(passes * len(self.windows)))

    def _initial_parameters(self) -> model.Parameters:
        section, generator = self.config.model, torch.Generator().manual_seed(self.seed)
        scheme, forget_bias = section.initialization, section.forget_bias
        initial = model.initialise(self.sizes, generator, scheme=scheme, forget_bias=forget_bias)
        parameters = model.to_device(initial, self.device)
        for parameter in parameters.values():
            parameter.requires_grad_()
        return parameters

    def state_dict(self) -> dict[str, Any]:
        """All that `run` needs to go on from the last report, as tensors and plain values."""
        current = {name: value.detach() for name, value in self.parameters.items()}
        best_is_current = self.best_step == self.step and not self.averaging.parameters
        return {
            "parameters": current,
            "best_parameters": None if best_is_current else self.best_parameters,
            "averaging": self.averaging.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "state": self.state,
            "schedule_scale": self.schedule.scale,
            "loss_scale": self.loss_scale.state_dict() if self.loss_scale else {},
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` of a training with the same configuration, data and seed returned.

        In a population the seed differs, and so do learning rate and strengths, which are never those of the saved.
        """
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(saved["parameters"][name])
        best = saved["parameters"] if saved["best_parameters"] is None else saved["best_parameters"]
        self.best_parameters = {name: value.to(self.device, copy=True) for name, value in best.items()}
        self.optimizer.load_state_dict(saved["optimizer"])
        self.averaging.load_state_dict(saved["averaging"], self.device)
        self.state = tuple(tuple(part.to(self.device) for part in layer) for layer in saved["state"])
        self.schedule.scale = saved["schedule_scale"]
        if self.loss_scale is not None:
            self.loss_scale.load_state_dict(saved["loss_scale"])
        for name in _COUNTERS:
            setattr(self, name, saved[name])


_COUNTERS = ("best_loss", "best_step", "step", "tokens", "reports", "reports_without_improvement")


def sizes_of(config: TrialConfig, vocabulary_size: int) -> model.Sizes:
    """The model sizes of a configuration."""
    section = config.model
    return model.Sizes.of(
        vocabulary_size,
        cell=section.cell,
        embedding_size=section.embedding_size,
        hidden_size=section.hidden_size,
        layers=section.layers,
        tied=section.tied,
        decoder=section.decoder,
        layer_norm=section.layer_norm,
    )


def _training_windows(
    config: TrialConfig, data: TrainingData, seed: int
) -> StreamWindows | RandomWindows | VariableWindows:
    training = config.training
    shape = (data.train, training.batch_size, training.sequence_length, data.documents)
    if training.windows == "random":
        return RandomWindows(*shape, seed=seed)
    return VariableWindows(*shape, seed=seed) if training.windows == "variable" else StreamWindows(*shape)
