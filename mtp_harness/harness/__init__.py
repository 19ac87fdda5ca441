"""The layer between lm_eval and this package."""
