"""How a batch goes through the policy: shared prompts, packed rows, log-probabilities."""
