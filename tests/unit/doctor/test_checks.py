"""What each check says of what it finds."""

import shutil
from pathlib import Path

import pytest
import torch

from amopo_core.config import Adapter
from amopo_core.doctor import base, disk, versions
from amopo_core.doctor.devices import launch_fits, threads_fit
from amopo_core.doctor.examine import Site, examine
from amopo_core.doctor.finding import ok, wrong
from amopo_core.doctor.kernels import check as check_kernels
from amopo_core.doctor.precision import matmul_error
from amopo_core.params_file import read_params
from amopo_core.training.launch import Launch

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
PROJECT = {"requires-python": ">=3.11", "dependencies": ["torch>=2", "click>=8.1"]}


def with_train(**train):
    return PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update=train)})


def launch(kind="NO", on_cpu=False, per_machine=1):
    return Launch(Path("mine.yaml"), kind, on_cpu, machines=1, per_machine=per_machine)


def statuses(findings):
    return [finding.status for finding in findings]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, entered."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "gpus", "status"),
    [
        (launch(on_cpu=True), 0, "ok"),
        (launch(on_cpu=True), 1, "warn"),
        (launch(on_cpu=True, per_machine=2), 0, "wrong"),
        (launch(), 0, "warn"),
        (launch(), 1, "ok"),
        (launch("MULTI_GPU", per_machine=2), 0, "ok"),
        (launch("MULTI_GPU", per_machine=8), 8, "ok"),
        (launch("MULTI_GPU", per_machine=8), 4, "wrong"),
        (launch("FSDP", per_machine=8), 0, "wrong"),
        (launch("DEEPSPEED", per_machine=8), 0, "wrong"),
    ],
)
def test_a_launch_file_is_held_against_the_gpus(asked, gpus, status):
    assert statuses(launch_fits(asked, gpus)) == [status]


def test_threads_without_a_core_each_are_warned_of():
    assert statuses(threads_fit(2, 2, 4)) == []
    assert statuses(threads_fit(2, 2, 3)) == ["warn"]


def test_products_of_fewer_bits_are_less_exact():
    """Half a unit in the last place is 2**-24 of a float32 and 2**-9 of a bfloat16."""
    errors = [matmul_error(dtype, torch.device("cpu")) for dtype in (torch.float64, torch.float32, torch.bfloat16)]

    assert errors[0] < 1e-14 < errors[1] < 1e-5 < errors[2] < 2**-8


def test_versions_outside_their_range_are_named():
    required = ["click>=99", "no-such-package-here>=1", "torch>=2", "never>=1; python_version < '3'"]
    project = {
        "requires-python": ">=3.99",
        "dependencies": required,
        "optional-dependencies": {"x": ["absent", "click<1"]},
    }

    python, click, missing, extra = versions.outside(project)

    assert python.endswith("expected >=3.99")
    assert click.endswith("; expected >=99")
    assert missing == "no-such-package-here is not installed; expected >=1"
    assert extra.endswith("; expected <1")
    assert list(versions.outside(PROJECT)) == []


def test_versions_other_than_the_pinned_are_listed(monkeypatch):
    monkeypatch.setattr(versions, "_installed", {"torch": "2.13.0+cpu", "click": "8.5.1"}.get)

    assert versions.not_pinned("torch==2.13.0\n# a remark\nclick==8.0.0\nabsent==1\n") == ["click 8.5.1 (==8.0.0)"]


def test_checkpoints_are_held_against_the_free_space(folder, tiny_policy_folder, monkeypatch):
    """12 bytes a parameter in each of three checkpoints, and 4 in the policy: 40 in all."""
    shutil.copytree(tiny_policy_folder, folder / "models/base")
    needed = disk.parameters(disk.BASE) * 40
    found = []
    for free in (needed - 1, 2 * needed - 1, 2 * needed):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(0, 0, free))
        found += disk.check(Site(PARAMS, None))

    assert statuses(found) == ["wrong", "warn", "ok"]


def test_parameters_are_counted_without_loading_them(tiny_policy_folder):
    from amopo_core.policy import load_policy

    assert disk.parameters(tiny_policy_folder) == load_policy(tiny_policy_folder).model.num_parameters()


def test_a_package_that_is_asked_for_and_missing_is_wrong(monkeypatch):
    monkeypatch.setattr("amopo_core.doctor.kernels.find_spec", lambda _: None)
    site = Site(with_train(adapter=Adapter(base_bits=4)), launch("DEEPSPEED"))
    found = [finding for finding in check_kernels(site) if finding.status == "wrong"]

    assert [finding.said.split()[0] for finding in found] == ["deepspeed", "peft", "bitsandbytes"]


def test_the_starting_policy_is_loaded_and_probed(folder, tiny_policy_folder):
    shutil.copytree(tiny_policy_folder, folder / "models/base")
    loads, talks, fits, rows = base.check(Site(with_train(max_length=300), None))

    assert (loads.status, loads.said.partition(":")[0]) == ("ok", "models/base")
    assert (talks.status, "no chat template" in talks.said) == ("warn", True)
    assert (fits.status, "300" in fits.said, "256" in fits.said) == ("warn", True, True)
    assert (rows.status, "packed rows" in rows.said) == ("ok", True)


def test_one_broken_check_hides_no_other(folder, monkeypatch):
    """No parameters, no launch file, a policy that is none, and a disk that cannot be asked."""
    (folder / "models/base").mkdir(parents=True)
    monkeypatch.setattr("amopo_core.doctor.examine.TOPICS", ("disk", "base", "versions"))
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: 1 / 0)
    monkeypatch.delenv("AMOPO_LAUNCH", raising=False)
    found = list(examine())

    assert [(topic, finding.status) for topic, finding in found] == [
        ("parameters", "wrong"),
        ("launch", "wrong"),
        ("disk", "wrong"),
        ("base", "wrong"),
        ("versions", "warn"),
    ]
    assert "ZeroDivisionError" in found[2][1].said
    assert "it has no config.json" in found[3][1].said


def test_a_line_says_what_to_do():
    assert ok("fine").line("disk") == "ok     disk        fine"
    assert wrong("full", "free some").line("disk") == "wrong  disk        full; free some"
