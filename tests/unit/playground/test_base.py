import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from amopo_core.chat import ChatEncoder
from amopo_core.engine.logps import pad_sequences, token_logps
from amopo_core.evaluation.generation import generate
from amopo_core.judges.playground import JUDGE
from amopo_core.params_file import read_params
from amopo_core.playground.base import DIMENSIONS, make_base
from amopo_core.policy import Policy, load_policy

TINY = {
    "prompts": 5,
    "hidden_size": 16,
    "heads": 2,
    "vocabulary": 300,
    "context": 256,
    "pretraining_conversations": 200,
    "pretraining_steps": 20,
    "pretraining_batch": 8,
}
PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
PLAYGROUND = PARAMS.playground.model_copy(update=TINY)
RUNTIME = PARAMS.runtime.model_copy(update={"threads": 1})
MAKE_AGAIN = """
import sys
from pathlib import Path
from amopo_core.config import Playground, Runtime
from amopo_core.playground.base import make_base

runtime, playground, out = sys.argv[1:]
make_base(Playground.model_validate_json(playground), Runtime.model_validate_json(runtime), Path(out))
"""


def make(out: Path, **changed: int) -> Path:
    make_base(PLAYGROUND.model_copy(update=changed), RUNTIME, out)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("base") / "first")


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load_policy(folder)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_another_process_makes_the_same_bytes(folder: Path, tmp_path: Path):
    again = tmp_path / "again"
    given = [RUNTIME.model_dump_json(), PLAYGROUND.model_dump_json(), str(again)]
    subprocess.run([sys.executable, "-c", MAKE_AGAIN, *given], check=True)

    assert digests(again) == digests(folder)


def test_another_seed_makes_other_weights(folder: Path, tmp_path: Path):
    other = make(tmp_path / "other", seed=PLAYGROUND.seed + 1)

    assert digests(other)["model.safetensors"] != digests(folder)["model.safetensors"]


def test_the_policy_is_small_and_knows_its_context(policy: Policy):
    assert policy.model.num_parameters() < 2_000_000
    assert policy.model.config.max_position_embeddings == policy.tokenizer.model_max_length == 256
    assert policy.model.config.eos_token_id == policy.tokenizer.eos_token_id


def test_padding_changes_no_log_probability(policy: Policy):
    prompts, responses = [[5, 6, 7, 8, 9, 10], [11, 12]], [[20, 21, 1], [22, 23, 24, 25, 1]]
    with torch.no_grad():
        together = token_logps(policy.model, pad_sequences(prompts, responses))
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            alone = token_logps(policy.model, pad_sequences([prompt], [response]))
            torch.testing.assert_close(together[row, -len(response) :], alone[0], atol=1e-5, rtol=0)


def test_greedy_generation_is_what_the_whole_text_predicts(policy: Policy):
    """A token at a time with the cache gives the same as reading the whole text anew for each."""
    [prompt] = JUDGE.prompts(PLAYGROUND, 1)
    encoded = ChatEncoder(policy.tokenizer).prompt(prompt, None, 200)
    assert encoded is not None
    [generation] = generate(policy, [encoded.ids], ["key"], max_new_tokens=12, temperature=0.0, batch_size=1, seed=0)

    ids = list(encoded.ids)
    for token in generation.token_ids:
        assert policy.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax() == token
        ids.append(token)


def test_the_shipped_views_speak_in_words_that_the_base_policy_has_read():
    assert PARAMS.dimensions == DIMENSIONS
