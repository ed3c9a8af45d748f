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
    deterministic: bool = True
    """On a GPU, use deterministic kernels only: the same bytes again, at the price of time. A CPU always does."""


class Dimension(Section):
    """A named quality axis of a response."""

    description: str = Field(min_length=1)
    """What a high score means; part of the view's instruction."""
    weight: float = Field(ge=0)
    """Share in the weighted overall score that orders the pairs; relative to the other dimensions' weights."""


Range = Annotated[tuple[float, float], Field(strict=False)]  # a list, where Python would want a tuple


class Score(Section):
    """Where a source keeps one score, and how it is brought to the common scale of 1 to 5."""

    field: str = Field(min_length=1)
    """Field of the row (of the response, where a row is a pair); dots walk into objects: `scores.helpfulness`."""
    scale: Range | Literal["percent", "boolean"] | None = None
    """Lowest and highest possible score, declared and never guessed from the rows; `percent` (0 to 100, also as the
    text `85%`) or `boolean` (true is 5, false is 1)."""
    values: dict[str, Annotated[float, Field(ge=1, le=5)]] | None = None
    """Instead of a scale, for categories: the common score of each, by its text as the source writes it."""
    higher_is_better: bool = True
    """False turns the scale around."""

    @model_validator(mode="after")
    def _one_way(self) -> Score:
        if (self.scale is None) == (self.values is None):
            raise misfit("give either `scale` or `values`")
        if self.values is not None and (not self.values or not self.higher_is_better):
            raise misfit("it holds the common score of each category, at least one, and is never turned", "values")
        if isinstance(self.scale, tuple) and self.scale[0] >= self.scale[1]:
            low, high = self.scale
            raise misfit(f"it is [{low}, {high}]; expected [lowest, highest] with lowest < highest", "scale")
        return self


class Preference(Section):
    """Where a source keeps which of two responses is better in a dimension, without scores."""

    field: str = Field(default="preferred", min_length=1)
    """Label of the comparison: above 0 prefers the first response (`chosen`), below 0 the second, 0 neither."""
    strongest: float = Field(default=1.0, gt=0)
    """The largest possible absolute value of that number."""
    higher_is_better: bool = True
    """False: above 0 prefers the second response."""


class SqlFetch(Section):
    """Rows come from a SQL query."""

    kind: Literal["sql"]
    url_env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with SQLAlchemy's URL, credentials included: they stand nowhere else."""
    query: str = Field(min_length=1)
    """One SELECT; `:watermark` in it stands for the highest value taken so far (NULL at first), where `watermark` names
    its column."""
    watermark: str | None = None
    """Column that only grows; rows at or above the highest value taken so far are asked for, known ones left out."""


class TracesFetch(Section):
    """Rows come from the feedback on an MLflow experiment's traces; the server is MLFLOW_TRACKING_URI's."""

    kind: Literal["mlflow_traces"]
    experiment: str = Field(min_length=1)
    """Name of the experiment."""


class DatasetFetch(Section):
    """Rows come from what `datasets.load_dataset` opens."""

    kind: Literal["dataset"]
    path: str = Field(min_length=1)
    """A local folder, or a hub id `organisation/name`."""
    name: str | None = None
    """Configuration of the data set."""
    split: str = Field(default="train", min_length=1)
    """Which split."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The hub's commit, 40 hexadecimal digits; required with a hub id: a branch or tag can move."""


Fetch = Annotated[SqlFetch | TracesFetch | DatasetFetch, Field(discriminator="kind")]


class Source(Section):
    """How the rows of one source are read."""

    rows: Literal[
        "responses",
        "pairs",
        "helpsteer",
        "helpsteer2_preference",
        "helpsteer3",
        "ultrafeedback",
        "safe_rlhf",
        "hh_rlhf",
        "nectar",
        "amopo",
        "llama_factory",
        "trl",
        "argilla",
        "label_studio",
        "thumbs",
        "assessments",
    ]
    """What one row is: `responses` (one response), `pairs` (one prompt with two responses), or a known public shape."""
    prompt: str = "prompt"
    """Field of the prompt: a text, or a list of {role, content} messages."""
    response: str = "response"
    """Field of the response's text (inside `chosen` and `rejected` where a row is a pair)."""
    chosen: str = "chosen"
    """Field of one response of a pair: the one the source prefers. Where the rows have scores, its order in training is
    what the scores say (`pairs.order_by`), like that of every two responses to a prompt."""
    rejected: str = "rejected"
    """Field of the other response of a pair."""
    rater: str | None = None
    """Field of who rated; null where the source does not say."""
    scores: dict[str, Score] = {}
    """The score of each dimension. A dimension that the source lacks stays missing."""
    preferences: dict[str, Preference] = {}
    """The preference of each dimension, where the source compares two responses and gives no scores."""
    overall: Score | None = None
    """The source's own overall score, for `pairs.order_by: overall`."""
    fetch: Fetch | None = None
    """Where new rows are taken from at each run; null: files only (`amopo ingest FILE`, the inbox)."""

    @property
    def rater_field(self) -> str | None:
        """The field that names who rated: the declared one, or the shape's own; None where no field does."""
        return self.rater or ("rater" if self.rows == "assessments" else None)

    @model_validator(mode="after")
    def _labelled(self) -> Source:
        if not self.scores and not self.preferences:
            raise misfit("name at least one dimension's score or preference", "scores")
        return self


class Ingestion(Section):
    """What happens to a row before it is stored."""

    redactor: str = Field(min_length=1)
    """Python file that defines REDACT(text) -> text, applied to every text of a row before it is stored or logged;
    amopo_core/redactors/none.py defines None: all stays as it is."""


class Ratings(Section):
    """How several ratings of one response become one."""

    combine: Literal["mean", "median", "rater_effect"]
    """`rater_effect`: the mean after each rater's shift and spread, estimated over all ratings, are taken out."""
    min_agreement: float = Field(ge=0, le=1)
    """Responses whose raters agree less (1: all the same; 0: as far apart as can be) are treated as `below` says."""
    below: Literal["downweight", "quarantine"]
    """`downweight`: their pairs weigh agreement / min_agreement; `quarantine`: their rows are refused."""


class Trust(Section):
    """Limits of a new batch against what its source gave before; beyond one it is held until it is released."""

    min_rows: int = Field(ge=1)
    """Batches with fewer usable rows are not compared: chance alone would move them."""
    max_drift: float = Field(gt=0)
    """Population stability index of a dimension's scores or of the responses' length; 0.1 is slight, 0.25 large."""
    max_rater_share: float = Field(gt=0, le=1)
    """Share of the rows that one rater gave; 1: no limit."""
    max_refused_share: float = Field(gt=0, le=1)
    """Share of the rows that are refused; 1: no limit."""
    max_volume: float = Field(gt=1)
    """Rows, as a multiple of the largest batch before."""


class Pairs(Section):
    """How rated responses become preference pairs."""

    order_by: Literal["dimensions", "overall"]
    """`dimensions`: the weighted mean of the dimensions' scores; `overall`: the source's own overall score."""
    selection: Literal["all", "best_worst", "adjacent", "pareto"]
    """Which of a prompt's responses meet: every two, the best and the worst, neighbours in the order, or every two of
    different Pareto fronts, those of far fronts and uncrowded places first (arXiv 2503.17299)."""
    incomparable: Literal["keep", "drop"]
    """What becomes of pairs in which one dimension prefers the one response and another the other."""
    max_per_prompt: int = Field(ge=1)
    """Pairs a prompt at most; which ones stay is decided by hash (`pareto`: by front and crowding first)."""
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
    instruction_at: Literal["start", "end"] = "start"
    """Where a view's instruction stands: before the prompt's text, as published, or after the last turn's; at the end,
    the views of a pair share the whole prompt, which is then computed once."""


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


class Adapter(Section):
    """Low-rank adaptation (LoRA), through peft."""

    rank: int = Field(default=16, ge=1)
    """Rank of the added matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """Their product is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is dropped in training."""
    target_modules: list[str] = Field(default=["all-linear"], min_length=1)
    """Names of the layers that are adapted; `all-linear`: every linear layer but the head."""
    base_bits: Literal[16, 4] = 16
    """4: the base is held in 4 bits (QLoRA, NF4 through bitsandbytes); 16: as it is."""
    merge: bool = False
    """Publish the base with the adapters merged into it, instead of the adapters and a pointer to their base."""


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
    micro_batch_tokens: int = Field(ge=1)
    """Tokens in one forward pass of one rank; changes memory and speed, not the result. A pair with more goes alone."""
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
    checkpoint_minutes: float = Field(default=30.0, gt=0)
    """A checkpoint is also due when the last one is older than this [minutes]."""
    publish: Literal["last", "best"] = "last"
    """Which weights become the policy: those of the last step, or those of the lowest validation loss."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What a step with an infinite or undefined loss or gradient does: end the run, or change no weight and go on; its
    pairs and views are named either way."""
    precision: Literal["float32", "mixed_bfloat16", "bfloat16", "float64"] = "float32"
    """Numbers of weights and matrix products; `mixed_bfloat16`: weights in float32, products in bfloat16; `bfloat16`:
    both, which halves the memory and rounds small updates away."""
    gradient_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compile the policy's blocks with torch.compile: faster on GPUs after a slow start."""
    adapter: Adapter | None = None
    """Train low-rank adapters instead of all weights; null: all weights."""


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
    max_kl_base: float | None = Field(gt=0)
    """Mean KL divergence from the base policy at a token of the candidate's own answers [nats per token]; None: any."""
    max_kl_champion: float | None = Field(gt=0)
    """The same from the champion [nats per token]; None: any."""
    max_length_ratio: float | None = Field(gt=1)
    """How many times longer, or shorter, than the incumbent's the answers may be on average; None: any."""
    max_repetition_rise: float | None = Field(ge=0, le=1)
    """How much larger the share of repeated 3-grams may be than in the incumbent's answers; None: any."""
    regression: str = Field(min_length=1)
    """JSON lines of the user's own prompts, in which no candidate may do much worse; none in it: nothing is asked."""
    max_regression: float = Field(ge=0)
    """How much worse it may be there in a dimension [points of the judge], without a judge in the mean log-probability
    of the reference responses [nats per token]."""
    approval: Literal["none", "human"] = "none"
    """`human`: a candidate with a verdict of yes waits until a person approves it."""


class Quality(Section):
    """The quality report: how much it looks at, and where a traffic light turns."""

    sample_rows: int = Field(ge=100)
    """Prompts and responses, drawn by hash, that are compared text by text (near-duplicates, redundancy); the test
    prompts among them, up to half, are compared with all training prompts (leakage)."""
    similarity: float = Field(gt=0, lt=1)
    """Estimated Jaccard similarity of word triples from which two prompts are near-duplicates."""
    amber_drift: float = Field(gt=0)
    """Population stability index from which a batch's light is amber."""
    red_drift: float = Field(gt=0)
    """Population stability index from which it is red."""


class Params(Section):
    """All of params.yaml."""

    runtime: Runtime
    dimensions: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Dimension] = Field(min_length=1)
    sources: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")], Source] = Field(min_length=1)
    ingestion: Ingestion
    ratings: Ratings
    trust: Trust
    pairs: Pairs
    quality: Quality
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
            _check_declared(source.preferences, "dimensions", self.dimensions, "sources", name, "preferences")

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
