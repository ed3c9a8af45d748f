"""The stage `train` on a disk that is full to the last byte: not even the rank's own words find room."""

from tests.disk import disk_fixture, full  # noqa: F401 (a fixture)
from tests.unit.stages.training import copy_inputs, digests, finished, run, started


def test_it_is_said_in_one_message_and_the_same_command_goes_on_to_the_same_bytes(trained, disk):
    workspace = copy_inputs(trained, disk / "workspace")
    child = started(workspace)
    with full(disk):
        said = finished(child, status=1)

    assert said.splitlines()[-1].startswith("error: the disk is full")
    assert "Traceback" not in said
    assert not (workspace / "policy").exists()
    resumed = run(workspace)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(workspace) == digests(trained)
