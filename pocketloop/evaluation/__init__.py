"""Suites, paired statistics, gates, and the report that shows them."""
