"""One self-contained page of everything in a folder of results."""
