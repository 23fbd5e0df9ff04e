"""Turning a dataset release into an adapter."""
