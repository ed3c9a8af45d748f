"""The starting policy: whether it loads, what it lacks, and how its rows would be computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from amopo_core.doctor.disk import BASE
from amopo_core.doctor.finding import Finding, ok, warn, wrong
from amopo_core.units import in_bytes

if TYPE_CHECKING:
    from amopo_core.config import Params
    from amopo_core.doctor.examine import Site
    from amopo_core.policy import Policy

LARGEST = 4 * 10**9
"""Weights beyond this are not loaded: it would take longer than an examination may [bytes]."""


def check(site: Site) -> Iterator[Finding]:
    """End token, chat template, context, and the attention that packed rows will use."""
    from amopo_core.policy_folder import check_policy_folder

    if not BASE.exists():
        yield ok(f"{BASE} is not there yet: the stage `base` makes it (`dvc repro base`)")
        return
    check_policy_folder(BASE)
    size = sum(path.stat().st_size for path in BASE.glob("*.safetensors"))
    if size > LARGEST:
        yield warn(f"{BASE}: {in_bytes(size)} of weights are not loaded here", "the stage `train` looks at them")
        return
    from amopo_core.policy import load_policy

    policy = load_policy(BASE)
    yield ok(f"{BASE}: {policy.model.config.model_type}, {policy.model.num_parameters():,} parameters, loads")
    yield _talks(policy)
    max_length = site.params.train.max_length if site.params else policy.context
    if site.params:
        yield _fits(policy, site.params)
    yield _forward(policy, min(max_length, policy.context))


def _talks(policy: Policy) -> Finding:
    from amopo_core.policy import FALLBACK_TEMPLATE

    end = f"end token {policy.tokenizer.eos_token!r}"
    if policy.tokenizer.chat_template == FALLBACK_TEMPLATE:
        said = f"{end}; no chat template: the bare prompt and a line break are used"
        return warn(said, "start from an instruction-tuned policy where there is one")
    return ok(f"{end}, its own chat template")


def _fits(policy: Policy, params: Params) -> Finding:
    if params.train.max_length <= policy.context:
        return ok(f"train.max_length {params.train.max_length} is within its context of {policy.context}")
    said = f"train.max_length is {params.train.max_length}, the policy's context {policy.context} tokens: that counts"
    return warn(said, f"set train.max_length to {policy.context} at most")


def _forward(policy: Policy, max_length: int) -> Finding:
    """The way that the policy itself proves to compute rightly; float32 on the device that trains."""
    import torch

    from amopo_core.engine.forward import best_forward
    from amopo_core.errors import UserError

    if torch.cuda.is_available():
        policy.model.to("cuda")
    try:
        forward = best_forward(policy.model, max_length)
    except UserError as error:
        return wrong(str(error), "choose another starting policy")
    way = forward.way
    forward.detach()
    if way.packed:
        return ok(f"rows: {way}: a probe of this policy gave the same numbers as row by row")
    said = f"rows: {way}: packed rows gave this policy other numbers"
    return warn(said, "it trains right, but every view computes the prompt again")
