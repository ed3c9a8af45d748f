"""The policy's forward pass: rows of tokens in, log-probabilities of the response tokens out.

Which rows and which attention a policy can take is found out on itself: whatever mixes neighbours other than by plain
attention, or changes its logits behind the output layer, shows in numbers that differ.

Axes: X = rows, T = tokens of a row, M = response tokens in all, N = sequences, R = response tokens of the longest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from amopo_core.engine.attention import FLEX, SDPA, SEGMENTS, Pieces, block_mask
from amopo_core.engine.batches import Rows, packed_rows, separate_rows
from amopo_core.engine.head import target_logps
from amopo_core.engine.last_block import READING, LastBlock, Reading, last_block
from amopo_core.engine.lean import lean_layers
from amopo_core.engine.tied import TiedEmbedding, tied_embedding
from amopo_core.engine.tree import MIN_SHARED
from amopo_core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""How far two ways to one log-probability may be apart [nats]; coarser numbers are widened to compare."""
LEAST_SPREAD = 0.01
"""A policy whose log-probabilities hardly differ is compared as much more finely, down to this share."""
NARROW = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Way:
    """One way to run a policy."""

    packed: bool
    """Rows that share what sequences begin with, instead of a padded row each."""
    attention: str
    """transformers' name of the attention implementation."""
    tiled_head: bool
    """The output layer never makes all logits."""

    def __str__(self) -> str:
        rows = "packed rows with shared prompts" if self.packed else "a padded row for each prompt with a response"
        head = "tile by tile" if self.tiled_head else "all logits at once"
        return f"{rows}, {self.attention}; output layer: {head}"


class PolicyForward:
    """Runs a policy in one way, and only so until it is detached."""

    def __init__(self, model: PreTrainedModel, way: Way) -> None:
        self.way = way
        self._model = model
        self._own_attention = model.config._attn_implementation
        layer = _output_layer(model) if way.tiled_head else None
        embedding = tied_embedding(model, layer) if layer is not None else None
        self._tied = TiedEmbedding(embedding) if embedding is not None else None
        self._head = ResponseHead(layer, self._tied) if layer is not None else None
        self._lean = list(lean_layers(model)) if way.packed else []
        for module, lean_forward in self._lean:
            method = MethodType(lean_forward, module)  # of a partial, torch.compile would compile every block's anew
            setattr(module, "forward", method)  # noqa: B010 (on the object alone)
        block = last_block(model) if way.packed else None
        self._last_block = LastBlock(block) if block is not None else None
        model.set_attn_implementation(way.attention)

    def rows(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Rows:
        """Prompts with responses as the rows of this way."""
        return (packed_rows if self.way.packed else separate_rows)(prompts, responses)

    def token_logps(self, model: nn.Module, rows: Rows) -> Tensor:
        """Log-probability of each response token [nats], shape (N, R); 0 where there is none.

        Args:
            model: the policy, or what accelerate wrapped around it.
            rows: on the policy's device.
        """
        inputs: dict[str, Any] = {"input_ids": rows.input_ids_XT, "use_cache": False}
        if self.way.packed:
            inputs |= {"position_ids": rows.position_ids_XT, **self._seen(rows)}
        if self._head is None:
            logits_MV = model(**inputs).logits.flatten(0, 1).index_select(0, rows.predicting_M)
            logps_M = _logps_of(logits_MV, rows.target_M)
        else:
            with self._head.asked_for(rows.predicting_M, rows.target_M):
                logps_M = model(**inputs).logits
        flat = logps_M.new_zeros(rows.response_mask_NR.numel())
        return flat.index_put((rows.place_M,), logps_M).view(rows.response_mask_NR.shape)

    def _seen(self, rows: Rows) -> dict[str, Any]:
        """What blocks are told of the row, all of them the same: the last one finds in it what is read of it."""
        assert rows.subtree_end_T is not None
        if self.way.attention == FLEX:
            seen: dict[str, Any] = {"attention_mask": block_mask(rows.subtree_end_T, rows.segments)}
            reading = Reading(rows.places_P, None)
        else:
            pieces = Pieces(rows.segments)
            seen, reading = {"pieces": pieces}, Reading(rows.places_P, pieces.without(rows.unread))
        return seen | ({READING: reading} if self._last_block is not None else {})

    def step_taken(self) -> None:
        """The optimizer's step has used the gradients, and needs them no more: the largest one's memory is kept."""
        if self._tied is not None:
            self._tied.keep_room()

    def detach(self) -> None:
        """Make the policy what it was: for logits, for generation."""
        self._model.set_attn_implementation(self._own_attention)
        for module, _ in self._lean:
            del module.forward
        if self._last_block is not None:
            self._last_block.detach()
        if self._head is not None:
            self._head.detach()
        if self._tied is not None:
            self._tied.detach()


class ResponseHead:
    """Lets a policy's output layer return log-probabilities of the tokens asked for, in place of all logits.

    The layer stays where it is in the policy: whatever shards, casts or hooks it does so as before.
    """

    def __init__(self, layer: nn.Linear, tied: TiedEmbedding | None) -> None:
        self.layer = layer
        self._tied = tied
        self._asked: tuple[Tensor, Tensor] | None = None
        setattr(layer, "forward", self._forward)  # noqa: B010 (on the object, which hides the class's)

    @contextmanager
    def asked_for(self, predicting_M: Tensor, target_M: Tensor) -> Iterator[None]:
        """Within the block the layer answers for these places of its input and their targets."""
        self._asked = (predicting_M, target_M)
        try:
            yield
        finally:
            self._asked = None

    def detach(self) -> None:
        """Make the layer what it was."""
        del self.layer.forward

    def _forward(self, hidden_XTH: Tensor) -> Tensor:
        assert self._asked is not None, "the policy is called past PolicyForward"
        predicting_M, target_M = self._asked
        hidden_MH = hidden_XTH.flatten(0, 1).index_select(0, predicting_M)
        left = self._tied.left if self._tied is not None else None
        return target_logps(hidden_MH, self.layer.weight, target_M, self.layer.bias, left)


def best_forward(model: PreTrainedModel, max_length: int, device: torch.device | None = None) -> PolicyForward:
    """The fastest way in which the policy computes what it computes alone; the log says which.

    Args:
        model: in the precision in which it will run.
        max_length: tokens of a sequence at most.
        device: where it will run; without, where it is. The policy itself stays where it is.
    """
    device = device or model.device
    return PolicyForward(model, _best_way(model, max_length, device))


def _best_way(model: PreTrainedModel, max_length: int, device: torch.device) -> Way:
    with _first_blocks(model), _evaluating(model, device):
        probe = _Probe(model, device)
        for way in _ways(model, max_length, device):
            forward = PolicyForward(model, way)
            agrees = probe.agrees(forward)
            forward.detach()
            if agrees:
                log.info("forward pass: %s", way)
                return way
            log.info("not for this policy (%s): %s", model.config.model_type, way)
    raise UserError(f"a policy of type {model.config.model_type} gives other log-probabilities in a batch than alone")


def _ways(model: PreTrainedModel, max_length: int, device: torch.device) -> list[Way]:
    """From the fastest to the plainest."""
    own = model.config._attn_implementation or SDPA
    ways = [Way(packed=False, attention=own, tiled_head=False)]
    if _output_layer(model) is None:
        return ways
    ways.insert(0, Way(packed=False, attention=own, tiled_head=True))
    if not _looks_away(model, max_length):
        ways.insert(0, Way(packed=True, attention=SEGMENTS, tiled_head=True))
        if device.type == "cuda":
            ways.insert(0, Way(packed=True, attention=FLEX, tiled_head=True))
    return ways


def _output_layer(model: PreTrainedModel) -> nn.Linear | None:
    layer = model.get_output_embeddings()
    return layer if type(layer) is nn.Linear else None


def _looks_away(model: PreTrainedModel, max_length: int) -> bool:
    """Whether what a token sees, or its rotary angles, depend on lengths that a short probe would not show."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    rotary = str(getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None))
    return (
        bool(kinds - {"full_attention", "sliding_attention"})
        or ("sliding_attention" in kinds and window is not None and window < max_length)
        or any(kind in rotary for kind in ("dynamic", "longrope"))
    )


class _Probe:
    """Two prompts that begin alike with two responses each, and what the policy says of every one of them alone."""

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        self.model = model
        self.device = device
        self._random = torch.Generator().manual_seed(0)
        shared = self._tokens(MIN_SHARED)
        views = [shared + self._tokens(MIN_SHARED + 1), shared + self._tokens(MIN_SHARED + 4)]
        self.prompts = [view for view in views for _ in range(2)]
        self.responses = [self._tokens(count) for count in (2, 5, 3, 6)]
        self.alone = [self._alone(*sequence) for sequence in zip(self.prompts, self.responses, strict=True)]
        self.tolerance = TOLERANCE[self.alone[0].dtype] * float(torch.cat(self.alone).std().clamp(LEAST_SPREAD, 1))

    def agrees(self, forward: PolicyForward) -> bool:
        """Whether the policy says the same in this way."""
        rows = forward.rows(self.prompts, self.responses).to(self.device)
        try:
            found_NR = forward.token_logps(self.model, rows)
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            log.info("%s: %s", forward.way, str(error).partition("\n")[0])
            return False
        differences = [(found_NR[row, : len(alone)] - alone).abs().max() for row, alone in enumerate(self.alone)]
        return float(torch.stack(differences).max()) <= self.tolerance

    def _tokens(self, count: int) -> list[int]:
        size = self.model.config.get_text_config().vocab_size
        tokens: list[int] = torch.randint(size, (count,), generator=self._random).tolist()
        return tokens

    def _alone(self, prompt: list[int], response: list[int]) -> Tensor:
        ids_1T = torch.tensor([prompt + response], device=self.device)
        logits_TV = self.model(input_ids=ids_1T, use_cache=False).logits[0, len(prompt) - 1 : -1]
        return _logps_of(logits_TV, ids_1T[0, len(prompt) :])


@contextmanager
def _first_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Without the blocks behind the first two and the first of each kind: they tell nothing new, and take memory."""
    config = model.config.get_text_config()
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    ]
    if not found:
        yield
        return
    parent, name, blocks = found[0]
    types = getattr(config, "layer_types", None) or [""] * len(blocks)
    kinds = [(type(block), kind) for block, kind in zip(blocks, types, strict=True)]
    enough = max(2, *(kinds.index(kind) + 1 for kind in set(kinds)))
    setattr(parent, name, nn.ModuleList(list(blocks)[:enough]))
    try:
        yield
    finally:
        setattr(parent, name, blocks)


@contextmanager
def _evaluating(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """On the device, without gradients, dropout and the rounding of 16 bits, under which unlike numbers look alike."""
    training, kept = model.training, [(tensor, tensor.data) for tensor in (*model.parameters(), *model.buffers())]
    model.eval()
    try:
        for tensor, data in kept:
            tensor.data = data.to(device, torch.float32 if data.dtype in NARROW else data.dtype)
        with torch.no_grad():
            yield
    finally:
        for tensor, data in kept:
            tensor.data = data
        model.train(training)


def _logps_of(logits_MV: Tensor, target_M: Tensor) -> Tensor:
    logits_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
    return logits_MV.log_softmax(-1).gather(-1, target_M[:, None]).squeeze(-1)
