"""Thin ZenML steps: read inputs, call one domain function, log metadata, return typed artifacts."""

from steps import materializers as _materializers  # noqa: F401 - tells ZenML how a Folder is stored
