"""Runs that are killed at random moments, and what they come to: see bench/soak.py."""
