"""Log-probabilities of responses the plain way: padded sequences, all logits. What the engine must equal.

Axes: N = sequences (a prompt with a response), T = tokens of the longest one, R = tokens of the longest response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sequences:
    """Prompts with responses, padded on the left: every response ends in the last column."""

    input_ids_NT: Tensor
    attention_mask_NT: Tensor
    response_mask_NR: Tensor
    """True where one of the last R columns is a token of the response, the end token included."""

    def to(self, device: torch.device) -> Sequences:
        """The same on a device."""
        tensors = (self.input_ids_NT, self.attention_mask_NT, self.response_mask_NR)
        return Sequences(*(tensor.to(device) for tensor in tensors))


def pad_sequences(prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> Sequences:
    """Token ids as tensors; padding is told by the masks and never by an id, which may also be the end token's."""
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]
    length, response_length = max(lengths), max(map(len, responses))
    input_ids_NT = torch.zeros(len(lengths), length, dtype=torch.long)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        input_ids_NT[row, length - lengths[row] :] = torch.tensor(prompt + response)
    attention_mask_NT = torch.arange(length) >= length - torch.tensor(lengths)[:, None]
    response_lengths = torch.tensor([len(response) for response in responses])
    response_mask_NR = torch.arange(response_length) >= response_length - response_lengths[:, None]
    return Sequences(input_ids_NT, attention_mask_NT.long(), response_mask_NR)


def token_logps(model: torch.nn.Module, sequences: Sequences) -> Tensor:
    """Log-probability of each response token [nats], shape (N, R); 0 where there is none.

    The head runs on the last R + 1 positions only, so the prompts' logits are never made.
    """
    response_length = sequences.response_mask_NR.shape[1]
    mask = sequences.attention_mask_NT
    logits_NRV = model(
        input_ids=sequences.input_ids_NT,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        logits_to_keep=response_length + 1,
        use_cache=False,
    ).logits[:, :-1]
    logits_NRV = logits_NRV.to(torch.promote_types(logits_NRV.dtype, torch.float32))
    tokens_NR = sequences.input_ids_NT[:, -response_length:]
    picked_NR = logits_NRV.gather(-1, tokens_NR.unsqueeze(-1)).squeeze(-1)
    logps_NR: Tensor = picked_NR - logits_NRV.logsumexp(-1)
    return logps_NR.masked_fill(~sequences.response_mask_NR, 0.0)
