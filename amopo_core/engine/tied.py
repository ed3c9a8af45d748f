"""A weight that is embedding and output layer at once: both uses make one gradient, in one place.

Autograd would add up two gradients of all words into a third. Here the output layer, whose backward pass comes first,
leaves its gradient to the embedding, whose comes last and has few rows to add. Both are added to what earlier passes
have gathered, in its place: to touch the memory of another gradient of all words for the first time takes longer than
to add to one. To everything else (gradient accumulation, DDP) the weight is used once.

Axes: V = vocabulary, H = hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class LeftGradient:
    """What the output layer's backward pass leaves for the embedding's, which ends the same pass.

    The pass is one that gathers gradients, as `backward` does: what `torch.autograd.grad` returned would hold what was
    gathered before.
    """

    def __init__(self, tied: TiedEmbedding) -> None:
        self._tied = tied
        self._grad_VH: Tensor | None = None

    def begin(self) -> Tensor | None:
        """What the output layer adds to; None: it makes room."""
        return self._tied.take_gathered()

    def leave(self, grad_VH: Tensor) -> None:
        """Hand over the output layer's gradient of the weight, which nobody else may hold."""
        self._grad_VH = grad_VH if self._grad_VH is None else self._grad_VH + grad_VH

    def take(self) -> Tensor | None:
        """What was left; from then on there is nothing."""
        grad_VH, self._grad_VH = self._grad_VH, None
        return grad_VH


class TiedEmbedding:
    """Lets an embedding look up tokens so that its backward pass finishes the gradient that the output layer began.

    A GPU would have to sort the tokens to add them up in the same order every time: this is for CPUs.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self.embedding = embedding
        self.left: LeftGradient | None = None
        """Where the output layer leaves its gradient in the pass that began last; None: nobody will ask for it."""
        self._spare_VH: Tensor | None = None
        setattr(embedding, "forward", self._forward)  # noqa: B010 (on the object, which hides the class's)

    def take_gathered(self) -> Tensor | None:
        """The gradient of earlier passes, which the weight lacks until this one ends; zeros where there is but room."""
        gathered_VH, self.embedding.weight.grad = self.embedding.weight.grad, None
        if gathered_VH is None and self._spare_VH is not None:
            gathered_VH, self._spare_VH = self._spare_VH.zero_(), None
        return gathered_VH

    def keep_room(self) -> None:
        """Take the weight's gradient, which nobody needs any more, as room for the next one."""
        self._spare_VH, self.embedding.weight.grad = self.embedding.weight.grad, None

    def detach(self) -> None:
        """Make the embedding what it was."""
        del self.embedding.forward

    def _forward(self, input_ids: Tensor) -> Tensor:
        weight_VH = self.embedding.weight
        self.left = LeftGradient(self) if weight_VH.requires_grad and torch.is_grad_enabled() else None
        if self.left is None:
            return F.embedding(input_ids, weight_VH)
        found: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
            input_ids, weight_VH, self.embedding.padding_idx, self.left
        )
        return found


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_ids: Tensor, weight_VH: Tensor, padding: int | None, left: LeftGradient) -> Tensor:
        """The rows of the tokens."""
        ctx.save_for_backward(input_ids)
        ctx.shape, ctx.padding, ctx.left = weight_VH.shape, padding, left
        return F.embedding(input_ids, weight_VH)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """What was left, and each token's gradient in its row; a padding token has none."""
        (input_ids,) = ctx.saved_tensors
        left_VH = ctx.left.take()
        grad_VH = grad.new_zeros(ctx.shape) if left_VH is None else left_VH.to(grad.dtype)
        if ctx.padding is not None:
            grad = grad.masked_fill((input_ids == ctx.padding)[..., None], 0)
        grad_VH.index_add_(0, input_ids.flatten(), grad.flatten(0, -2))
        return None, grad_VH, None, None


def tied_embedding(model: nn.Module, layer: nn.Linear) -> nn.Embedding | None:
    """The embedding whose weight is the output layer's too, on a CPU; None where there is none."""
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    if type(embedding) is not nn.Embedding or embedding.weight is not layer.weight or embedding.max_norm is not None:
        return None
    return embedding if embedding.weight.device.type == "cpu" else None
