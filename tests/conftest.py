"""What several test modules share: a policy small enough to run anywhere."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from amopo_core.collector import look_less_often

look_less_often()  # a worker imports everything that any test does

# The tests' tensors are tiny: a second thread gains nothing and spins, which costs much time on a machine that is busy.
# Set before torch is imported, and for the processes that tests start; what asks for threads by number still gets them.
os.environ["OMP_NUM_THREADS"] = "1"

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def tiny_policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama (2 layers, hidden size 32, 256 tokens of context) with a byte-level tokenizer, no chat template.

    Read-only by agreement: a test that changes the policy copies the folder first.
    """
    folder = tmp_path_factory.mktemp("tiny-policy")
    tokenizer = _byte_tokenizer()
    tokenizer.save_pretrained(folder)
    _random_llama(tokenizer).save_pretrained(folder)
    return folder


def _byte_tokenizer():
    """A byte-level BPE without merges: one token a byte, plus the end and the padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>", pad_token="<|pad|>")


def _random_llama(tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config)
