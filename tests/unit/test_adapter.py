"""Adapters: which layers they reach, what they publish, and the base that they are pinned to."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from amopo_core.adapter import pinned_base, targets, with_adapter, write_pointer
from amopo_core.config import Adapter
from amopo_core.engine.forward import best_forward
from amopo_core.errors import UserError
from amopo_core.policy import Policy, load_policy, save_policy
from amopo_core.policy_folder import check_policy_folder

BASE, FOLDER = Path("models/base"), Path("models/policy")
IDS = torch.tensor([[5, 9, 30, 7]])
needs_bitsandbytes = pytest.mark.skipif(not find_spec("bitsandbytes"), reason="bitsandbytes is not installed")


@pytest.fixture
def project(tiny_policy_folder, tmp_path, monkeypatch):
    shutil.copytree(tiny_policy_folder, tmp_path / BASE)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


def adapted(seed=0, bits=16, **settings):
    policy = load_policy(BASE, bits=bits)
    return Policy(with_adapter(policy.model, Adapter(rank=4, base_bits=bits, **settings), seed=seed), policy.tokenizer)


def publish(policy):
    """Adapters as a training leaves them: the second factor is no longer zero."""
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    policy.model.save_pretrained(FOLDER)
    policy.tokenizer.save_pretrained(FOLDER)
    write_pointer(FOLDER, BASE)
    return policy


def change_base():
    weights = load_file(BASE / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, BASE / "model.safetensors", metadata={"format": "pt"})


def trainable(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def test_only_adapters_train_and_every_one_gets_a_gradient(project):
    model = adapted().model
    model(IDS).logits.sum().backward()

    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(names) == 2 * 7 * 2
    assert all("lora_" in name for name in names)
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == names


def test_recomputed_blocks_give_the_same_gradients(project):
    plain, recomputed = publish(adapted()).model, publish(adapted()).model
    recomputed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    for model in (plain, recomputed):
        model.train()
        model(IDS, use_cache=False).logits.square().sum().backward()

    for ours, theirs in zip(plain.parameters(), recomputed.parameters(), strict=True):
        if ours.requires_grad:
            assert ours.grad.abs().sum() > 0
            assert_close(theirs.grad, ours.grad)


def test_the_seed_decides_the_first_values(project):
    first, again, other = (trainable(adapted(seed).model) for seed in (1, 1, 2))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_surrounding_random_numbers_stay_as_they_are(project):
    policy = load_policy(BASE)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with_adapter(policy.model, Adapter(), seed=1)

    assert torch.equal(torch.rand(2), expected)


def test_layers_are_chosen_by_name(project):
    chosen = targets(load_policy(BASE).model, ["q_proj", "1.mlp.up_proj"])

    assert chosen == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]


@pytest.mark.parametrize("name", ["query", "lm_head", "proj", "all-linear"])
def test_an_unknown_layer_is_refused_with_those_there_are(project, name):
    with pytest.raises(UserError, match=f"'{name}' is no linear layer.*some of q_proj, k_proj, v_proj, o_proj, gate_"):
        targets(load_policy(BASE).model, ["q_proj", name])


def test_the_engine_runs_adapters_as_fast_as_the_base(project):
    expected = best_forward(load_policy(BASE).model, 100).way

    assert best_forward(adapted().model, 100).way == expected


def test_a_published_adapter_loads_merged_into_its_base(project):
    trained = publish(adapted())
    loaded = load_policy(FOLDER)

    assert {path.name for path in FOLDER.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    assert not (FOLDER / "README.md").exists()
    assert type(loaded.model) is type(load_policy(BASE).model)
    assert_close(loaded.model(IDS).logits, trained.model.eval()(IDS).logits, rtol=0, atol=1e-4)
    assert not torch.allclose(loaded.model(IDS).logits, load_policy(BASE).model(IDS).logits, atol=1e-2)


def test_the_published_files_are_the_same_every_time_and_name_no_machine(project, tmp_path):
    publish(adapted())
    first = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    shutil.rmtree(FOLDER)
    publish(adapted())

    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == first
    assert json.loads(first["adapter_config.json"])["base_model_name_or_path"] == "models/base"
    assert not any(str(tmp_path).encode() in content for content in first.values())


def test_a_merged_policy_is_a_plain_folder(project):
    publish(adapted())
    merged = load_policy(FOLDER)
    save_policy(merged, FOLDER)
    shutil.rmtree(BASE)

    assert not list(FOLDER.glob("adapter*")) and not (FOLDER / "base.json").exists()
    assert_close(load_policy(FOLDER).model(IDS).logits, merged.model(IDS).logits, rtol=0, atol=0)


def test_another_base_is_refused_with_both_digests(project):
    publish(adapted())
    pinned = json.loads((FOLDER / "base.json").read_text())["sha256"]["model.safetensors"]
    change_base()

    with pytest.raises(UserError, match=f"models/base/model.safetensors has SHA-256 [0-9a-f]{{64}}, .* on {pinned};"):
        load_policy(FOLDER)


def test_a_changed_configuration_of_the_base_is_refused(project):
    publish(adapted())
    config = json.loads((BASE / "config.json").read_text())
    (BASE / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))

    with pytest.raises(UserError, match=r"another base: models/base/config\.json"):
        check_policy_folder(FOLDER)


def test_a_base_that_is_not_there_is_named(project):
    publish(adapted())
    shutil.rmtree(BASE)

    with pytest.raises(UserError, match="adapters of models/base, and there is no policy; `dvc checkout`"):
        load_policy(FOLDER)


@pytest.mark.parametrize("path", ["/models/base", "../base", "models/../../base"])
def test_a_pointer_out_of_the_project_is_refused(project, path):
    publish(adapted())
    pointer = json.loads((FOLDER / "base.json").read_text())
    (FOLDER / "base.json").write_text(json.dumps(pointer | {"path": path}))

    with pytest.raises(UserError, match="expected one within the project"):
        pinned_base(FOLDER)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"path": 1, "sha256": {}}', '{"path": "a", "sha256": "b"}'])
def test_a_broken_pointer_is_refused(project, content):
    publish(adapted())
    (FOLDER / "base.json").write_text(content)

    with pytest.raises(UserError, match="names no base"):
        load_policy(FOLDER)


def test_a_base_outside_of_the_project_is_refused(project, tiny_policy_folder):
    with pytest.raises(UserError, match="lies outside of it"):
        write_pointer(FOLDER, tiny_policy_folder)


def test_without_adapters_peft_is_not_imported(project):
    code = "import sys; from pathlib import Path; from amopo_core.policy import load_policy;"
    code += "load_policy(Path('models/base')); print({'peft', 'bitsandbytes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


@needs_bitsandbytes
def test_a_base_in_4_bits_trains_adapters_that_merge_at_full_precision(project):
    model = publish(adapted(bits=4)).model
    model(IDS).logits.sum().backward()

    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.base_layer.weight.dtype == torch.uint8
    assert layer.lora_A.default.weight.grad.abs().sum() > 0
    before = load_file(BASE / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    added = layer.get_delta_weight("default") if hasattr(layer, "get_delta_weight") else None
    assert added is not None
    merged = load_policy(FOLDER).model.model.layers[0].self_attn.q_proj.weight
    assert_close(merged, before + added, rtol=0, atol=1e-5)


@needs_bitsandbytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_engine_runs_a_base_in_4_bits(project, dtype):
    policy = load_policy(BASE, dtype, bits=4)
    expected = best_forward(load_policy(BASE).model, 100).way

    assert best_forward(with_adapter(policy.model, Adapter(base_bits=4), seed=0), 100).way == expected


@needs_bitsandbytes
def test_layers_in_4_bits_answer_in_the_numbers_they_are_asked_in(project):
    layer = load_policy(BASE, bits=4).model.model.layers[0].mlp.up_proj

    for dtype in (torch.float32, torch.bfloat16):
        assert layer(torch.ones(1, 2, 32, dtype=dtype)).dtype == dtype


def test_without_bitsandbytes_the_command_is_named(project, monkeypatch):
    monkeypatch.setattr("amopo_core.adapter.find_spec", lambda name: None)

    with pytest.raises(UserError, match=r"pip install -c constraints.txt -e '.\[qlora\]'"):
        load_policy(BASE, bits=4)
