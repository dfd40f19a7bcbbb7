"""The test picture, painted and read with numpy: the same cells and checksum as page/picture.js, which explains it."""

import numpy

COLS, ROWS = 4, 2
CELLS = COLS * ROWS
TICK_MS = 200
SOURCES = ["camera", "screen_share"]


def checksum(value: int) -> int:
    return (((value * 2654435761) & 0xFFFFFFFF) >> 22) ^ 0x2A5


def encode(number: int, source: int, counter: int) -> int:
    value = ((number & 15) << 10) | ((source & 3) << 8) | (counter & 255)
    return (value << 10) | checksum(value)


def decode(bits: int) -> dict | None:
    value = bits >> 10
    source = (value >> 8) & 3
    # A black picture would pass: all zero, checksum included. Senders count from one.
    if bits == 0 or bits & 1023 != checksum(value) or source >= len(SOURCES):
        return None
    return {"number": value >> 10, "source": SOURCES[source], "counter": value & 255}


def counter_at(now_ms: int) -> int:
    return (now_ms // TICK_MS) & 255


def age_of(counter: int, now_ms: int) -> int:
    return ((counter_at(now_ms) - counter) & 255) * TICK_MS


def paint(width: int, height: int, bits: int, column: int) -> numpy.ndarray:
    """An RGBA picture with a thin moving bar, so that each frame differs."""
    cells = [(bits >> ((CELLS - 1 - cell) * 3)) & 7 for cell in range(CELLS)]
    grid = numpy.zeros((ROWS, COLS, 4), dtype=numpy.uint8)
    for cell, colour in enumerate(cells):
        grid[cell // COLS, cell % COLS] = [255 * bool(colour & 4), 255 * bool(colour & 2), 255 * bool(colour & 1), 255]
    rows = numpy.arange(height) * ROWS // height
    cols = numpy.arange(width) * COLS // width
    image = grid[rows[:, None], cols[None, :]]
    image[: max(2, height // 40), column : column + 5] = [128, 128, 128, 255]
    return image


def read(image: numpy.ndarray) -> dict | None:
    """`image` is height x width x channels with red, green, blue first."""
    height, width = image.shape[:2]
    bits = 0
    for cell in range(CELLS):
        x = (2 * (cell % COLS) + 1) * width // (2 * COLS)
        y = (2 * (cell // COLS) + 1) * height // (2 * ROWS)
        mean = image[y - 2 : y + 2, x - 2 : x + 2, :3].reshape(-1, 3).mean(axis=0)
        for channel in mean:
            bits = (bits << 1) | int(channel > 127)
    return decode(bits)
