"""Feedback in, preference pairs out."""
