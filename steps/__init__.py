"""Thin ZenML steps: read inputs, call one domain function, log metadata, return typed artifacts."""
