"""
Tileable procedural textures for the synthetic world, with their mip levels.

Every texture is a square of ``TEXTURE_SIZE`` texels that repeats without a seam. All of them
have detail at several scales (filtered noise), because a network that matches images finds
nothing on a plain wall. They are stored as bytes in one flat array, coarser mip levels behind
the finer ones, so that the renderer can gather texels of different textures and levels at once.
"""

from dataclasses import dataclass

import numpy as np

TEXTURE_SIZE = 512  # texels along a side, a power of two
MIP_LEVELS = 8      # 512 ... 4 texels
PICTURE_COUNT = 6
BOOK_COUNT = 2

TEXTURE_NAMES = (
    'plaster', 'floor', 'wood', 'brick', 'fabric', 'ceiling', 'crate', 'wallpaper',
    *(f'books{index}' for index in range(BOOK_COUNT)),
    *(f'picture{index}' for index in range(PICTURE_COUNT)),
)


@dataclass(frozen=True)
class TextureAtlas:
    """All textures of a scene and where to find each mip level of each of them."""

    texels: np.ndarray          # [all texels of all textures and levels, 3] uint8
    level_offsets: np.ndarray   # [MIP_LEVELS] int32, first texel of a level within a texture
    texels_per_texture: int
    size: int                   # texels along a side of level 0

    def index(self, name: str) -> int:
        """Return the number of the texture called `name`."""
        return TEXTURE_NAMES.index(name)


def make_textures(rng: np.random.Generator) -> TextureAtlas:
    """Return the atlas of all textures in `TEXTURE_NAMES`, drawn from `rng`."""
    makers = {
        'plaster': _plaster, 'floor': _floor, 'wood': _wood, 'brick': _brick,
        'fabric': _fabric, 'ceiling': _ceiling, 'crate': _crate, 'wallpaper': _wallpaper,
    }
    blocks = []
    for name in TEXTURE_NAMES:
        family = name.rstrip('0123456789')
        make = makers.get(family, _books if family == 'books' else _picture)
        blocks.append(_mip_levels(np.clip(make(rng), 0.0, 1.0)))
    sizes = [(TEXTURE_SIZE >> level) ** 2 for level in range(MIP_LEVELS)]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return TextureAtlas(np.concatenate(blocks), offsets[:-1], int(offsets[-1]), TEXTURE_SIZE)


def _mip_levels(texture: np.ndarray) -> np.ndarray:
    """Return the texels of all mip levels of `texture` [S, S, 3], in a row, as uint8."""
    levels = []
    for _ in range(MIP_LEVELS):
        levels.append((texture * 255.0 + 0.5).astype(np.uint8).reshape(-1, 3))
        texture = (texture[::2, ::2] + texture[1::2, ::2] + texture[::2, 1::2]
                   + texture[1::2, 1::2]) * np.float32(0.25)
    return np.concatenate(levels)


def noise(rng: np.random.Generator, falloff: float = 1.0,
          stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """
    Return seamless noise [S, S] of mean 0 and deviation 1 whose spectrum is f^-falloff.

    `stretch` (rows, columns) above 1 makes the grain longer in that direction.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((TEXTURE_SIZE, TEXTURE_SIZE)))
    rows = np.fft.fftfreq(TEXTURE_SIZE)[:, None] * TEXTURE_SIZE * stretch[0]
    columns = np.fft.rfftfreq(TEXTURE_SIZE)[None, :] * TEXTURE_SIZE * stretch[1]
    frequency = np.hypot(rows, columns)
    spectrum *= np.where(frequency > 0.5, np.maximum(frequency, 1.0) ** -falloff, 0.0)
    field = np.fft.irfft2(spectrum, s=(TEXTURE_SIZE, TEXTURE_SIZE))
    return (field / field.std()).astype(np.float32)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Return row and column coordinates in [0, 1) of every texel, [S, 1] and [1, S]."""
    steps = (np.arange(TEXTURE_SIZE, dtype=np.float32) + 0.5) / TEXTURE_SIZE
    return steps[:, None], steps[None, :]


def _grey(shade: np.ndarray) -> np.ndarray:
    """Return `shade` [S, S] as three equal channels."""
    return np.repeat(shade[:, :, None], 3, axis=2)


def _lines(position: np.ndarray, count: int, width: float) -> np.ndarray:
    """Return 1 on `count` equally spaced lines of `width` (in tiles), else 0."""
    return (np.abs((position * count + 0.5) % 1.0 - 0.5) < width * count).astype(np.float32)


def _plaster(rng: np.random.Generator) -> np.ndarray:
    return _grey(0.80 + 0.07 * noise(rng, 1.1) + 0.03 * noise(rng, 0.3))


def _floor(rng: np.random.Generator) -> np.ndarray:
    """Return 2 x 2 slabs in two shades: laid at 2 m a tile they are a 1 m checker."""
    row, column = _grid()
    checker = np.floor(row * 2.0) + np.floor(column * 2.0)
    shade = np.where(checker % 2 == 0, 0.85, 0.52) + 0.06 * noise(rng, 1.0)
    shade += 0.04 * noise(rng, 0.4)
    grout = np.maximum(_lines(row, 4, 0.003), _lines(column, 4, 0.003))
    return _grey(shade * (1.0 - 0.5 * grout))


def _wood(rng: np.random.Generator) -> np.ndarray:
    row, _ = _grid()
    planks = 5
    shade = 0.68 + 0.10 * noise(rng, 1.0, stretch=(14.0, 1.0)).T
    shade += rng.uniform(-0.12, 0.12, planks)[(row * planks).astype(int)]
    shade = shade * (1.0 - 0.55 * _lines(row, planks, 0.004))
    return shade[:, :, None] * np.array([1.0, 0.88, 0.74], np.float32)


def _brick(rng: np.random.Generator) -> np.ndarray:
    """Return 12 courses of 6 bricks, every other course shifted by half a brick."""
    row, column = _grid()
    courses, bricks = 12, 6
    course = (row * courses).astype(int)
    shifted = (column + 0.5 / bricks * (course % 2)) % 1.0
    brick = (shifted * bricks).astype(int)
    shade = rng.uniform(0.55, 0.95, (courses, bricks)).astype(np.float32)[course, brick]
    shade += 0.06 * noise(rng, 0.7)
    mortar = np.maximum(_lines(row, courses, 0.006), _lines(shifted, bricks, 0.005))
    return _grey(np.where(mortar > 0, 0.92 + 0.03 * noise(rng, 0.5), shade))


def _fabric(rng: np.random.Generator) -> np.ndarray:
    row, column = _grid()
    weave = 0.05 * np.sin(2 * np.pi * 48 * row) * np.sin(2 * np.pi * 48 * column)
    stripes = np.interp(column, np.linspace(0, 1, 17), rng.uniform(-0.15, 0.15, 17))
    return _grey(0.72 + weave + 0.07 * noise(rng, 1.0) + stripes.astype(np.float32))


def _ceiling(rng: np.random.Generator) -> np.ndarray:
    row, column = _grid()
    joints = np.maximum(_lines(row, 3, 0.004), _lines(column, 3, 0.004))
    holes = 0.10 * (noise(rng, 0.2) > 1.6)
    return _grey((0.90 + 0.05 * noise(rng, 1.2) - holes) * (1.0 - 0.35 * joints))


def _crate(rng: np.random.Generator) -> np.ndarray:
    """Return one crate side: boards in a frame with a diagonal brace."""
    row, column = _grid()
    shade = 0.62 + 0.10 * noise(rng, 1.0, stretch=(10.0, 1.0)).T
    shade = shade * (1.0 - 0.5 * _lines(row, 6, 0.006))
    edge = np.minimum(np.minimum(row, 1 - row), np.minimum(column, 1 - column))
    brace = np.abs(row - column) < 0.07
    raised = (edge < 0.09) | brace
    shade = np.where(raised, 0.82 + 0.08 * noise(rng, 1.0, stretch=(1.0, 10.0)).T, shade)
    return shade[:, :, None] * np.array([1.0, 0.88, 0.72], np.float32)


def _wallpaper(rng: np.random.Generator) -> np.ndarray:
    """Return plaster strewn with discs of several sizes and shades."""
    row, column = _grid()
    shade = 0.78 + 0.06 * noise(rng, 1.1) + 0.03 * noise(rng, 0.3)
    for _ in range(40):
        # Distances wrap around, so that discs on the seam continue on the other side.
        down = np.abs((row - rng.uniform() + 0.5) % 1.0 - 0.5)
        along = np.abs((column - rng.uniform() + 0.5) % 1.0 - 0.5)
        distance = np.hypot(down, along)
        radius = rng.uniform(0.01, 0.06)
        ring = (distance < radius) & (distance > radius * rng.choice([0.0, 0.6]))
        shade = np.where(ring, shade + rng.choice([-0.28, -0.18, 0.15]), shade)
    return _grey(shade)


def _books(rng: np.random.Generator) -> np.ndarray:
    """Return four boards of books with coloured backs of different heights."""
    row, column = _grid()
    boards = 4
    image = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 0.16, np.float32)
    for board in range(boards):
        height_in_board = 1.0 - (row * boards - board)      # 0 at the board's foot, 1 on top
        inside = (height_in_board >= 0.0) & (height_in_board < 1.0)
        left = 0.02
        while left < 0.96:
            width = rng.uniform(0.02, 0.06)
            tall = rng.uniform(0.55, 0.86)
            back = inside & (column >= left) & (column < left + width * 0.94)
            back = back & (height_in_board > 0.07) & (height_in_board < tall)
            image[back] = rng.uniform(0.15, 0.95, 3)
            label = back & (np.abs(height_in_board - rng.uniform(0.3, 0.5)) < 0.04)
            image[label] = rng.uniform(0.7, 1.0)
            left += width
        image[np.broadcast_to(inside & (height_in_board < 0.07), back.shape)] = (0.5, 0.36, 0.22)
    side = np.broadcast_to(np.minimum(column, 1 - column) < 0.02, image.shape[:2])
    image[side] = (0.5, 0.36, 0.22)
    return image * (1.0 + 0.08 * noise(rng, 0.6))[:, :, None]


def _picture(rng: np.random.Generator) -> np.ndarray:
    """Return a framed abstract painting: a colour field with discs, bars and brushwork."""
    row, column = _grid()
    image = rng.uniform(0.2, 0.9, 3) + 0.18 * np.stack([noise(rng, 1.8) for _ in range(3)], -1)
    image = image.astype(np.float32)
    for _ in range(14):
        centre = rng.uniform(0.1, 0.9, 2)
        if rng.uniform() < 0.5:
            shape = np.hypot(row - centre[0], column - centre[1]) < rng.uniform(0.03, 0.18)
        else:
            turn = rng.uniform(0, np.pi)
            along = (row - centre[0]) * np.sin(turn) + (column - centre[1]) * np.cos(turn)
            across = (row - centre[0]) * np.cos(turn) - (column - centre[1]) * np.sin(turn)
            shape = (np.abs(along) < rng.uniform(0.05, 0.3)) & (
                np.abs(across) < rng.uniform(0.01, 0.08))
        image[shape] = rng.uniform(0.05, 1.0, 3)
    image += 0.04 * noise(rng, 0.5)[:, :, None]
    edge = np.minimum(np.minimum(row, 1 - row), np.minimum(column, 1 - column))
    image[edge < 0.05] = (0.20, 0.15, 0.11)
    return image
