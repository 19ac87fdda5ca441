"""Where each task's documents come from."""
