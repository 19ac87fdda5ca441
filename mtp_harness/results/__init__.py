"""The results format: files, samples, tables, labels; imports neither torch nor lm_eval."""
