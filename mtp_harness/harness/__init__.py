"""What stands between lm_eval and us."""
