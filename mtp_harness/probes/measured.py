"""What was measured of one document: the answer to a probe's request."""

from typing import Any


class Measured(dict[str, Any]):
    """What was measured of one document: plain numbers and lists by name."""

    def __str__(self) -> str:
        """Return little: the samples hold the answer twice as text, beside the metrics."""
        return f"measured: {', '.join(self)}"
