"""One command group per user task."""
