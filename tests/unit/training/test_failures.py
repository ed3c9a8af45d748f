"""What a user reads of a run that failed."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.training.failures import described, is_out_of_memory, lost_another_rank, out_of_memory
from amopo_core.training.memory import ended_without_a_word, oom_kills, what_to_lower
from amopo_core.training.non_finite import NotFinite
from amopo_core.training.progress import BatchSize
from amopo_core.training.stopping import Stopped

TRAIN = read_params(Path(__file__).parents[2] / "params.yaml").train


def too_large():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(4 * 10**15, dtype=torch.uint8)
    return caught.value


def test_out_of_memory_says_what_was_asked_what_is_free_how_large_the_batch_was_and_what_to_lower():
    message, status = described(too_large(), TRAIN, BatchSize(tokens=4000, pairs=7, longest=128))

    assert status == 1
    assert message.startswith("out of memory: 4,000.0 TB more were asked for, ")
    assert "B are free; the largest micro-batch so far has 4,000 tokens of 7 pairs, its longest sequence 128" in message
    assert message.endswith(
        "To mend it, one or more of: lower train.micro_batch_tokens (now 4096); set train.gradient_checkpointing: true;"
        " lower train.max_length (now 128); set train.precision: bfloat16 (now float32);"
        " train low-rank adapters (train.adapter) in place of all weights"
    )


def test_what_is_in_use_already_is_not_advised():
    train = TRAIN.model_copy(update={"gradient_checkpointing": True, "precision": "bfloat16", "adapter": object()})

    assert what_to_lower(train, alone=True) == (
        "A pair alone is the smallest micro-batch. To mend it, one or more of: lower train.max_length (now 128)"
    )


def test_before_the_first_step_there_is_no_micro_batch():
    assert "no step had begun" in out_of_memory(MemoryError(), TRAIN, None)


def test_a_gpu_says_how_much_it_was_asked_for():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of")

    assert "21.5 GB more were asked for" in out_of_memory(error, TRAIN, None)


MEMORY_LIMITED = """
import resource, torch
from pathlib import Path
from amopo_core.params_file import read_params
from amopo_core.training.failures import described
train = read_params(Path({params!r})).train
held = 1024 * int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")))
resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, held + 2**28))
try:
    torch.ones(2**20, 2**8).exp() @ torch.ones(2**8, 2**10)
except Exception as error:
    print(*described(error, train, None))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_reaches_its_limit_says_so():
    script = MEMORY_LIMITED.format(params=str(Path(__file__).parents[2] / "params.yaml"))
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert said.stdout.startswith("out of memory: 1.1 GB more were asked for, "), said.stderr
    assert said.stdout.endswith(" 1\n")


def test_a_cause_counts():
    try:
        try:
            raise too_large()
        except RuntimeError as error:
            raise UserError("does not load") from error
    except UserError as error:
        assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), UserError("no")])
def test_other_failures_are_not_out_of_memory(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (UserError("no pair is left"), "no pair is left", 2),
        (NotFinite("step 3"), "step 3", 1),
        (Stopped(3, 10), "stopped at step 3 of 10, which is saved; the same command goes on from there", 143),
        (OSError(28, "No space left on device"), "the disk is full", 1),
    ],
)
def test_what_a_user_can_mend_is_one_message(capsys, error, message, status):
    said, ended = described(error, TRAIN, None)

    assert (said.startswith(message), ended) == (True, status)
    assert capsys.readouterr().err == ""


def test_what_a_user_cannot_mend_keeps_its_traceback(capsys):
    try:
        {}["missing"]
    except KeyError as error:
        said = described(error, TRAIN, None)

    assert said == ("the training failed: KeyError: 'missing'; where is said above", 1)
    assert '{}["missing"]' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("shapes do not fit"), False),
    ],
)
def test_a_lost_rank_is_told_from_a_failure(error, lost):
    assert lost_another_rank(error) is lost


def test_a_rank_that_left_no_message():
    assert ended_without_a_word(1, TRAIN, killed=False) == (
        "a rank ended without a word (exit status 1); its last lines are above"
    )
    killed = ended_without_a_word(1, TRAIN, killed=True)
    assert killed.startswith("the kernel ended a rank because the machine's memory was full. To mend it, one or more")


def test_the_kernel_counts_what_it_ended(tmp_path, monkeypatch):
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 3\n")
    (tmp_path / "memory.events").write_text("oom 2\noom_kill 2\noom_group_kill 0\n")
    monkeypatch.setattr("amopo_core.training.memory.VMSTAT", tmp_path / "vmstat")
    monkeypatch.setattr("amopo_core.training.memory._control_group", lambda: tmp_path)
    both = oom_kills()
    (tmp_path / "memory.events").unlink()

    assert (both, oom_kills()) == (5, 3)
