"""Layouts that a checkpoint may have."""
