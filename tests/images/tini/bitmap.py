"""What tini's tests use of the package `bitmap`, which is not in Debian."""

# The C library's signals, 32 and 33, have no names, and the tests print names. Its posix_spawn ignores both for Python's
# children.
NAMED = 31


class BitMap:
    def __init__(self, number):
        self.number = number

    @classmethod
    def fromstring(cls, digits):
        return cls(int(digits, 2))

    def nonzero(self):
        return [bit for bit in range(NAMED) if self.number >> bit & 1]
