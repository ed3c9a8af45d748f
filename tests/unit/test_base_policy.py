import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amopo_core.base_policy import make_base_policy
from amopo_core.config import FolderBase
from amopo_core.errors import UserError
from amopo_core.params_file import override, read_params
from amopo_core.policy import load_policy

TESTS = Path(__file__).parents[1]


def with_folder(path):
    return read_params(TESTS / "params.yaml").model_copy(update={"base": FolderBase(kind="folder", path=str(path))})


def test_a_folder_is_copied_with_the_template_that_is_used(tiny_policy_folder, tmp_path):
    report = make_base_policy(with_folder(tiny_policy_folder), tmp_path / "base")
    copied, original = load_policy(tmp_path / "base"), load_policy(tiny_policy_folder)

    assert report["chat_template"] == "fallback: the bare prompt and a line break"
    assert report["context"] == 256
    assert (tmp_path / "base" / "chat_template.jinja").exists()
    for name, tensor in original.model.state_dict().items():
        assert torch.equal(tensor, copied.model.state_dict()[name])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "found nothing"),
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights in safetensors"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickles are not loaded"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"torn"),
            "does not load as a causal language model",
        ),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "holds no tokenizer"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(tiny_policy_folder, tmp_path, spoil, said):
    folder = Path(shutil.copytree(tiny_policy_folder, tmp_path / "folder"))
    spoil(folder)

    with pytest.raises(UserError, match=said):
        make_base_policy(with_folder(folder), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_the_stage_refuses_with_exit_2_and_a_line(tmp_path):
    shutil.copy(TESTS / "params.yaml", tmp_path)
    override(tmp_path / "params.yaml", ["base={kind: folder, path: nowhere}"])
    command = [sys.executable, "-m", "amopo_core.stages.base", "--base", "base", "--report", "base.json"]
    stopped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert stopped.returncode == 2
    assert "nowhere: expected a folder with a transformers checkpoint, found nothing" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert not (tmp_path / "base").exists()


def test_a_hub_that_cannot_be_reached_is_named(tmp_path):
    """Offline mode answers at once what a machine without a network answers after its retries."""
    shutil.copy(TESTS / "params.yaml", tmp_path)
    override(tmp_path / "params.yaml", [f"base={{kind: hub, id: no/where, revision: '{'0' * 40}'}}"])
    command = [sys.executable, "-m", "amopo_core.stages.base", "--base", "base", "--report", "base.json"]
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    stopped = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert stopped.returncode == 2
    assert f"the hub cannot be reached, and no/where at {'0' * 40} is not in its local cache" in stopped.stderr
    assert "base: {kind: folder, path: …}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
