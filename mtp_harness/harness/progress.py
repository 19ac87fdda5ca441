"""The bar of a run of generation."""

import time

from tqdm import tqdm

from mtp_harness.decode.engine import Answer


class Progress:
    """One bar: documents done, tokens per second and tokens per forward so far."""

    def __init__(self, total: int, done: int, hidden: bool) -> None:
        """Show the bar.

        Args:
            total: of answers.
            done: of these, finished before.
            hidden: show nothing.
        """
        self.n_tokens = self.n_kept = self.n_steps = 0
        self.began = time.perf_counter()
        self.bar = tqdm(
            total=total, initial=done, disable=hidden, desc="Running generate_until requests"
        )

    def __enter__(self) -> "Progress":
        """Return the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar."""
        self.bar.close()

    def add(self, answer: Answer) -> None:
        """Count one more answer."""
        self.n_tokens += len(answer.tokens)
        self.n_kept += answer.record.n_kept
        self.n_steps += answer.record.n_steps
        speed = self.n_tokens / (time.perf_counter() - self.began)
        text = f"{speed:.0f} tokens/s"
        if self.n_steps:
            text += f", {self.n_kept / self.n_steps:.2f} tokens/forward"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update()
