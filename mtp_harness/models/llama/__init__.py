"""Meta's model: transformers' Llama layers with several heads, and their fused blocks."""
