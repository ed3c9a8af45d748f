"""The model card: what a version of the policy is, how it wants to be asked, what it reached, where it ends."""

from __future__ import annotations

from amopo_core.config import Base, FolderBase, HubBase, Params
from amopo_core.evaluation.comparison import JUDGE_SCORE, Comparison
from amopo_core.evaluation.markdown import comparison_table
from amopo_core.views import instruction_behind, instruction_of_form


def model_card(params: Params, comparison: Comparison, *, baseline: str, data_digest: str, chat_template: str) -> str:
    """The card as Markdown.

    Args:
        params: what the policy was trained and evaluated with.
        comparison: the policy against `baseline`.
        baseline: what it was compared with: the base policy, or the champion.
        data_digest: names the pairs it was trained on.
        chat_template: the template that the policy's tokenizer carries.
    """
    return (
        "\n\n".join(
            [
                "# AMoPO policy",
                _what_it_is(params),
                _training(params, data_digest),
                _use(params, chat_template),
                _results(comparison, baseline, params.evaluation.confidence),
                _limits(params, comparison),
            ]
        )
        + "\n"
    )


def _what_it_is(params: Params) -> str:
    dimensions = "\n".join(
        f"- {name.replace('_', ' ')}: {said.description}" for name, said in params.dimensions.items()
    )
    return (
        "A causal language model aligned with rated feedback in several dimensions at once by AMoPO (adaptive"
        f" multi-objective preference optimization), without a reward or a reference model.\n\n{dimensions}"
    )


def _training(params: Params, data_digest: str) -> str:
    objective, train = params.objective, params.train
    return (
        "## Training\n\n"
        f"- Starting policy: {_starting_policy(params.base)}\n"
        f"- Preference pairs: digest `{data_digest}`, from {', '.join(params.sources)}\n"
        f"- Views: {', '.join(params.view_names)}; pair order {params.views.pair_order}\n"
        f"- Objective: beta {objective.beta:g}, target margin {objective.target_margin:g}, weighting"
        f" {objective.weighting}, supervised weight {objective.supervised_weight:g}\n"
        f"- Optimisation: learning rate {train.learning_rate:g}, {train.epochs} epochs, {train.batch_pairs} pairs a"
        f" step, at most {train.max_length} tokens, seed {params.runtime.seed}"
    )


def _starting_policy(base: Base) -> str:
    if isinstance(base, HubBase):
        return f"`{base.id}` of the hub at revision `{base.revision}`"
    return (
        f"a local folder, `{base.path}`" if isinstance(base, FolderBase) else "the playground's, made by this project"
    )


def _use(params: Params, chat_template: str) -> str:
    instruction = instruction_of_form(params.evaluation.prompt_view, params.dimensions)
    form = f"Evaluated with the prompt form `{params.evaluation.prompt_view}`: "
    if instruction is None:
        form += "the prompt as people send it, nothing added to it."
    elif params.views.instruction_at == "start":
        form += f"before the first turn's text stands exactly\n\n{_fenced(instruction)}"
    else:
        form += f"behind the last turn's text stands exactly\n\n{_fenced(instruction_behind(instruction))}"
    template = (
        "Call `tokenizer.apply_chat_template(messages, add_generation_prompt=True)`; the tokenizer carries the template"
    )
    return f"## Use\n\n{form}\n\n{template}\n\n{_fenced(chat_template)}"


def _results(comparison: Comparison, baseline: str, confidence: float) -> str:
    metric = comparison.metric
    judged = "" if metric == JUDGE_SCORE else " No judge: ranking only."
    said = f"{metric.title} [{metric.unit}] on {comparison.prompts} held-out prompts; bootstrap intervals over prompts."
    return f"## Results\n\n{said}{judged}\n\n{comparison_table(comparison, baseline, 'this policy', confidence)}"


def _limits(params: Params, comparison: Comparison) -> str:
    measured = (
        "a judge's opinion" if comparison.metric == JUDGE_SCORE else "how it ranks given responses, not what it writes"
    )
    return (
        "## Limits\n\n"
        f"- The figures are {measured}, on prompts like those of the feedback; elsewhere nothing was measured.\n"
        f"- Generations were drawn at temperature {params.evaluation.temperature:g} with at most"
        f" {params.evaluation.max_new_tokens} tokens; other settings give other scores.\n"
        "- It learnt what its raters preferred, their errors included. It was not tested for safety, truth or fairness."
    )


def _fenced(text: str) -> str:
    """Text as it stands, in a fence longer than any run of backquotes inside."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text}\n{fence}"
