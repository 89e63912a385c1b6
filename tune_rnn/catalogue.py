"""The table of regularisers: what each does, where it comes from, where to search it, and what it costs.

    python -m tune_rnn.catalogue        # the README's table

A test holds it against the schema and the README. Costs were measured by `benchmarks/regularizer_cost.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A row. `costs`: extra time of a training step in per cent for each of the benchmark's models, 1 to 4."""

    key: str
    place: str
    formula: str
    source: str
    search: str
    """Where to search it, as an experiment file has it."""
    costs: tuple[float, ...]
    fused: bool = True
    """Whether the recurrence stays in PyTorch's fused kernels."""
    pack: bool = False
    """Whether it maps over trials with `torch.func.vmap` as it is, each with a strength of its own; the others work on
    one trial's tensors in place."""

    value: str | bool | None = None
    """Of a key that names what is done: the value that this row is about; None for a strength."""

    @property
    def name(self) -> str:
        """As the README has it: without the section that most are in."""
        return self.full_name.removeprefix("regularizers.")

    @property
    def full_name(self) -> str:
        """The key, with the value that the row is about."""
        return self.key if self.value is None else f"{self.key}: {str(self.value).lower()}"


CATALOGUE = (
    Entry(
        "regularizers.input_dropout",
        "embedded input",
        "r ~ Bernoulli(1−p)/(1−p)",
        "Srivastava et al. 2014",
        "{uniform: [0, 0.5]}",
        (0.2, 1.3, 0.7, 0.4),
        pack=True,
    ),
    Entry(
        "regularizers.hidden_dropout",
        "between layers (with one layer it does nothing)",
        "the same",
        "Zaremba et al. 2014",
        "{uniform: [0, 0.5]}",
        (0.4, -0.2, -0.1, -0.6),
        pack=True,
    ),
    Entry(
        "regularizers.output_dropout",
        "last layer's output",
        "the same",
        "Zaremba et al. 2014",
        "{uniform: [0, 0.5]}",
        (1.0, 1.7, 2.5, 0.5),
        pack=True,
    ),
    Entry(
        "regularizers.locked_dropout",
        "these three",
        "`true`, the default: one mask per window; `false`: one per time step",
        "Gal & Ghahramani 2016",
        "{choice: [true, false]}",
        (6.2, 2.1, -0.6, -0.5),
        pack=True,
        value=False,
    ),
    Entry(
        "regularizers.embedding_dropout",
        "whole symbols of the input",
        "the same r for all places of a symbol in a window",
        "Gal & Ghahramani 2016",
        "{uniform: [0, 0.2]}",
        (0.5, 1.2, -0.7, 0.4),
        pack=True,
    ),
    Entry(
        "regularizers.weight_drop",
        "hidden-to-hidden weights",
        "the same, one mask per window",
        "Merity et al. 2018",
        "{uniform: [0, 0.6]}",
        (2.5, 0.4, -0.1, 1.4),
        pack=True,
    ),
    Entry(
        "regularizers.zoneout_hidden",
        "hidden state",
        "hₜ ← z·hₜ₋₁ + (1−z)·hₜ with z ~ Bernoulli(p), in evaluation z = p",
        "Krueger et al. 2017",
        "{uniform: [0, 0.2]}",
        (90.6, 15.2, 35.4, 16.2),
        fused=False,
        pack=True,
    ),
    Entry(
        "regularizers.zoneout_cell",
        "an LSTM's cell state",
        "the same",
        "Krueger et al. 2017",
        "{uniform: [0, 0.5]}",
        (103.0, 26.1, 33.2, 16.9),
        fused=False,
        pack=True,
    ),
    Entry(
        "regularizers.state_reset",
        "carried state",
        "a stream begins a window from zeros with probability p",
        "Melis et al. 2018",
        "{uniform: [0, 0.1]}",
        (-0.3, -0.1, -0.7, 0.6),
        pack=True,
    ),
    Entry(
        "model.layer_norm",
        "outputs of all layers but the last",
        "LN(x)·g + b",
        "Ba et al. 2016",
        "{choice: [none, between, cell]}",
        (0.2, -3.4, -1.0, 0.3),
        pack=True,
        value="between",
    ),
    Entry(
        "model.layer_norm",
        "inside each layer",
        "the same of W·x, of W·h and of an LSTM's cell state",
        "Ba et al. 2016",
        "{choice: [none, between, cell]}",
        (121.3, 21.7, 31.5, 18.4),
        fused=False,
        pack=True,
        value="cell",
    ),
    Entry(
        "regularizers.fraternal_dropout",
        "loss, two passes",
        "half the sum of both losses + κ · mean((z − z′)²) of the logits under two draws of the masks",
        "Zolna et al. 2018",
        "{uniform: [0, 0.3]}",
        (112.4, 118.1, 106.3, 118.5),
        pack=True,
    ),
    Entry(
        "regularizers.activation",
        "loss (AR)",
        "α · mean(h²) of the last layer's dropped outputs",
        "Merity et al. 2017",
        "{uniform: [0, 3]}",
        (3.2, 1.4, 0.9, 0.1),
        pack=True,
    ),
    Entry(
        "regularizers.temporal_activation",
        "loss (TAR)",
        "β · mean((hₜ − hₜ₋₁)²) of its raw outputs",
        "Merity et al. 2017",
        "{uniform: [0, 3]}",
        (6.1, 3.7, 0.9, 0.1),
        pack=True,
    ),
    Entry(
        "regularizers.label_smoothing",
        "loss",
        "targets (1 − ε) · right symbol + ε/V",
        "Szegedy et al. 2016",
        "{uniform: [0, 0.2]}",
        (1.4, -2.4, -4.3, 1.3),
        pack=True,
    ),
    Entry(
        "regularizers.l1",
        "loss, with `l2`: elastic net",
        "mean loss + l1 · Σ\\|w\\|, over weight matrices, tied ones once",
        "Tibshirani 1996",
        "{log_uniform: [1e-8, 1e-4]}",
        (1.0, -0.4, -0.4, 6.1),
    ),
    Entry(
        "regularizers.l2",
        "loss, with `l1`: elastic net",
        "mean loss + l2 · Σw², over the same",
        "Zou & Hastie 2005",
        "{log_uniform: [1e-8, 1e-4]}",
        (1.0, -0.2, -0.9, 5.3),
    ),
    Entry(
        "regularizers.clip_value",
        "gradient, first",
        "g ← min(max(g, −c), c)",
        "Mikolov 2012",
        "{log_uniform: [0.01, 1]}",
        (-0.1, -0.8, -0.0, 1.8),
    ),
    Entry(
        "regularizers.clip_norm",
        "gradient, then",
        "g ← g · min(1, c/‖g‖₂), over all parameters together",
        "Pascanu et al. 2013",
        "{log_uniform: [0.1, 10]}",
        (1.0, 0.7, 0.9, 2.0),
    ),
    Entry(
        "regularizers.gradient_noise",
        "gradient, last",
        "g ← g + N(0, η/(1 + t)^0.55) at step t",
        "Neelakantan et al. 2015",
        "{log_uniform: [1e-6, 1]}",
        (2.5, 3.5, 2.6, 12.0),
    ),
    Entry(
        "regularizers.weight_decay",
        "step",
        "w ← (1 − ηλ)·w after clipping, for every optimizer (decoupled; η is the current learning rate)",
        "Loshchilov & Hutter 2019",
        "{log_uniform: [1e-3, 1]}",
        (0.7, -0.7, 5.4, 1.6),
    ),
    Entry(
        "regularizers.max_norm",
        "step",
        "each unit's incoming weights w ← w · min(1, c/‖w‖₂)",
        "Srivastava et al. 2014",
        "{uniform: [1, 5]}",
        (-0.3, 1.2, 7.2, -0.3),
    ),
    Entry(
        "regularizers.ema",
        "evaluation",
        "exponential average of the weights over steps, decay d",
        "Polyak & Juditsky 1992",
        "{choice: [0, 0.99, 0.999]}",
        (1.0, 1.7, 3.3, 2.5),
    ),
    Entry(
        "regularizers.swa",
        "evaluation",
        "mean of the weights over the last part s of the budget",
        "Izmailov et al. 2018",
        "{uniform: [0, 0.5]}",
        (-0.5, -2.6, -0.6, 0.3),
    ),
    Entry(
        "regularizers.nt_asgd",
        "evaluation",
        "mean of the weights (of SGD alone) from when n reports have brought nothing better",
        "Merity et al. 2018",
        "{int: [3, 8]}",
        (0.3, 0.3, -3.5, 1.1),
    ),
)


def markdown() -> str:
    """The README's table."""
    head = ("key", "where it acts", "formula", "from", "search it in", "cost in %", "kernels", "pack")
    rows = [head, ("---",) * len(head)]
    for entry in CATALOGUE:
        costs = ", ".join(str(round(cost)) for cost in entry.costs)
        kernels, pack = "fused" if entry.fused else "step by step", "yes" if entry.pack else "not yet"
        search = f"`{entry.search}`"
        rows.append((f"`{entry.name}`", entry.place, entry.formula, entry.source, search, costs, kernels, pack))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(markdown())
