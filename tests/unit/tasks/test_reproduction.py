from pathlib import Path

import pytest

from tasks.environment import tolerance
from tasks.reproduction import Compared, Reproduction

SAME, OTHER = Compared("train", "models/policy", "a", "a"), Compared("train", "models/policy", "a", "b")


def made(output: Compared, allowed: float | None = None, **metrics: tuple[float, float | None]) -> Reproduction:
    return Reproduction((output,), metrics, allowed, Path())


def test_a_cpu_run_is_held_to_its_bytes():
    assert made(SAME).same
    assert not made(OTHER).same


@pytest.mark.parametrize(
    ("now", "is_same"), [(3.0, True), (3.02, True), (2.98, True), (3.021, False), (None, False), (float("nan"), False)]
)
def test_a_gpu_run_is_held_to_its_metrics(now, is_same):
    found = made(OTHER, 0.0201, overall=(3.0, now), kl=(0.1, 0.1))

    assert found.same == is_same
    assert found.off == ([] if is_same else ["overall"])


def test_a_gpu_run_without_metrics_proves_nothing():
    assert not made(SAME, 0.02).same


def test_the_tolerance_is_the_recorded_one():
    assert tolerance({"device": "CPU AVX2", "metric_tolerance": "0"}) is None
    assert tolerance({}) is None
    assert tolerance({"device": "NVIDIA H200", "metric_tolerance": "0.005"}) == 0.005
    assert tolerance({"device": "NVIDIA H200"}) == 0.02
