"""Checkpoint layouts, one record each (`layout.Layout`).

A checkpoint that cannot be used is refused in one sentence: with a FileNotFoundError if something
is missing, with a ValueError if something is wrong.
"""
