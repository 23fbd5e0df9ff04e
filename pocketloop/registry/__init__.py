"""Candidates in MLflow: versions, lineage, the adapter card."""
