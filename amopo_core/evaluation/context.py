"""How many tokens a policy can read."""

import sys

from amopo_core.policy import Policy


def context_length(policy: Policy) -> int:
    """Tokens of a prompt and its response together, at most [tokens]; without bound where the policy states none."""
    return getattr(policy.model.config, "max_position_embeddings", None) or sys.maxsize
