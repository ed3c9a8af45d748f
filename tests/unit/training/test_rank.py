"""The trainer in this process: what may not change a result does not."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from amopo_core.data.tables import Pair, write_pairs
from amopo_core.engine.logps import pad_sequences, token_logps
from amopo_core.errors import UserError
from amopo_core.loss import PairwiseLoss
from amopo_core.objective import ObjectiveResult
from amopo_core.params_file import read_params
from amopo_core.policy import load_policy
from amopo_core.training.encoded import EncodedPairs, Encoding, encode_split, read_encoding
from amopo_core.training.failures import described
from amopo_core.training.history import history_line
from amopo_core.training.non_finite import NotFinite
from amopo_core.training.rank import build_trainer, counted, nothing_left, write_reports
from amopo_core.training.run_folder import COMPLETE, checkpoint_folder, last_checkpoint
from amopo_core.training.trainer import ViewSums

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def small_params(**train):
    sections = {"epochs": 1, "batch_pairs": 4, "max_length": 200, "learning_rate": 1e-3, "log_every": 1} | train
    return PARAMS.model_copy(
        update={
            "train": PARAMS.train.model_copy(update=sections),
            "runtime": PARAMS.runtime.model_copy(update={"threads": 1}),
        }
    )


def make_pairs(count, response="yes it is"):
    scores = [dict.fromkeys(PARAMS.dimensions, score) for score in (5.0, 2.0)]
    return [
        Pair(
            f"{i:016x}",
            f"{i:016x}",
            [{"role": "user", "content": f"{i}?"}],
            f"{response} {i}",
            "no" * (i % 3 + 1),
            *scores,
        )
        for i in range(count)
    ]


def encoded(folder, output, params, pairs):
    """The pairs as a run has them: through the table of the stage before and the encoded file."""
    table, path = output / "pairs" / "train.parquet", output / "encoded" / f"{len(pairs)}.arrow"
    write_pairs(table, pairs, list(PARAMS.dimensions))
    encode_split(params, table, folder, min(params.train.max_length, 256), path)
    return EncodedPairs(path), read_encoding(path)


def trainer_of(folder, output, params, pairs, validation=(), dtype=torch.float64, ranks=1):
    policy = load_policy(folder, dtype=dtype)
    sources = [encoded(folder, output / name, params, rows)[0] for name, rows in (("t", pairs), ("v", validation))]
    return build_trainer(params, policy, *sources, output=output / "checkpoints", ranks=ranks)


def train(folder, output, params, count=10):
    trainer = trainer_of(folder, output, params, make_pairs(count), make_pairs(3))
    trainer.train()
    return trainer.model.state_dict(), trainer.state.log_history


def losses(history):
    return [row["loss"] for row in history if "loss" in row]


def test_the_micro_batch_changes_memory_and_not_the_result(tiny_policy_folder, tmp_path):
    """10 pairs in global batches of 4, 4 and 2, cut into micro-batches of a pair, two and all: the same to 1e-8."""
    results = [
        train(tiny_policy_folder, tmp_path / str(tokens), small_params(micro_batch_tokens=tokens))
        for tokens in (1, 1500, 100_000)
    ]

    for weights, history in results[1:]:
        for name, tensor in weights.items():
            assert_close(tensor, results[0][0][name], rtol=0, atol=1e-8, msg=name)
        assert losses(history) == pytest.approx(losses(results[0][1]), rel=1e-5)


def test_the_history_says_what_each_view_does(tiny_policy_folder, tmp_path):
    _, history = train(tiny_policy_folder, tmp_path, small_params())
    first, last = history[0], history[-1]

    for view in PARAMS.view_names:
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "weights"):
            assert f"{name}/{view}" in first
        margin = first[f"rewards/chosen/{view}"] - first[f"rewards/rejected/{view}"]
        assert first[f"rewards/margins/{view}"] == pytest.approx(margin)
    assert sum(first[f"weights/{view}"] for view in PARAMS.view_names) == pytest.approx(1)
    assert last["validation/loss"] > 0
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3]
    assert [row["step"] for row in history if "validation/loss" in row] == [3]


def test_the_first_logged_loss_is_the_mean_over_the_global_batch(tiny_policy_folder, tmp_path):
    """Not divided by views or batch again: with beta small and no margin every view's loss is log 2."""
    params = small_params(learning_rate=1e-12)
    params = params.model_copy(
        update={"objective": params.objective.model_copy(update={"beta": 1e-9, "target_margin": 0.0})}
    )
    _, history = train(tiny_policy_folder, tmp_path, params)

    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_a_loss_that_is_not_finite_stops_with_its_step(tiny_policy_folder, tmp_path):
    trainer = trainer_of(tiny_policy_folder, tmp_path, small_params(), make_pairs(8))
    with torch.no_grad():
        trainer.model.model.norm.weight.fill_(float("nan"))

    with pytest.raises(
        NotFinite, match="step 1: the loss is not finite, in each of the step's 4 pairs, so that the weights are"
    ):
        trainer.train()


def test_other_ranks_than_asked_for_stop_at_once(tiny_policy_folder, tmp_path):
    with pytest.raises(UserError, match="asks for 2 processes, but 1 train together"):
        trainer_of(tiny_policy_folder, tmp_path, small_params(), make_pairs(4), ranks=2)


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    for step in (5, 10, 15):
        checkpoint_folder(tmp_path, step).mkdir()
    for step in (5, 10):
        (checkpoint_folder(tmp_path, step) / COMPLETE).write_text("{}")

    assert last_checkpoint(tmp_path) == checkpoint_folder(tmp_path, 10)
    assert last_checkpoint(tmp_path / "nothing") is None


def test_history_lines_begin_with_the_step():
    assert history_line({"loss": 0.123456789012, "step": 3, "epoch": 1.0}) == (
        '{"step": 3, "epoch": 1.0, "loss": 0.12345679}\n'
    )


def test_what_was_dropped_is_counted_and_listed(tiny_policy_folder, tmp_path):
    pairs = make_pairs(3)
    too_long = dataclasses.replace(pairs[0], pair_id=f"{100:016x}", chosen="y" * 500)
    equal = [dataclasses.replace(pair, pair_id=f"{101 + i:016x}", chosen=pair.rejected) for i, pair in enumerate(pairs)]
    rows = [*pairs, too_long, *equal[:2]]
    _, found = encoded(tiny_policy_folder, tmp_path, small_params(), rows)
    (tmp_path / "encoded/6.dropped.jsonl").rename(tmp_path / "encoded/train.dropped.jsonl")
    write_reports(tmp_path, found, PARAMS, steps=1, ranks=1)
    summary = json.loads((tmp_path / "summary.json").read_text())

    assert (summary["pairs"], summary["pairs_dropped"], summary["active_view_share"]) == (3, 3, 1.0)
    assert summary["dropped"] == {"equal_responses": 2, "response_too_long": 1}
    assert counted(found.dropped) == "2 equal_responses, 1 response_too_long"
    assert (tmp_path / "dropped.jsonl").read_text() == (
        '{"pair_id": "0000000000000064", "reason": "response_too_long"}\n'
        '{"pair_id": "0000000000000065", "reason": "equal_responses"}\n'
        '{"pair_id": "0000000000000066", "reason": "equal_responses"}\n'
    )


def test_nothing_left_names_every_reason_with_its_remedy():
    found = Encoding(dropped={"no_active_view": 1, "too_long": 2}, shortest_too_long=31)

    assert nothing_left(found, max_length=8) == (
        "no pair is left to train on (2 too_long, 1 no_active_view); train.max_length is 8"
        " (the shortest pair needs 31)."
        " `no_active_view`: turn views.generic on or use views.pair_order: overall;"
        " `too_long`: response, template, system prompt and instruction together do not fit; raise train.max_length"
    )


def test_the_step_is_that_of_the_weighted_sum_over_the_pairs_of_the_global_batch(tiny_policy_folder, tmp_path):
    """With beta near 0 and no margin every pair's loss is log 2: weights 1, 0.5, 0.25 and 0.25 make log 2 / 2."""
    params = small_params(learning_rate=1e-12)
    params = params.model_copy(
        update={"objective": params.objective.model_copy(update={"beta": 1e-9, "target_margin": 0.0})}
    )
    weights = (1.0, 0.5, 0.25, 0.25)
    pairs = [dataclasses.replace(pair, weight=weight) for pair, weight in zip(make_pairs(4), weights, strict=True)]
    trainer = trainer_of(tiny_policy_folder, tmp_path, params, pairs)
    trainer.train()

    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.5 * 0.693147, abs=1e-5)
    assert encoded(tiny_policy_folder, tmp_path / "again", params, pairs)[1].weight == 2.0


class PlacesOfLogits(torch.nn.Module):
    """Uniform logits over 10 tokens at the positions that were asked for; remembers how many."""

    def forward(self, input_ids, logits_to_keep, **_):
        self.kept = logits_to_keep
        return SimpleNamespace(logits=torch.zeros(len(input_ids), logits_to_keep, 10))


def test_the_head_runs_on_response_positions_only():
    """A prompt of 50 tokens and responses of 3: the published code makes logits of every padded position."""
    model = PlacesOfLogits()
    logps = token_logps(model, pad_sequences([[1] * 50, [1] * 9], [[2, 3, 4], [5]]))

    assert model.kept == 4
    assert logps.tolist() == [pytest.approx([-2.302585] * 3), pytest.approx([0, 0, -2.302585])]


def test_what_is_logged_is_the_mean_over_the_pairs_not_the_last_one():
    """Two views of two pairs and a filler: margins 1 and 3 -> 2; -1 alone, its other pair inactive -> -1."""
    active = torch.tensor([[True, True, True], [True, False, True]])
    chosen = torch.tensor([[2.0, 3.0, 9.0], [0.0, 5.0, 9.0]])
    rejected = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    weights = torch.tensor([[0.6, 1.0, 0.5], [0.4, 0.0, 0.5]])
    pairwise = PairwiseLoss(torch.zeros(2, 3), chosen, rejected)
    result = ObjectiveResult(torch.tensor([1.0, 2.0, 100.0]), weights, pairwise, torch.zeros(2, 3, 2))
    sums = ViewSums(["a", "b"])
    sums.add(result, SimpleNamespace(active_VB=active, counts_B=torch.tensor([1.0, 1.0, 0.0])))
    means = sums.means(lambda values: values)

    assert means["loss"] == pytest.approx(1.5)
    assert (means["rewards/margins/a"], means["rewards/margins/b"]) == pytest.approx((2.0, -1.0))
    assert (means["rewards/accuracies/a"], means["rewards/accuracies/b"]) == pytest.approx((1.0, 0.0))
    assert (means["weights/a"], means["weights/b"]) == pytest.approx((0.8, 0.4))


def test_validation_draws_nothing(tiny_policy_folder, tmp_path):
    """Other draws train other weights, but say the same of the same weights."""
    losses = []
    for seed in (0, 1):
        params = small_params()
        params = params.model_copy(update={"runtime": params.runtime.model_copy(update={"seed": seed})})
        trainer = trainer_of(tiny_policy_folder, tmp_path / str(seed), params, make_pairs(6), make_pairs(6))
        losses.append(trainer.evaluate()["validation/loss"])

    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_prompts_that_were_shortened_are_counted(tiny_policy_folder, tmp_path):
    params = small_params(max_length=120)
    long = [dataclasses.replace(pair, prompt=[{"role": "user", "content": "?" * 300}]) for pair in make_pairs(2)]

    assert encoded(tiny_policy_folder, tmp_path, params, [*long, *make_pairs(3)])[1].truncated == 2


def test_out_of_memory_names_the_largest_micro_batch(tiny_policy_folder, tmp_path):
    params = small_params(micro_batch_tokens=100_000)
    trainer = trainer_of(tiny_policy_folder, tmp_path, params, make_pairs(8))
    trainer.forward = SimpleNamespace(token_logps=lambda *_: torch.empty(10**15, dtype=torch.uint8))
    with pytest.raises(RuntimeError) as caught:
        trainer.train()
    message, status = described(caught.value, params.train, trainer.clock.largest)

    assert status == 1
    assert message.startswith("out of memory: 1,000.0 TB more were asked for, ")
    assert " tokens of 4 pairs, its longest sequence " in message
