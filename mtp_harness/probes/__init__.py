"""Teacher-forced measurements of each head on real text."""
