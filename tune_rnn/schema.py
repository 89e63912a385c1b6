"""The experiment file's sections: every key, its type, its bounds and its default.

One schema serves fixed and searched values: the ends of a distribution are put in its place and validated.
A check over several fields raises InputError itself, as it knows their keys; `tune_rnn.config.validation`
puts the others in words.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tune_rnn.config.fields import (
    Count,
    Fractions,
    GpuShare,
    Name,
    Paths,
    Points,
    Positive,
    Probability,
    Runs,
    Storage,
    Strength,
    Whole,
)
from tune_rnn.errors import InputError

SEARCHED = ("model", "regularizers", "training")  # the sections where distributions may stand
LEARN_NOTHING = ("random", "sobol", "grid")  # algorithms of search to which results mean nothing
SAME_IN_ALL_TRIALS = ("training.precision", "training.report_every")  # but not for these


class _Section(BaseModel):
    """Refuses unknown keys, texts and 2.0 as whole numbers, NaN and infinity; cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Files(_Section):
    """A file (or several, one document each) for each split."""

    train: Paths
    validation: Paths
    test: Paths | None = None


class Task(_Section):
    """Data and what is predicted. Never searched: losses on different data cannot be compared."""

    kind: Literal["char_lm", "word_lm"] = "char_lm"
    corpus: Paths | None = None  # a name, a file, a directory of *.txt, or a list of files; pydoc without `files`
    files: Files | None = None
    split: Fractions | None = None  # train, validation, test; None: the corpus's own, or 0.8, 0.1, 0.1
    documents: Literal["separate", "joined"] = "separate"  # separate: no window crosses from one into the next
    vocabulary_size: Annotated[int, Field(ge=3)] | None = None  # word_lm: the most frequent, <unk> and <eos> included
    minimum_count: Count = 1  # word_lm: words that training shows less often are <unk>

    @model_validator(mode="before")
    @classmethod
    def _source(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("files") is None:
            return {**given, "corpus": "pydoc" if given.get("corpus") is None else given["corpus"]}
        if given.get("corpus") is not None:
            remedy = "Remove one of them (on the command line: task.files=null or task.corpus=null)."
            raise InputError("task", "corpus and files are both given", remedy)
        if given.get("split") is not None:
            raise InputError("task.split", "the files already are the split", "Remove task.split.", given["split"])
        return given

    @model_validator(mode="after")
    def _words(self) -> Self:
        for key, default in (("vocabulary_size", None), ("minimum_count", 1)):
            if self.kind != "word_lm" and (value := getattr(self, key)) != default:
                remedy = f"Write task.kind: word_lm, or remove task.{key}."
                raise InputError(f"task.{key}", f"is for words, and {self.kind} has none", remedy, value)
        return self


class Model(_Section):
    """The network: embedding, recurrent layers, decoder."""

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    embedding_size: Count = 64
    hidden_size: Count = 128
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    tied: bool = False  # the decoder uses the embedding's weights; the last layer then takes the embedding's size
    decoder: Literal["softmax", "adaptive"] = "softmax"  # adaptive: rare words get fewer weights and less time
    layer_norm: Literal["none", "between", "cell"] = "none"  # between layers, or inside each (step by step)
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"  # of the recurrent layers
    forget_bias: float = 1.0  # initial bias of an LSTM's forget gate
    kernels: Literal["auto", "fused"] = "auto"  # fused: refuse what leaves PyTorch's fused kernels


class Regularizers(_Section):
    """Strengths; 0 is off for each of them."""

    input_dropout: Probability = 0.0
    hidden_dropout: Probability = 0.0  # between layers
    output_dropout: Probability = 0.0
    locked_dropout: bool = True  # one mask for all time steps of a window
    embedding_dropout: Probability = 0.0  # of whole symbols
    weight_drop: Probability = 0.0  # of hidden-to-hidden weights
    zoneout_hidden: Probability = 0.0  # of a unit's keeping its hidden state for a time step
    zoneout_cell: Probability = 0.0  # the same of an LSTM's cell state
    state_reset: Probability = 0.0  # of beginning a window from a zero state
    l1: Strength = 0.0
    l2: Strength = 0.0
    activation: Strength = 0.0  # AR
    temporal_activation: Strength = 0.0  # TAR
    label_smoothing: Probability = 0.0
    fraternal_dropout: Strength = 0.0
    weight_decay: Strength = 0.0  # decoupled from the gradient
    max_norm: Strength = 0.0  # of each unit's incoming weights
    clip_norm: Strength = 0.0  # of the whole gradient
    clip_value: Strength = 0.0  # of each of its elements
    gradient_noise: Strength = 0.0  # its variance at the first step
    ema: Probability = 0.0  # decay of the exponential average of the weights
    swa: Probability = 0.0  # over how much of the budget's end the weights are averaged
    nt_asgd: Annotated[int, Field(ge=0)] = 0  # averaging begins when so many reports bring nothing (SGD alone)


class Training(_Section):
    """How a network is trained, within the budget."""

    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adam"
    learning_rate: Positive = 2e-3
    schedule: Literal["constant", "cosine", "linear_warmup", "cosine_warmup", "plateau"] = "constant"
    batch_size: Count = 32
    sequence_length: Count = 64
    windows: Literal["streams", "variable", "random"] = "streams"
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    patience: Annotated[int, Field(ge=0)] = 0  # reports, at rungs too, without a lower loss; 0: none ends a trial
    report_every: Positive | None = None  # in the budget's unit; default 1 epoch, or a twentieth of the tokens


class TrialConfig(_Section):
    """All that one trial needs to know: plain values, no distributions."""

    task: Task = Task()
    model: Model = Model()
    regularizers: Regularizers = Regularizers()
    training: Training = Training()
    one_of: str | None = None  # the branch it came from

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, as JSON has them; `TrialConfig.model_validate` reads them back."""
        return self.model_dump(mode="json")

    def flat(self) -> dict[str, Any]:
        """Return plain values by dotted key."""
        return flatten(self.to_dict())


class Budget(_Section):
    """Epochs or tokens are for each trial; trials and hours for the study, whichever comes first."""

    epochs: Positive | None = None
    tokens: Whole | None = None
    trials: Count | None = None
    hours: Positive | None = None

    @property
    def unit(self) -> Literal["epochs", "tokens"]:
        """What reports and rungs count in."""
        return "epochs" if self.epochs is not None else "tokens"

    @property
    def amount(self) -> float:
        """One trial's budget, in `unit`."""
        return float(self.epochs or self.tokens or 0)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.epochs is None and self.tokens is None:
            raise InputError("budget", "epochs or tokens must say how long one trial is", "Add budget.epochs: 8.")
        if self.epochs is not None and self.tokens is not None:
            remedy = "Remove one of them (on the command line: budget.epochs=null or budget.tokens=null)."
            raise InputError("budget", "epochs and tokens are both given", remedy)
        return self


class Search(_Section):
    """How configurations are proposed."""

    algorithm: Literal["hyperopt", "optuna", "gp", "forest", "random", "sobol", "grid"] = "hyperopt"
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Count = 1  # of a grid: trains each of its points with so many seeds, the same ones for all
    start: Points = ()  # starting points: values of some searched keys, or of all; the first trials
    warm_start: Runs = ()  # directories of earlier runs to learn from


class Scheduler(_Section):
    """How trials that do worse are stopped early, or (pbt) go on from what better ones have learnt."""

    algorithm: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"
    first_rung: Positive | None = None  # in the budget's unit; default training.report_every; of pbt: the interval
    reduction_factor: Annotated[float, Field(ge=1.5)] = 3.0  # of asha and hyperband


class Constraints(_Section):
    """What a configuration may not exceed: it is refused before it is trained, and another one takes its place."""

    parameters: Whole | None = None  # of the model


class Final(_Section):
    """Training the search's best again, with new seeds: on where something is searched; top_k: 0 switches it off."""

    top_k: Annotated[int, Field(ge=0)] = 3  # how many configurations
    seeds: Count = 3  # for each, the same ones for all
    epochs: Positive | None = None  # of each training; default that of the budget
    tokens: Whole | None = None  # the same where the budget is in tokens
    audit: Annotated[int, Field(ge=0)] = 0  # so many of the trials that were stopped early go on to their end
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # at most this part of the study's hours is kept for them

    def amount(self, budget: Budget) -> float:
        """One training's budget, in the unit of the search's."""
        return float(getattr(self, budget.unit) or budget.amount)


class PerTrial(_Section):
    """What one trial gets."""

    cpu: Positive = 1.0
    gpu: GpuShare = "auto"  # auto: a share of a GPU where there are GPUs, otherwise 0


class Use(_Section):
    """What the study may take of the cluster; None: everything."""

    cpu: Positive | None = None
    gpu: Strength | None = None


class Resources(_Section):
    """Processors and GPUs."""

    per_trial: PerTrial = PerTrial()
    use: Use | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def may_use_gpu(self) -> bool:
        """Whether a trial gets a GPU where there is one."""
        return self.device != "cpu" and self.per_trial.gpu != 0 and (self.use is None or self.use.gpu != 0)

    @model_validator(mode="after")
    def _a_trial_fits(self) -> Self:
        for kind in ("cpu", "gpu") if self.use else ():
            one, all_of_them = getattr(self.per_trial, kind), getattr(self.use, kind)
            if one != "auto" and all_of_them is not None and one > all_of_them:
                rule = f"must not be more than resources.use.{kind}, {all_of_them:g}"
                raise InputError(f"resources.per_trial.{kind}", rule, "Raise the one or lower the other.", one)
        return self


class StudyConfig(_Section):
    """All that is not a trial's."""

    name: Name
    budget: Budget
    search: Search = Search()
    scheduler: Scheduler = Scheduler()
    constraints: Constraints = Constraints()
    final: Final | None = None  # None: as `tune_rnn.config.final_stage` says
    resources: Resources = Resources()
    storage: Storage = "results"


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"model.layers": 1} for {"model": {"layers": 1}}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
