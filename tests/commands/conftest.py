"""The checkpoint that the tests of models read, for commands that read one, too."""

from ..models.conftest import meta_folder, sentencepiece_model

__all__ = ["meta_folder", "sentencepiece_model"]
