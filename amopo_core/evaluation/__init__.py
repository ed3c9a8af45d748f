"""Evaluation: what a policy does on prompts that nothing was trained on, and how two policies compare."""
