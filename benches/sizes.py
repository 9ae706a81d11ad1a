"""The sizes of the images, beside Debian's."""

import subprocess

IMAGES = (
    ("prosody-entrypoint:minimal", 18_000_000),
    ("prosody-entrypoint:latest", 51_000_000),
    ("prosody-entrypoint:bookworm", None),
    ("debian:trixie-slim", None),
)

HEADING = ("image", "compressed", "uncompressed", "promise", "")


def measure(engine, _directory):
    """Returns the rows of the table."""
    return [row(engine, image, promise) for image, promise in IMAGES]


def row(engine, image, promise):
    command = f"docker save {image} | gzip -9 | wc -c"
    compressed = int(subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, stdout=subprocess.PIPE).stdout)
    uncompressed = engine.call("GET", f"/images/{image}/json")["Size"]
    return (
        image,
        megabytes(compressed),
        megabytes(uncompressed),
        f"≤ {megabytes(promise)}" if promise else "",
        compressed <= promise if promise else None,
    )


def megabytes(size):
    return f"{size / 1e6:.1f} MB"
