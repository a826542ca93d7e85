"""How large a picture may be that is decoded at all."""

# A message or file of some kilobytes can say that it holds gigabytes of pixels. This is more than
# any camera of a robot has.
MOST_PIXELS = 100_000_000


def check_pixels(width: int, height: int, most_pixels: int = MOST_PIXELS) -> None:
    """Raise ValueError for a picture that is too large to be decoded."""
    if width * height > most_pixels:
        raise ValueError(f'{width}x{height} pixels are more than the {most_pixels} that are read; '
                         'make it smaller')
