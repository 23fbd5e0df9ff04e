"""Nights: when they are due, who may run, what became of them, and whom a failure is told."""
