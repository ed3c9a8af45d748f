"""Log-probabilities of given tokens behind the policy's output layer, without the logits of the whole vocabulary.

The logits are made tile by tile, summed up, forgotten, and made again for the gradient of the weight. The gradient of
the hidden states needs no second pass: sum_v p_v weight_v is added up beside the sum of the exponentials. The target's
part, 1 - p, is kept apart: for a likely token it would be lost in the rounding of the others.

Logits are held in units of log 2 and less a shift, both of which a matrix product does on its way: what is left is
exp2, by far the cheapest exponential on a CPU, and a sum.

Axes: M = positions that predict a response token, H = hidden size, V = vocabulary; a tile is (some of V, some of M).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CPU_TILE = (512, 1152)
"""Words and positions of a tile at most: what products are fastest with that caches hold."""
DEVICE_TILE = (8192, 8192)
"""Words and positions of a tile that keeps an accelerator busy."""
LOG2_E = 1 / math.log(2)


def reference_logps(hidden_MH: Tensor, weight_VH: Tensor, target_M: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """The plain form of `target_logps`, which makes all logits: what it must equal."""
    logits_MV = F.linear(hidden_MH, weight_VH, bias_V)
    logits_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
    return logits_MV.log_softmax(-1).gather(-1, target_M[:, None]).squeeze(-1)


def target_logps(hidden_MH: Tensor, weight_VH: Tensor, target_M: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """Log-probability of each target token [nats], shape (M,), float32 or wider; gradients reach all but `target_M`.

    Matrix products run in the precision of the arguments, or in autocast's; sums in float32 or wider. Memory beside the
    gradients does not grow with positions x vocabulary.
    """
    device = hidden_MH.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_MH, weight_VH = _cast(hidden_MH, dtype), _cast(weight_VH, dtype)
        bias_V = None if bias_V is None else _cast(bias_V, dtype)
    with torch.autocast(device, enabled=False):
        logps_M: Tensor = _TargetLogps.apply(  # type: ignore[no-untyped-call]
            hidden_MH, weight_VH, target_M, bias_V, hidden_MH.requires_grad and torch.is_grad_enabled()
        )
    return logps_M


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # as autocast does


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_MH: Tensor, weight_VH: Tensor, target_M: Tensor, bias_V: Tensor | None, for_hidden: bool
    ) -> Tensor:
        """The logit of the target - log sum exp of all logits."""
        layer = _Layer(hidden_MH, weight_VH, bias_V)
        target_weight_MH = weight_VH[target_M]
        logit_M = (hidden_MH.to(layer.wide) * target_weight_MH).sum(-1)
        logit_M = logit_M.to(hidden_MH.dtype).to(layer.wide)  # rounded like the others, or p could be above 1
        if bias_V is not None:
            logit_M += bias_V[target_M]
        lse_M, others_MH = layer.log_sum_exp(logit_M, target_M, with_others=for_hidden)
        logps_M = logit_M - lse_M
        slope_MH = None if others_MH is None else others_MH.neg_().addcmul_(target_weight_MH, -logps_M.expm1()[:, None])
        ctx.save_for_backward(hidden_MH, weight_VH, target_M, bias_V, lse_M, logps_M, slope_MH)
        return logps_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor) -> tuple[Tensor | None, ...]:
        """By hidden: sum_v (1[v = target] - p_v) weight_v. By weight_v: (1[v = target] - p_v) hidden."""
        hidden_MH, weight_VH, target_M, bias_V, lse_M, logps_M, slope_MH = ctx.saved_tensors
        grad_MH = grad_VH = grad_V = None
        with torch.autocast(hidden_MH.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_MH = (slope_MH * grad_M[:, None]).to(hidden_MH.dtype)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
                layer = _Layer(hidden_MH, weight_VH, bias_V)
                grad_VH, grad_V = layer.parameter_gradients(lse_M, grad_M, target_M, logps_M)
        return grad_MH, grad_VH, None, grad_V, None


class _Layer:
    """An output layer and its input, gone through tile by tile."""

    def __init__(self, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> None:
        self.hidden_MH, self.weight_VH, self.bias_V = hidden_MH, weight_VH, bias_V
        self.wide = torch.promote_types(hidden_MH.dtype, torch.float32)
        tile = CPU_TILE if hidden_MH.device.type == "cpu" else DEVICE_TILE
        self.words, self.places = (
            list(_spans(len(x), step)) for x, step in zip((weight_VH, hidden_MH), tile, strict=True)
        )
        size = min(tile[0], len(weight_VH)) * min(tile[1], len(hidden_MH))
        self._room = hidden_MH.new_empty(size, dtype=self.wide)
        self._narrow_room = self._room if self.wide == hidden_MH.dtype else hidden_MH.new_empty(size)

    def log_sum_exp(self, logit_M: Tensor, target_M: Tensor, *, with_others: bool) -> tuple[Tensor, Tensor | None]:
        """The log sum exp of all logits [nats], shape (M,), and sum_v p_v weight_v but for the target, shape (M, H).

        The target's logit is what the others are shifted by: then the sum is 1 or more, and overflows only where
        another logit is far above, which is looked for afterwards and done with the running maximum. A GPU takes that
        at once: looking would make the host wait.
        """
        if self.hidden_MH.device.type != "cpu":
            return self._sum(None, target_M, with_others)
        lse_M, others_MH = self._sum(logit_M, target_M, with_others)
        far_M = ~(lse_M - logit_M < math.log(torch.finfo(self.hidden_MH.dtype).max) / 2)  # what is no number, too
        if far_M.any():
            far = _Layer(self.hidden_MH[far_M], self.weight_VH, self.bias_V)
            far_lse, far_others = far._sum(None, target_M[far_M], with_others)
            lse_M[far_M] = far_lse
            if others_MH is not None and far_others is not None:
                others_MH[far_M] = far_others
        return lse_M, others_MH

    def parameter_gradients(
        self, lse_M: Tensor, grad_M: Tensor, target_M: Tensor, logps_M: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of sum(grad * logp) by weight and bias."""
        share_MH = (self.hidden_MH * grad_M[:, None]).to(self.hidden_MH.dtype)
        grad_VH = torch.empty_like(self.weight_VH)
        grad_V = None if self.bias_V is None else grad_M.new_zeros(len(self.bias_V))
        start_M, at_target_M = -lse_M * LOG2_E, logps_M.expm1()
        targets = [self._targets(places, target_M, at_target_M) for places in self.places]
        for number, words in enumerate(self.words):
            sum_vH = grad_VH[words] if self.wide == grad_VH.dtype else torch.empty_like(grad_VH[words], dtype=self.wide)
            for places, targets_m in zip(self.places, targets, strict=True):
                probs = self._scaled_logits(words, places, start_M[places]).exp2_()
                targets_m.put(probs, number)
                if grad_V is not None:
                    grad_V[words] -= probs @ grad_M[places]
                _subtract_product(sum_vH, self._narrow(probs), share_MH[places], first=places is self.places[0])
            if sum_vH.dtype != grad_VH.dtype:
                grad_VH[words] = sum_vH
        return grad_VH, None if grad_V is None or self.bias_V is None else grad_V.to(self.bias_V.dtype)

    def _sum(self, logit_M: Tensor | None, target_M: Tensor, with_others: bool) -> tuple[Tensor, Tensor | None]:
        """As `log_sum_exp`, shifted by the logits given, or by the running maximum where none are."""
        lse_M = self.hidden_MH.new_empty(len(self.hidden_MH), dtype=self.wide)
        others_MH = torch.zeros_like(self.hidden_MH, dtype=self.wide) if with_others else None
        for places in self.places:
            shift = torch.full_like(lse_M[places], -torch.inf) if logit_M is None else logit_M[places] * LOG2_E
            start, total = -shift, torch.zeros_like(shift)
            weights = None if others_MH is None else others_MH[places]
            targets_m = self._targets(places, target_M, torch.zeros_like(lse_M))
            for number, words in enumerate(self.words):
                logits = self._scaled_logits(words, places, None if logit_M is None else start)
                if logit_M is None:
                    highest = torch.maximum(shift, logits.amax(0))
                    shrink = (shift - highest).exp2_().nan_to_num_(0.0)  # nothing yet: -inf less -inf
                    total *= shrink
                    if weights is not None:
                        weights *= shrink[:, None]
                    logits -= highest.clamp(min=torch.finfo(self.wide).min)
                    shift = highest
                powers = logits.exp2_()
                total += powers.sum(0)
                if weights is not None:
                    targets_m.put(powers, number)
                    _subtract_product(weights, self._narrow(powers).t(), self.weight_VH[words])
            lse_M[places] = (shift + total.log2()) / LOG2_E
            if weights is not None:
                weights /= -total[:, None]
        return lse_M, others_MH

    def _targets(self, places: slice, target_M: Tensor, value_M: Tensor) -> _Targets | _SortedTargets:
        kind = _SortedTargets if target_M.device.type == "cpu" else _Targets
        return kind(self.words, target_M[places], value_M[places])

    def _scaled_logits(self, words: slice, places: slice, start: Tensor | None) -> Tensor:
        """Start + log2(e) * logits of a tile, until the next is made."""
        weight, hidden = self.weight_VH[words], self.hidden_MH[places].t()
        scaled = self._room[: len(weight) * hidden.shape[1]].view(len(weight), -1)
        start = self._room.new_zeros(()) if start is None else start
        if self.wide == hidden.dtype:
            torch.addmm(start, weight, hidden, alpha=LOG2_E, out=scaled)
        else:  # a narrow sum would round the shift, and the probabilities would no longer add up to 1
            scaled.copy_(torch.mm(weight, hidden, out=self._narrow_like(scaled)))
            torch.add(start, scaled, alpha=LOG2_E, out=scaled)
        if self.bias_V is not None:
            scaled.add_(self.bias_V[words, None], alpha=LOG2_E)
        return scaled

    def _narrow(self, tile: Tensor) -> Tensor:
        """The tile in the precision of the products."""
        return tile if self._narrow_room is self._room else self._narrow_like(tile).copy_(tile)

    def _narrow_like(self, tile: Tensor) -> Tensor:
        return self._narrow_room[: tile.numel()].view(tile.shape)


class _Targets:
    """Puts each position's value at its target, in whichever tile holds it; the host waits for nothing."""

    def __init__(self, words: Sequence[slice], target_m: Tensor, value_m: Tensor) -> None:
        self.words, self.target_m, self.value_1m = words, target_m, value_m[None]

    def put(self, tile: Tensor, number: int) -> None:
        """Into the tile of that number."""
        word_m = self.target_m - self.words[number].start
        held_m = (word_m >= 0) & (word_m < len(tile))
        row_1m = word_m.clamp(0, len(tile) - 1)[None]
        tile.scatter_(0, row_1m, torch.where(held_m, self.value_1m, tile.gather(0, row_1m)))


class _SortedTargets:
    """The same on a CPU, which knows the few targets of each tile beforehand."""

    def __init__(self, words: Sequence[slice], target_m: Tensor, value_m: Tensor) -> None:
        sorted_m, self.place_m = target_m.sort()
        self.value_m = value_m[self.place_m]
        starts = torch.tensor([span.start for span in words])
        self.word_m = sorted_m - starts[torch.searchsorted(starts, sorted_m, right=True) - 1]
        self.bounds = [*torch.searchsorted(sorted_m, starts).tolist(), len(sorted_m)]

    def put(self, tile: Tensor, number: int) -> None:
        """Into the tile of that number."""
        found = slice(self.bounds[number], self.bounds[number + 1])
        tile.index_put_((self.word_m[found], self.place_m[found]), self.value_m[found])


def _subtract_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool = False) -> None:
    """Total -= left @ right, the total in its own precision; `first`: total = -left @ right, whatever it held."""
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=0 if first else 1, alpha=-1)
    elif first:
        total.copy_(left @ right).neg_()
    else:
        total -= left @ right


def _spans(length: int, most: int) -> Iterator[slice]:
    """As few equal parts as have at most so many each: a small rest would cost a product nearly as much as a whole."""
    count = max(math.ceil(length / most), 1)
    for number in range(count):
        yield slice(number * length // count, (number + 1) * length // count)
