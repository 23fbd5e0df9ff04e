"""Deciding which answers are right enough to learn from."""
