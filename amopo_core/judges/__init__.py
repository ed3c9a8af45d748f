"""Judges: files that define JUDGE, one of which `evaluation.judge` names."""
