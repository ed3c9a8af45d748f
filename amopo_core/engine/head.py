"""Log-probabilities of given tokens behind the policy's output layer, without the logits of the whole vocabulary.

The logits are made tile by tile, summed up, forgotten, and made again for the gradient of the weight; on a CPU as many
tiles as a few times the weight's memory holds are kept, and spare the product. The gradient of the hidden states needs
no second pass: sum_v p_v weight_v is added up beside the sum of the exponentials. The target's part, 1 - p, is kept
apart: for a likely token it would be lost in the rounding of the others.

Logits are held in units of log 2, to which a matrix product brings them on its way: what is left is exp2, by far the
cheapest exponential on a CPU, and a sum. They are shifted only where the sum of their powers would leave the range of
its numbers, which is looked for afterwards: probabilities are 2**logit * 2**-lse, and the second factor goes to the
gradients, of which there are fewer.

Axes: M = positions that predict a response token, H = hidden size, V = vocabulary; a tile is (some of V, some of M).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from amopo_core.engine.products import by_onednn, product
from amopo_core.engine.tied import LeftGradient

CPU_TILE = (1024, 1152)
"""Words and positions of a tile at most: what products are fastest with that caches hold."""
DEVICE_TILE = (8192, 8192)
"""Words and positions of a tile that keeps an accelerator busy."""
LOG2_E = 1 / math.log(2)
KEPT_WEIGHTS = 6
"""Numbers kept of the tiles, for each of the weight, of which training holds four anyway: itself, its gradient and
AdamW's two moments. The other tiles are made again."""
PLAIN_RANGE = 100.0
"""Powers of 2 up to which sums need no shift: far from where float32 and bfloat16 overflow and grow coarse."""


def reference_logps(hidden_MH: Tensor, weight_VH: Tensor, target_M: Tensor, bias_V: Tensor | None = None) -> Tensor:
    """The plain form of `target_logps`, which makes all logits: what it must equal."""
    logits_MV = F.linear(hidden_MH, weight_VH, bias_V)
    logits_MV = logits_MV.to(torch.promote_types(logits_MV.dtype, torch.float32))
    return logits_MV.log_softmax(-1).gather(-1, target_M[:, None]).squeeze(-1)


def target_logps(
    hidden_MH: Tensor,
    weight_VH: Tensor,
    target_M: Tensor,
    bias_V: Tensor | None = None,
    left: LeftGradient | None = None,
) -> Tensor:
    """Log-probability of each target token [nats], shape (M,), float32 or wider; gradients reach all but `target_M`.

    Matrix products run in the precision of the arguments, or in autocast's; sums in float32 or wider. Memory beside the
    gradients does not grow with positions x vocabulary.

    Args:
        hidden_MH, weight_VH, bias_V: the output layer and its input.
        target_M: token ids.
        left: takes the weight's gradient in autograd's place.
    """
    device = hidden_MH.device.type
    with_gradients = torch.is_grad_enabled()
    for_hidden, for_weight = hidden_MH.requires_grad and with_gradients, weight_VH.requires_grad and with_gradients
    if left is not None:
        weight_VH = weight_VH.detach()
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_MH, weight_VH = _cast(hidden_MH, dtype), _cast(weight_VH, dtype)
        bias_V = None if bias_V is None else _cast(bias_V, dtype)
    with torch.autocast(device, enabled=False):
        logps_M: Tensor = _TargetLogps.apply(  # type: ignore[no-untyped-call]
            hidden_MH, weight_VH, target_M, bias_V, for_hidden, for_weight, left
        )
    return logps_M


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # as autocast does


class _TargetLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        weight_VH: Tensor,
        target_M: Tensor,
        bias_V: Tensor | None,
        for_hidden: bool,
        for_weight: bool,
        left: LeftGradient | None,
    ) -> Tensor:
        """The logit of the target - log sum exp of all logits."""
        layer = _Layer(hidden_MH, weight_VH, bias_V, keeps=for_weight)
        logps_M, lse_M, others_MH = layer.log_probabilities(target_M, with_others=for_hidden)
        slope_MH = None
        if others_MH is not None:
            slope_MH = others_MH.neg_().contiguous().addcmul_(weight_VH[target_M], -logps_M.expm1()[:, None])
        ctx.save_for_backward(hidden_MH, weight_VH, target_M, bias_V, lse_M, logps_M, slope_MH)
        ctx.kept, ctx.left, ctx.for_weight = layer.kept, left, for_weight
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
            if ctx.for_weight or ctx.needs_input_grad[3]:
                layer = _Layer(hidden_MH, weight_VH, bias_V)
                layer.kept, ctx.kept = ctx.kept, {}  # a second pass, where one comes, makes them again
                gathered_VH = ctx.left.begin() if ctx.left is not None else None
                grad_VH, grad_V = layer.parameter_gradients(lse_M, grad_M, target_M, logps_M, gathered_VH)
        if ctx.left is not None:
            ctx.left.leave(grad_VH)
            grad_VH = None
        return grad_MH, grad_VH, None, grad_V, None, None, None


class _Layer:
    """An output layer and its input, gone through tile by tile. Logits and their sums are in units of log 2."""

    def __init__(self, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, *, keeps: bool = False) -> None:
        self.hidden_MH, self.weight_VH, self.bias_V = hidden_MH, weight_VH, bias_V
        self.wide = torch.promote_types(hidden_MH.dtype, torch.float32)
        tile = CPU_TILE if hidden_MH.device.type == "cpu" else DEVICE_TILE
        self.words, self.places = (
            list(_spans(len(x), step)) for x, step in zip((weight_VH, hidden_MH), tile, strict=True)
        )
        self._tile_size = min(tile[0], len(weight_VH)) * min(tile[1], len(hidden_MH))
        self._by_onednn = by_onednn(hidden_MH, weight_VH)
        self._rooms: dict[torch.dtype, Tensor] = {}
        self.kept: dict[tuple[int, int], Tensor] = {}
        """Powers of tiles, which need no shift, by the numbers of their words and places."""
        kept_numbers = KEPT_WEIGHTS * weight_VH.numel() if keeps and self._looks else 0
        self._kept_words = kept_numbers // max(len(hidden_MH), 1)

    def log_probabilities(self, target_M: Tensor, *, with_others: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of the targets [nats], shape (M,); the logits' log sum exp, shape (M,); and the others' pull.

        The last is sum_v p_v weight_v over all words but the target, shape (M, H).
        """
        if not self._looks:
            return self._sums(target_M, with_others, shifted=True)
        logps_M, lse_M, others_MH = self._sums(target_M, with_others, shifted=False)
        far_M = self._far(lse_M)
        if far_M.any():
            self.kept.clear()
            far = _Layer(self.hidden_MH[far_M], self.weight_VH, self.bias_V)
            logps_M[far_M], lse_M[far_M], far_others = far._sums(target_M[far_M], with_others, shifted=True)
            if others_MH is not None and far_others is not None:
                others_MH[far_M] = far_others
        return logps_M, lse_M, others_MH

    def parameter_gradients(
        self, lse_M: Tensor, grad_M: Tensor, target_M: Tensor, logps_M: Tensor, gathered_VH: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Gradients of sum(grad * logp) by weight and bias; the weight's is added to what was gathered before."""
        shift_M = self._shift(lse_M)
        scale_M = (-lse_M if shift_M is None else shift_M - lse_M).exp2_()
        share_M, at_target_M = grad_M * scale_M, logps_M.expm1() / scale_M
        share_MH = (self.hidden_MH * share_M[:, None]).to(self.hidden_MH.dtype)
        grad_VH = torch.zeros_like(self.weight_VH) if gathered_VH is None else gathered_VH
        grad_V = None if self.bias_V is None else grad_M.new_zeros(len(self.bias_V))
        targets = [self._targets(places, target_M) for places in self.places]
        for number, words in enumerate(self.words):
            sum_vH = grad_VH[words].to(self.wide)
            for place, (places, targets_m) in enumerate(zip(self.places, targets, strict=True)):
                powers = self.kept.pop((number, place), None)
                if powers is None:
                    powers = self._logits(words, places, None if shift_M is None else -shift_M[places]).exp2_()
                targets_m.put(powers, number, at_target_M[places])
                if grad_V is not None:
                    grad_V[words] -= powers @ share_M[places].to(powers.dtype)
                _subtract_product(sum_vH, self._narrow(powers), share_MH[places])
            if sum_vH.dtype != grad_VH.dtype:
                grad_VH[words] = sum_vH
        return grad_VH, None if grad_V is None or self.bias_V is None else grad_V.to(self.bias_V.dtype)

    def _sums(self, target_M: Tensor, with_others: bool, *, shifted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """As `log_probabilities`; with `shifted` by the running maximum.

        The target's power is kept out of the sums: what is next to it would be lost beside a likely token's.
        """
        nothing_M = self.hidden_MH.new_zeros(len(self.hidden_MH), dtype=self.wide)
        total_M = nothing_M.clone()
        shift_M = torch.full_like(nothing_M, -torch.inf) if shifted else nothing_M
        pull_MH = self._no_pull() if with_others else None
        targets = [self._targets(places, target_M) for places in self.places]
        for number, words in enumerate(self.words):
            keeps = words.stop <= self._kept_words and not shifted
            weight_vH = None if pull_MH is None else self._pulling(words)
            for place, (places, targets_m) in enumerate(zip(self.places, targets, strict=True)):
                pull_mH = None if pull_MH is None else pull_MH[places]
                logits = self._logits(words, places, nothing_M[places] if shifted else None, keeps=keeps)
                if shifted:
                    highest = torch.maximum(shift_M[places], logits.amax(0))
                    shrink = (shift_M[places] - highest).exp2_().nan_to_num_(0.0)  # nothing yet: -inf less -inf
                    total_M[places] *= shrink
                    if pull_mH is not None:
                        pull_mH *= shrink[:, None]
                    logits -= highest.clamp(min=torch.finfo(self.wide).min)
                    shift_M[places] = highest
                powers = logits.exp2_()
                targets_m.put(powers, number, nothing_M[places])
                total_M[places] += powers.sum(0)
                if pull_mH is not None and weight_vH is not None:
                    _subtract_product(pull_mH, self._narrow(powers).t(), weight_vH)
                if keeps:
                    self.kept[number, place] = powers
        logit_M, others_M = self._target_logits(target_M), shift_M + total_M.log2()
        lse_M = torch.logaddexp2(logit_M, others_M)
        if pull_MH is not None:
            pull_MH /= -(lse_M - shift_M).exp2()[:, None]
        return F.logsigmoid((logit_M - others_M) / LOG2_E), lse_M, pull_MH

    def _target_logits(self, target_M: Tensor) -> Tensor:
        """Wide, where a tile may hold them rounded; shape (M,)."""
        logit_M = torch.cat(
            [
                (self.hidden_MH[places].to(self.wide) * self.weight_VH[target_M[places]]).sum(-1)
                for places in self.places
            ]
        )
        if self.bias_V is not None:
            logit_M += self.bias_V[target_M]
        return logit_M.mul_(LOG2_E)

    def _pulling(self, words: slice) -> Tensor:
        """Weights of a tile as the product with its powers wants them; made so once for all positions."""
        weight_vH = self.weight_VH[words]
        return weight_vH.t().contiguous().t() if self._by_onednn else weight_vH

    @property
    def _looks(self) -> bool:
        """Whether sums are tried without a shift: on a GPU the host would wait, and float16 overflows at once."""
        return self.hidden_MH.device.type == "cpu" and self.hidden_MH.dtype != torch.float16

    def _far(self, lse_M: Tensor) -> Tensor:
        return ~(lse_M.abs() < PLAIN_RANGE)  # what is no number, too

    def _shift(self, lse_M: Tensor) -> Tensor | None:
        """What the logits are shifted by to keep their powers in range; None: nothing is."""
        if not self._looks:
            return lse_M
        far_M = self._far(lse_M)
        return lse_M.where(far_M, 0.0) if far_M.any() else None

    def _targets(self, places: slice, target_M: Tensor) -> _Targets | _SortedTargets:
        kind = _SortedTargets if target_M.device.type == "cpu" else _Targets
        return kind(self.words, target_M[places])

    def _logits(self, words: slice, places: slice, start: Tensor | None, *, keeps: bool = False) -> Tensor:
        """Start + logits of a tile, until the next is made or, kept, for good; without a start perhaps not wide."""
        weight, hidden = self.weight_VH[words], self.hidden_MH[places].t()
        shape = (len(weight), hidden.shape[1])
        room = self._own_room if keeps else self._room
        if self._by_onednn:
            logits = product(weight, self._scaled_MH[places])
            if start is not None:
                logits += start
        elif self.wide == hidden.dtype:
            logits = room(shape, self.wide)
            start = (
                hidden.new_zeros(shape[1]) if start is None else start
            )  # a tile that caches hold is faster to add to
            torch.addmm(start, weight, hidden, alpha=LOG2_E, out=logits)
        elif start is None and self.bias_V is None:
            logits = room(shape, hidden.dtype)
            torch.addmm(hidden.new_zeros(()), weight, hidden, beta=0, alpha=LOG2_E, out=logits)
        else:  # a narrow sum would round the shift, and the probabilities would no longer add up to 1
            narrow = torch.mm(weight, hidden, out=self._room(shape, hidden.dtype))
            logits = room(shape, self.wide).copy_(narrow).mul_(LOG2_E)
            if start is not None:
                logits += start
        if self.bias_V is not None:
            logits.add_(self.bias_V[words, None], alpha=LOG2_E)
        return logits

    @cached_property
    def _scaled_MH(self) -> Tensor:
        return self.hidden_MH * LOG2_E

    def _no_pull(self) -> Tensor:
        """Zeros, shape (M, H), that lie as the products that are added to them do."""
        size_M, size_H = self.hidden_MH.shape
        if self._by_onednn:
            return self.hidden_MH.new_zeros(size_H, size_M).t()
        return self.hidden_MH.new_zeros(size_M, size_H, dtype=self.wide)

    def _narrow(self, tile: Tensor) -> Tensor:
        """The tile in the precision of the products."""
        dtype = self.hidden_MH.dtype
        return tile if tile.dtype == dtype else self._room(tile.shape, dtype).copy_(tile)

    def _own_room(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory for a tile of its own."""
        return self.hidden_MH.new_empty(shape, dtype=dtype)

    def _room(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory for a tile, the same one every time."""
        if dtype not in self._rooms:
            self._rooms[dtype] = self.hidden_MH.new_empty(self._tile_size, dtype=dtype)
        return self._rooms[dtype][: shape[0] * shape[1]].view(*shape)


class _Targets:
    """Each position's target, in whichever tile holds it; the host waits for nothing."""

    def __init__(self, words: Sequence[slice], target_m: Tensor) -> None:
        self.words, self.target_m = words, target_m

    def put(self, tile: Tensor, number: int, value_m: Tensor) -> None:
        """Values in place of what the tile of that number holds at the targets."""
        word_m = self.target_m - self.words[number].start
        held_m, row_1m = (word_m >= 0) & (word_m < len(tile)), word_m.clamp(0, len(tile) - 1)[None]
        tile.scatter_(0, row_1m, torch.where(held_m, value_m.to(tile.dtype), tile.gather(0, row_1m)))


class _SortedTargets:
    """The same on a CPU, which knows the few targets of each tile beforehand."""

    def __init__(self, words: Sequence[slice], target_m: Tensor) -> None:
        sorted_m, self.place_m = target_m.sort()
        starts = torch.tensor([span.start for span in words])
        self.word_m = sorted_m - starts[torch.searchsorted(starts, sorted_m, right=True) - 1]
        self.bounds = [*torch.searchsorted(sorted_m, starts).tolist(), len(sorted_m)]

    def put(self, tile: Tensor, number: int, value_m: Tensor) -> None:
        """Values in place of what the tile of that number holds at the targets."""
        found = slice(self.bounds[number], self.bounds[number + 1])
        place_m = self.place_m[found]
        tile[self.word_m[found], place_m] = value_m.index_select(0, place_m).to(tile.dtype)


def _subtract_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Total -= left @ right, the total in its own precision."""
    if by_onednn(left, right):
        total -= product(left, right.t()) if left.is_contiguous() else product(right.t(), left).t()
    elif total.dtype == left.dtype:
        total.addmm_(left, right, alpha=-1)
    else:
        total -= left @ right


def _spans(length: int, most: int) -> Iterator[slice]:
    """As few equal parts as have at most so many each: a small rest would cost a product nearly as much as a whole."""
    count = max(math.ceil(length / most), 1)
    for number in range(count):
        yield slice(number * length // count, (number + 1) * length // count)
