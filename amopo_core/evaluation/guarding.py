"""Measuring the guardrails: the candidate beside base and champion, token by token and on the regression set."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from amopo_core.chat import ChatEncoder
from amopo_core.config import Params
from amopo_core.evaluation.divergence import divergences, read_alike
from amopo_core.evaluation.guardrails import BASE, CHAMPION, Guardrails
from amopo_core.evaluation.judge import Judge
from amopo_core.evaluation.measurement import Answer
from amopo_core.evaluation.measuring import answer, prompt_tokens, reference_logps
from amopo_core.evaluation.regression import RegressionPrompt, RegressionResult, compare_regression
from amopo_core.policy import Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guarded:
    """The guardrails, and the rows that they come from."""

    guardrails: Guardrails
    divergence_rows: Sequence[Mapping[str, Any]]
    """A row an answer: its prompt, its tokens, and the divergence from each reference summed over them [nats]."""
    regression_rows: Sequence[Mapping[str, Any]]
    """A row a prompt: what incumbent and candidate made of it."""


def guard(
    candidate: Policy,
    base: Policy,
    champion: Policy | None,
    answers: Sequence[Answer],
    prompts: Mapping[str, RegressionPrompt],
    judge: Judge | None,
    params: Params,
) -> Guarded:
    """Hold the candidate against its base and the champion; on the regression set against the champion if there is one.

    Args:
        candidate, base, champion: the policies.
        answers: the candidate's to the held-out prompts, at least one.
        prompts: the regression set; may be empty.
        judge: scores the answers to the regression set; None: the reference responses are ranked.
        params: how answers are made and compared.

    Raises:
        UserError: a prompt does not fit, or the judge does not score as declared.
    """
    references = {BASE: base} | ({CHAMPION: champion} if champion else {})
    unmeasured = {} if champion else {CHAMPION: "there is no champion yet"}
    asked, said = _token_ids(candidate, answers, params)
    nats = {}
    for name, policy in references.items():
        if not read_alike(candidate, policy):
            unmeasured[name] = f"the {name} has other tokens than the candidate"
            continue
        sums = divergences(candidate, policy, asked, said, params.evaluation.batch_size)
        log.info("compared %d answers token by token with the %s", len(sums), name)
        if all(map(isfinite, sums)):
            nats[name] = sums
        else:
            unmeasured[name] = "it is not finite: a policy gives probabilities that are no numbers"
    tokens = [len(ids) for ids in said]
    kl = {name: sum(sums) / sum(tokens) for name, sums in nats.items()}
    regression, regression_rows = None, []
    if prompts:
        before, after = (_answered(policy, prompts, judge, params) for policy in (champion or base, candidate))
        regression = compare_regression(before, after, list(prompts), params)
        regression_rows = _regression_rows(prompts, before, after)
    found = Guardrails(CHAMPION if champion else BASE, kl, unmeasured, regression)
    return Guarded(found, _divergence_rows(answers, tokens, nats), regression_rows)


def _token_ids(candidate: Policy, answers: Sequence[Answer], params: Params) -> tuple[list[list[int]], list[list[int]]]:
    """The prompts as they were asked, and the answers with the end token where the candidate gave it."""
    encoder = ChatEncoder(candidate.tokenizer, params.views.instruction_at)
    asked = prompt_tokens(candidate, {answer.prompt_id: answer.prompt for answer in answers}, params)
    ended = [encoder.response(answer.response) for answer in answers]
    said = [ids if answer.ended or len(ids) == 1 else ids[:-1] for ids, answer in zip(ended, answers, strict=True)]
    return asked, said


def _answered(
    policy: Policy, prompts: Mapping[str, RegressionPrompt], judge: Judge | None, params: Params
) -> RegressionResult:
    messages = {name: row.messages for name, row in prompts.items()}
    answers = answer(policy, messages, judge, params)
    if judge:
        return RegressionResult(answers, None)
    responses = [row.response or "" for row in prompts.values()]
    logps = reference_logps(policy, messages, responses, params, place=params.promotion.regression)
    return RegressionResult(answers, logps)


def _divergence_rows(
    answers: Sequence[Answer], tokens: Sequence[int], nats: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    return [
        {"prompt_id": answer.prompt_id, "tokens": tokens[row]}
        | {name: round(sums[row], 6) for name, sums in nats.items()}
        for row, answer in enumerate(answers)
    ]


def _regression_rows(
    prompts: Mapping[str, RegressionPrompt], before: RegressionResult, after: RegressionResult
) -> list[dict[str, Any]]:
    return [
        {"prompt": row.messages, "incumbent": _side(before, place), "candidate": _side(after, place)}
        for place, row in enumerate(prompts.values())
    ]


def _side(result: RegressionResult, place: int) -> dict[str, Any]:
    found = asdict(result.answers[place])
    side = {key: found[key] for key in ("response", "tokens", "ended", "repetition", "scores")}
    if result.reference_logps is not None:
        side["reference_logp"] = round(result.reference_logps[place], 6)
    return side
