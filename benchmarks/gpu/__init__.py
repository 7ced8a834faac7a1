"""A check on a GPU: whether everything runs there, how fast, and why not faster."""
