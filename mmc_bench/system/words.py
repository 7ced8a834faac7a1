"""Words of messages."""


def counted(count: int, one: str, more: str | None = None) -> str:
    """Return a number of things in words; their plural takes an s unless it is given.

    >>> counted(1, "cell"), counted(1630, "trial"), counted(0, "entry", "entries")
    ('1 cell', '1,630 trials', '0 entries')
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"
