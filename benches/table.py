"""Figures as text, and differences with their noise."""

import statistics

VERDICTS = {True: "met", False: "NOT MET", None: ""}


def difference(ours, peer):
    """For values measured in turn, returns the median of ours minus the peer's, and its standard error.

    The spread is a median too, so a pause of the machine counts only once.
    """
    return middle([one - other for one, other in zip(ours, peer)])


def middle(values):
    """Returns the median and its standard error."""
    median = statistics.median(values)
    spread = statistics.median(abs(value - median) for value in values)
    return median, 1.2533 * 1.4826 * spread / len(values) ** 0.5


def ms(seconds):
    return f"{seconds * 1e3:.2f} ms"


def print_table(heading, rows):
    """Prints the rows. The last cell of each is True or False for a promise, and None without one."""
    rows = [heading] + [(*row[:-1], VERDICTS[row[-1]]) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
