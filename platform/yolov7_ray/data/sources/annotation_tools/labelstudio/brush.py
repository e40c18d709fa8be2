"""Brush strokes of Label Studio: an RGBA picture as runs of equal or of single bytes, packed bit by bit.

The bits: 32 for the number of bytes, 5 for the bits of a value less 1, 4 each for the bits of four lengths less 1; then
runs: a flag (1: one value for all, 0: a value for each byte), 2 bits for which of the lengths, the length less 1, values.
"""

from collections.abc import Iterator

CHANNELS, ALPHA = 4, 3


def box_of_strokes(rle: list[int], size_hw: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """The box around the pixels that are not transparent, None without any; ValueError if it is no such picture."""
    height, width = size_hw
    bits = "".join(f"{byte:08b}" for byte in bytes(rle))
    if int(bits[:32] or "0", 2) != height * width * CHANNELS:
        raise ValueError(f"brush strokes of {int(bits[:32] or '0', 2):,} bytes, not of {width} x {height} pixels")
    left, top, right, bottom = width, height, 0, 0
    for first, last in _opaque(bits):
        (row, column), (last_row, last_column) = divmod(first, width), divmod(last, width)
        top, bottom = min(top, row), max(bottom, last_row + 1)
        if row == last_row:
            left, right = min(left, column), max(right, last_column + 1)
        else:
            left, right = 0, width
    return (left, top, right, bottom) if right else None


def _opaque(bits: str) -> Iterator[tuple[int, int]]:
    """First and last pixel of every run of pixels that are not transparent."""
    num_bytes, value_bits = int(bits[:32], 2), int(bits[32:37], 2) + 1
    length_bits = [int(bits[start:start + 4], 2) + 1 for start in range(37, 53, 4)]
    position, done = 53, 0
    while done < num_bytes:
        is_run, of_length = bits[position] == "1", length_bits[int(bits[position + 1:position + 3], 2)]
        position += 3
        end = done + int(bits[position:position + of_length], 2) + 1
        position += of_length
        num_values = 1 if is_run else end - done
        if position + num_values * value_bits > len(bits):
            raise ValueError("brush strokes that end too early")
        for number in range(num_values):
            is_set = "1" in bits[position:position + value_bits]
            position += value_bits
            start, stop = (done, end) if is_run else (done + number, done + number + 1)
            first, last = (start - ALPHA + CHANNELS - 1) // CHANNELS, (stop - 1 - ALPHA) // CHANNELS
            if is_set and first <= last:
                yield first, last
        done = end
