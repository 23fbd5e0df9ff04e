"""Checks that a candidate neither leaks nor obeys what it should decline."""
