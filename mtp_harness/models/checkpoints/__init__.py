"""Checkpoint layouts, one record each (`layout.Layout`).

What cannot be used is refused in one sentence: a FileNotFoundError where something is missing, a
ValueError where it is wrong.
"""
