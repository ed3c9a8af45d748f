"""params.yaml as frozen classes, one a section: every number that changes a result. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

GENERIC_VIEW = "all_dimensions"
"""The name of the view that names every dimension and no score."""


def misfit(said: str, *keys: str) -> PydanticCustomError:
    """The error of a value that does not fit the others; `keys` lead from the section that is checked to the value."""
    return PydanticCustomError("misfit", "{said}", {"said": said, "keys": keys})


class Section(BaseModel):
    """A section of params.yaml: immutable; keys not declared, values of another type, infinity and NaN are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Runtime(Section):
    """What decides the bits of a result without being part of the method."""

    seed: int = Field(ge=0, lt=2**31)
    """Seed of every random draw of the stages."""
    threads: int = Field(ge=1, le=1024)
    """Threads of the CPU's matrix products, set in every rank: weights differ in the last bits between counts."""


class Dimension(Section):
    """A named quality axis of a response."""

    description: str = Field(min_length=1)
    """What a high score means; part of the view's instruction."""
    weight: float = Field(ge=0)
    """Share in the weighted overall score that orders the pairs; relative to the other dimensions' weights."""


class Score(Section):
    """Where a source keeps one score, and on which scale."""

    field: str = Field(min_length=1)
    """Field of the row (of the response, where a row is a pair); dots walk into objects: `scores.helpfulness`."""
    scale: tuple[float, float] = Field(strict=False)  # a list, where Python would want a tuple
    """Lowest and highest possible score, declared and never guessed from the rows."""
    higher_is_better: bool = True
    """False turns the scale around."""

    @model_validator(mode="after")
    def _range(self) -> Score:
        low, high = self.scale
        if low >= high:
            raise misfit(f"it is [{low}, {high}]; expected [lowest, highest] with lowest < highest", "scale")
        return self


class Source(Section):
    """How the rows of one source are read."""

    rows: Literal["responses", "pairs"]
    """`responses`: one row a response; `pairs`: one row a prompt with two rated responses."""
    prompt: str = "prompt"
    """Field of the prompt: a text, or a list of {role, content} messages."""
    response: str = "response"
    """Field of the response's text (inside `chosen` and `rejected` where a row is a pair)."""
    chosen: str = "chosen"
    """Field of one response of a pair. The source prefers it; its order in training is what the scores say
    (`pairs.order_by`), like that of every two responses to a prompt."""
    rejected: str = "rejected"
    """Field of the other response of a pair."""
    rater: str | None = None
    """Field of who rated; null where the source does not say."""
    scores: dict[str, Score] = Field(min_length=1)
    """The score of each dimension. A dimension that the source lacks stays missing."""
    overall: Score | None = None
    """The source's own overall score, for `pairs.order_by: overall`."""


class Pairs(Section):
    """How rated responses become preference pairs."""

    order_by: Literal["dimensions", "overall"]
    """`dimensions`: the weighted mean of the dimensions' scores; `overall`: the source's own overall score."""
    selection: Literal["all", "best_worst"]
    """Which of a prompt's responses meet: every two of them, or the best and the worst."""
    max_per_prompt: int = Field(ge=1)
    """Pairs a prompt at most; which ones stay is decided by hash."""
    validation_share: float = Field(ge=0, lt=1)
    """Share of the prompts, by hash of their text, in `validation`."""
    test_share: float = Field(gt=0, lt=1)
    """Share of the prompts, by hash of their text, in `test`."""

    @model_validator(mode="after")
    def _shares(self) -> Pairs:
        if self.validation_share + self.test_share >= 1:
            raise misfit("validation_share + test_share leave nothing to train on; their sum must be below 1")
        return self


class PlaygroundBase(Section):
    """Start from the playground's policy, trained here in about a minute."""

    kind: Literal["playground"]


class FolderBase(Section):
    """Start from a local transformers folder."""

    kind: Literal["folder"]
    path: str = Field(min_length=1)
    """The folder: config.json, model.safetensors, tokenizer.json."""


class HubBase(Section):
    """Start from a model of the hub at a pinned revision."""

    kind: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """The hub's id, `organisation/name`."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The commit, 40 hexadecimal digits: a branch or tag can move."""


Base = Annotated[PlaygroundBase | FolderBase | HubBase, Field(discriminator="kind")]


class Playground(Section):
    """The embedded domain whose quality is decided by code."""

    seed: int = Field(ge=0, lt=2**31)
    """Seed of facts, prompts, responses and raters."""
    prompts: int = Field(ge=1)
    """Prompts with feedback."""
    responses_per_prompt: int = Field(ge=2)
    """Rated responses of a prompt."""
    rater_noise: float = Field(ge=0)
    """Standard deviation of a rater's noise [points of the 1 to 5 scale]."""
    rater_bias: float = Field(ge=0)
    """Standard deviation of the raters' constant shifts [points of the 1 to 5 scale]."""
    rater_spread: float = Field(ge=0, lt=1)
    """A rater stretches or squeezes scores around the middle by a factor of 1 - this to 1 + this."""
    second_rater_share: float = Field(ge=0, le=1)
    """Share of the responses that two raters rate."""
    held_out_prompts: int = Field(ge=1)
    """Prompts for generation in evaluation; their templates and facts occur in no feedback."""
    hidden_size: int = Field(ge=8)
    """Width of the base policy."""
    blocks: int = Field(ge=1)
    """Blocks of the base policy; each is a short convolution, then attention."""
    heads: int = Field(ge=1)
    """Attention heads of the base policy."""
    vocabulary: int = Field(ge=300)
    """Tokens the base policy knows, at most."""
    context: int = Field(ge=128)
    """Tokens the base policy can look back on."""
    pretraining_conversations: int = Field(ge=1)
    """Different conversations that make the base policy."""
    pretraining_steps: int = Field(ge=1)
    """Optimizer steps that make the base policy."""
    pretraining_batch: int = Field(ge=1)
    """Sequences in one of those steps."""
    pretraining_learning_rate: float = Field(gt=0)
    """Peak learning rate of those steps."""


class Views(Section):
    """Which views of a prompt are trained, and which response each prefers."""

    generic: bool
    """Add the view `all_dimensions`, which names every dimension and no score."""
    pair_order: Literal["overall", "per_dimension"]
    """`overall`: one order for every view, as published; `per_dimension`: a view swaps a pair that its dimension orders
    the other way round, and is inactive where the dimension ties."""


class Objective(Section):
    """The loss (docs/method.md)."""

    beta: float = Field(gt=0)
    """Reward per nat-per-token."""
    target_margin: float = Field(ge=0)
    """Reward gap asked for (SimPO's gamma); 0 is the AMoPO paper's Eq. (9)."""
    weighting: Literal["gaussian", "mean", "uniform", "fixed"]
    """How the views of a pair are weighted."""
    temperature: float = Field(gt=0)
    """Divides the confidences before their softmax (`gaussian`, `mean`)."""
    fixed_weights: dict[str, Annotated[float, Field(ge=0)]]
    """Weight of each view, for `fixed`; renormalised over the active views of a pair."""
    supervised_weight: float = Field(ge=0)
    """Factor of the supervised term: minus the mean log-probability of the chosen response, once a pair."""


class Train(Section):
    """The optimisation."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW; cosine decay to zero."""
    warmup_fraction: float = Field(ge=0, lt=1)
    """Share of the run's optimizer steps spent on linear warm-up."""
    epochs: int = Field(ge=1)
    """Passes over the training pairs."""
    batch_pairs: int = Field(ge=1)
    """Pairs in one optimizer step, over all ranks and micro-batches."""
    micro_batch_pairs: int = Field(ge=1)
    """Pairs in one forward pass of one rank; changes memory, not the result."""
    max_length: int = Field(ge=8)
    """Tokens of a prompt view and its longer response together, at most; the user's text is shortened to fit."""
    max_grad_norm: float = Field(gt=0)
    """Gradients are clipped to this norm."""
    weight_decay: float = Field(ge=0)
    """AdamW's decoupled weight decay."""
    log_every: int = Field(ge=1)
    """Optimizer steps between two lines of history.jsonl."""
    validate_every: int = Field(ge=1)
    """Optimizer steps between two looks at the validation pairs."""
    checkpoint_every: int = Field(ge=1)
    """Optimizer steps between two checkpoints."""


class Evaluation(Section):
    """How a policy is measured."""

    judge: str = Field(min_length=1)
    """Python file that defines JUDGE; amopo_core/judges/none.py where there is none (ranking only)."""
    prompt_view: str = Field(min_length=1)
    """Form of the prompt: `plain`, `all_dimensions`, or `DIMENSION@SCORE` (the view that asks for a score, 1 to 5)."""
    max_new_tokens: int = Field(ge=1)
    """Tokens of a generation at most."""
    temperature: float = Field(ge=0)
    """Sampling temperature of generations; 0 is greedy."""
    max_prompts: int = Field(ge=1)
    """Prompts to generate for, at most."""
    batch_size: int = Field(ge=1)
    """Sequences in one forward pass."""
    bootstrap_draws: int = Field(ge=100)
    """Draws of the bootstrap over prompts."""
    confidence: float = Field(gt=0, lt=1)
    """Coverage of the intervals."""


class Promotion(Section):
    """When a candidate replaces the champion."""

    weights: dict[str, Annotated[float, Field(ge=0)]]
    """Weight of each dimension in the overall metric; a dimension that is not named weighs 1."""
    tolerance: dict[str, Annotated[float, Field(ge=0)]]
    """How much worse a dimension may be [unit of its metric]; a dimension that is not named: 0."""
    min_test_prompts: int = Field(ge=1)
    """Fewer paired test prompts than this give no promotion."""


class Params(Section):
    """All of params.yaml."""

    runtime: Runtime
    dimensions: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Dimension] = Field(min_length=1)
    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Source] = Field(min_length=1)
    pairs: Pairs
    base: Base
    playground: Playground
    views: Views
    objective: Objective
    train: Train
    evaluation: Evaluation
    promotion: Promotion

    @property
    def view_names(self) -> tuple[str, ...]:
        """The views in their order: the generic one first where it is on, then the dimensions."""
        return ((GENERIC_VIEW,) if self.views.generic else ()) + tuple(self.dimensions)

    @model_validator(mode="after")
    def _fits(self) -> Params:
        """What holds between sections: what is named is declared, and weights leave something to weigh."""
        if GENERIC_VIEW in self.dimensions:
            raise misfit("the name belongs to the generic view; choose another", "dimensions", GENERIC_VIEW)
        self._check_names()
        self._check_weights()
        self._check_prompt_view()
        return self

    def _check_names(self) -> None:
        """Every dimension or view that is named somewhere must be declared."""
        _check_declared(self.promotion.weights, "dimensions", self.dimensions, "promotion", "weights")
        _check_declared(self.promotion.tolerance, "dimensions", self.dimensions, "promotion", "tolerance")
        _check_declared(self.objective.fixed_weights, "views", self.view_names, "objective", "fixed_weights")
        for name, source in self.sources.items():
            _check_declared(source.scores, "dimensions", self.dimensions, "sources", name, "scores")

    def _check_weights(self) -> None:
        if not any(dimension.weight for dimension in self.dimensions.values()):
            raise misfit("every weight is 0; at least one must be above", "dimensions")
        if not any(self.promotion.weights.get(name, 1.0) for name in self.dimensions):
            raise misfit("every weight is 0; at least one must be above", "promotion", "weights")
        if self.objective.weighting == "fixed":
            self._check_fixed_weights()

    def _check_fixed_weights(self) -> None:
        weights = self.objective.fixed_weights
        if set(weights) != set(self.view_names):
            said = f"weighting `fixed` needs one for each of {', '.join(self.view_names)}"
            raise misfit(said, "objective", "fixed_weights")
        if not any(weights.values()):
            raise misfit("every weight is 0; at least one must be above", "objective", "fixed_weights")

    def _check_prompt_view(self) -> None:
        view = self.evaluation.prompt_view
        dimension, _, score = view.partition("@")
        if view in ("plain", GENERIC_VIEW) or (dimension in self.dimensions and score in ("1", "2", "3", "4", "5")):
            return
        said = (
            f"{view!r} is none of `plain`, `{GENERIC_VIEW}`, `DIMENSION@SCORE` with a dimension"
            f" of {', '.join(self.dimensions)} and a score of 1 to 5"
        )
        raise misfit(said, "evaluation", "prompt_view")


def _check_declared(names: Iterable[str], kind: str, declared: Collection[str], *keys: str) -> None:
    for name in names:
        if name not in declared:
            raise misfit(f"not among the declared {kind}: {', '.join(declared)}", *keys, name)
