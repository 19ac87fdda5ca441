"""Loaders of each task's documents."""
