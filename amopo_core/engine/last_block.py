"""The last block without the tokens that predict nothing: of a prompt, others need its keys and values alone.

What a block makes of a token is read by the tokens behind it in the next one; of the last block's, only what predicts a
response token is. The others' product with keys and values, where it goes segment by segment, and their gated layer are
left out; what the block says of them is of no use.

Axes: X = rows, T = tokens of a row, P = places that predict, H = hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from amopo_core.engine.attention import Pieces
from amopo_core.engine.lean import is_gated

ATTENTION, GATED = "self_attn", "mlp"
"""What a block's parts are called."""
READING = "reading"
"""The argument by which a forward pass tells the last block what will be read of it."""


@dataclass(frozen=True)
class Reading:
    """What is read of the last block's outcome."""

    places_P: Tensor
    """Where a response token is predicted, in the rows laid end to end; each once."""
    pieces: Pieces | None
    """For attention segment by segment: what it must know to answer there alone."""


class LastBlock:
    """Lets a policy's last block do what is read of it, in passes that say so, until it is detached.

    Its parts stay where they are, and its outcome has the shape it had: whatever shards or casts it does as before, and
    so does gradient checkpointing, which calls its parts again, but not the block. Attention comes first of the two: in
    a block that called the gated layer before, nothing of that would be left out.
    """

    def __init__(self, block: nn.Module) -> None:
        self._places_P: Tensor | None = None
        self._shape: tuple[int, ...] = ()
        attention, gated = block.get_submodule(ATTENTION), block.get_submodule(GATED)
        self._hooks = (
            block.register_forward_pre_hook(self._forget),
            attention.register_forward_pre_hook(self._hear, with_kwargs=True),
            gated.register_forward_pre_hook(self._pick),
            gated.register_forward_hook(self._put_back),
        )

    def detach(self) -> None:
        """Make the block what it was."""
        for hook in self._hooks:
            hook.remove()

    def _forget(self, *_: Any) -> None:
        self._places_P = None

    def _hear(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """What the pass says, which calls attention before the gated layer; attention itself must not know more."""
        reading: Reading | None = kwargs.pop(READING, None)
        self._places_P = None if reading is None else reading.places_P
        if reading is not None and reading.pieces is not None:
            kwargs["pieces"] = reading.pieces
        return args, kwargs

    def _pick(self, _: nn.Module, args: tuple[Tensor]) -> tuple[Tensor] | None:
        (states_XTH,) = args
        if self._places_P is None:
            return None
        self._shape = states_XTH.shape
        return (states_XTH.flatten(0, 1).index_select(0, self._places_P)[None],)

    def _put_back(self, _: nn.Module, __: tuple[Tensor], found_1PH: Tensor) -> Tensor | None:
        if self._places_P is None:
            return None
        nothing = found_1PH.new_zeros(self._shape).flatten(0, 1)
        return nothing.index_copy(0, self._places_P, found_1PH.squeeze(0)).view(self._shape)


def last_block(model: nn.Module) -> nn.Module | None:
    """The last of the model's blocks, where all are of one kind, whose parts have the names they have in Llama."""
    stacks = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) and all(map(_has_both_parts, module))
    ]
    if len(stacks) != 1 or len({type(block) for block in stacks[0]}) != 1:
        return None
    return stacks[0][-1]


def _has_both_parts(block: nn.Module) -> bool:
    return isinstance(getattr(block, ATTENTION, None), nn.Module) and is_gated(getattr(block, GATED, None))
