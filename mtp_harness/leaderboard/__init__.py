"""Models and tasks in one table: intervals, paired differences, speed, the paper's claims."""
