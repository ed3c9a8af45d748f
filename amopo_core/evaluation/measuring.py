"""Measuring a policy: it ranks the test pairs and answers the held-out prompts, and the judge scores its answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

import torch

from amopo_core.chat import ChatEncoder
from amopo_core.config import Params
from amopo_core.data.tables import SCALE, Message, Pair, text_id
from amopo_core.engine.forward import best_forward
from amopo_core.errors import UserError
from amopo_core.evaluation.generation import generate
from amopo_core.evaluation.judge import Judge
from amopo_core.evaluation.measurement import Answer, Measurement
from amopo_core.evaluation.ranking import mean_logps, rank
from amopo_core.policy import Policy, load_policy
from amopo_core.views import instruction_of_form

log = logging.getLogger(__name__)


def measure_folder(folder: Path, pairs: Sequence[Pair], judge: Judge | None, params: Params) -> Measurement:
    """What the policy of a transformers folder does, on a GPU where there is one.

    On a CPU the same bytes come back for the same folder, data and parameters.

    Raises:
        UserError: the folder is no policy; or as `measure`.
    """
    log.info("measuring %s", folder)
    return measure(policy_to_measure(folder, params), pairs, judge, params)


def policy_to_measure(folder: Path, params: Params) -> Policy:
    """The policy of a transformers folder, on a GPU where there is one, else on a CPU that gives the same bytes again.

    Raises:
        UserError: the folder is no policy.
    """
    torch.set_num_threads(params.runtime.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.use_deterministic_algorithms(device.type == "cpu")
    policy = load_policy(folder)
    policy.model.to(device)
    return policy


def measure(policy: Policy, pairs: Sequence[Pair], judge: Judge | None, params: Params) -> Measurement:
    """What the policy does with the test pairs and with the held-out prompts.

    Raises:
        UserError: there is no prompt to answer, a prompt does not fit, or the judge does not score as declared.
    """
    answers = answer(policy, held_out_prompts(pairs, judge, params), judge, params)
    instruction = instruction_of_form(params.evaluation.prompt_view, params.dimensions)
    encoder = ChatEncoder(policy.tokenizer, params.views.instruction_at)
    return Measurement(rank(policy, encoder, pairs, instruction, params.evaluation.batch_size), answers)


def answer(
    policy: Policy, prompts: Mapping[str, Sequence[Message]], judge: Judge | None, params: Params
) -> list[Answer]:
    """The policy's answer to each prompt, by the prompts' ids, with the judge's scores.

    Raises:
        UserError: a prompt does not fit, or the judge does not score as declared.
    """
    settings = params.evaluation
    generations = generate(
        policy,
        prompt_tokens(policy, prompts, params),
        list(prompts),
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        batch_size=settings.batch_size,
        seed=params.runtime.seed,
    )
    return [
        Answer(
            prompt_id=prompt_id,
            prompt=prompt,
            response=generation.response,
            tokens=len(generation.token_ids),
            ended=generation.ended,
            repetition=repetition(generation.token_ids),
            scores=judged_scores(judge, prompt, generation.response, list(params.dimensions)) if judge else None,
        )
        for (prompt_id, prompt), generation in zip(prompts.items(), generations, strict=True)
    ]


def held_out_prompts(pairs: Sequence[Pair], judge: Judge | None, params: Params) -> dict[str, Sequence[Message]]:
    """At most `max_prompts` prompts by their id: the judge's own where it brings some, else the test split's.

    The test split's are taken in the order of their ids, which are hashes: a sample that favours nothing.
    """
    own = judge.prompts(params.playground, params.evaluation.max_prompts) if judge else []
    tested = {pair.prompt_id: pair.prompt for pair in sorted(pairs, key=lambda pair: pair.prompt_id)}
    prompts = {text_id(prompt): prompt for prompt in own} or tested
    if not prompts:
        raise UserError("there is no held-out prompt: the test split is empty; raise pairs.test_share or add feedback")
    return dict(list(prompts.items())[: params.evaluation.max_prompts])


def judged_scores(
    judge: Judge, prompt: Sequence[Message], response: str, dimensions: Sequence[str]
) -> Mapping[str, float]:
    """The judge's score of each dimension, in their order.

    Raises:
        UserError: a dimension has no score, or one outside 1 to 5.
    """
    scores = judge.score(prompt, response)
    missing = [dimension for dimension in dimensions if dimension not in scores]
    if missing:
        raise UserError(
            f"evaluation.judge: the judge gives no score for {', '.join(missing)} (it scores {', '.join(scores)});"
            " choose a judge of your dimensions, or amopo_core/judges/none.py for ranking only"
        )
    low, high = SCALE
    for dimension in dimensions:
        if not (isfinite(scores[dimension]) and low <= scores[dimension] <= high):
            raise UserError(f"evaluation.judge: {dimension} scored {scores[dimension]}; expected {low:g} to {high:g}")
    return {dimension: float(scores[dimension]) for dimension in dimensions}


def repetition(token_ids: Sequence[int]) -> float:
    """1 - distinct 3-grams / 3-grams: 0 where none comes twice or the response is shorter, near 1 for a loop."""
    trigrams = list(zip(token_ids, token_ids[1:], token_ids[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def prompt_tokens(policy: Policy, prompts: Mapping[str, Sequence[Message]], params: Params) -> list[list[int]]:
    """Each prompt as the policy is asked, with room for an answer.

    Raises:
        UserError: a prompt does not fit.
    """
    instruction = instruction_of_form(params.evaluation.prompt_view, params.dimensions)
    encoder, room = ChatEncoder(policy.tokenizer, params.views.instruction_at), params.evaluation.max_new_tokens
    encoded = [encoder.prompt(prompt, instruction, policy.context - room) for prompt in prompts.values()]
    if any(prompt is None for prompt in encoded):
        raise UserError(
            f"evaluation.max_new_tokens: {room} leaves no room for a prompt in the policy's context of"
            f" {policy.context} tokens; lower it"
        )
    return [prompt.ids for prompt in encoded if prompt is not None]


def reference_logps(
    policy: Policy, prompts: Mapping[str, Sequence[Message]], responses: Sequence[str], params: Params, *, place: str
) -> list[float]:
    """Mean log-probability of a given response to each prompt [nats per token]; `place` is where a user finds them.

    Raises:
        UserError: a prompt with its response does not fit, or the response has no finite log-probability.
    """
    encoder = ChatEncoder(policy.tokenizer, params.views.instruction_at)
    instruction = instruction_of_form(params.evaluation.prompt_view, params.dimensions)
    said = [encoder.response(response) for response in responses]
    asked = []
    for messages, ids in zip(prompts.values(), said, strict=True):
        prompt = encoder.prompt(messages, instruction, policy.context - len(ids))
        if prompt is None:
            raise UserError(
                f"{place}: a response of {len(ids)} tokens leaves no room for its prompt in the"
                f" policy's context of {policy.context} tokens; shorten it: {messages[-1]['content'][:80]!r}"
            )
        asked.append(prompt.ids)
    names = [
        f"the response to prompt {row} of {place} ({messages[-1]['content'][:80]!r})"
        for row, messages in enumerate(prompts.values(), start=1)
    ]
    forward = best_forward(policy.model, policy.context)
    try:
        found = mean_logps(policy, forward, asked, said, params.evaluation.batch_size, names)
    finally:
        forward.detach()
    return [float(mean) for mean in found]
