"""Scores from answers: plain functions that the task YAMLs name."""
