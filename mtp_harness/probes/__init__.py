"""Teacher-forced measurements: what each head knows of real text."""
