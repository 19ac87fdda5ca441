"""Kernels for decoding steps on a GPU, and the layers of transformers that they run."""
