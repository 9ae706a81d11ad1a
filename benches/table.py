"""Figures as text, and what noise leaves of a difference."""

import statistics

VERDICTS = {True: "met", False: "NOT MET", None: ""}


def difference(ours, peer):
    """Of values that were measured in turn: the median of ours minus the peer's, and its standard error.

    The spread is taken from the median too: a pause of the machine counts once.
    """
    return middle([one - other for one, other in zip(ours, peer)])


def middle(values):
    """The median, and its standard error."""
    median = statistics.median(values)
    spread = statistics.median(abs(value - median) for value in values)
    return median, 1.2533 * 1.4826 * spread / len(values) ** 0.5


def ms(seconds):
    return f"{seconds * 1e3:.2f} ms"


def print_table(heading, rows):
    """The last cell of each row is whether the promise is met, None where there is none."""
    rows = [heading] + [(*row[:-1], VERDICTS[row[-1]]) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
