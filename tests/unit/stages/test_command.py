"""What a stage says where the disk does not do what it is asked."""

import pytest

from amopo_core.stages.command import EXIT_USER_ERROR, disk_failure


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    file = tmp_path / "feedback"
    file.touch()
    with pytest.raises(NotADirectoryError) as caught:
        (file / "ratings" / "batch").mkdir()

    said, status = disk_failure(caught.value)
    assert said.endswith(f"; {file} is a file where a folder must be: move it away")
    assert status == EXIT_USER_ERROR


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        tmp_path.write_text("")

    said, _ = disk_failure(caught.value)
    assert said.endswith(f"; {tmp_path} is a folder where a file must be: move it away")


def test_another_failure_is_no_failure_of_the_disk():
    assert disk_failure(ValueError("no")) is None
