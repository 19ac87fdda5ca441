"""Scores of answers: plain functions that the task YAMLs name."""
