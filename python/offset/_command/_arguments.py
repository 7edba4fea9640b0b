"""What several commands take as an argument: each function is the `type` of one, and says what is wrong with a word."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """Read a whole number that is at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1: {text}")
    return value


def seconds(text: str, most: float = math.inf) -> float:
    """Read a time of more than 0 seconds, up to `most`, that ends."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most or math.isinf(value):
        end = "" if math.isinf(most) else f" and at most {most:g}"
        raise argparse.ArgumentTypeError(f"must be a number of seconds, more than 0{end}: {text}")
    return value
