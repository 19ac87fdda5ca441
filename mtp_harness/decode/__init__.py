"""Self-speculative decoding: engine, cache, acceptance, stopping, records."""
