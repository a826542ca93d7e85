"""
Textures of the wide world: photographs of surfaces, or procedural ones where there are none.

All of them are squares of `SIDE` texels that repeat, with their mip levels, in one flat array, so
that texels of different textures and levels can be gathered at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
import re

import numpy as np
from PIL import Image

from xsvggt_ros.world.textures import make_textures, TEXTURE_NAMES, TextureAtlas

SIDE = 128
LEVELS = 7                     # 128 ... 2 texels
_TRIM = 3                      # pixels: some photographs have white edges
_PROCEDURAL_SETS = 6
LEVEL_OFFSETS = np.cumsum([0] + [(SIDE >> level) ** 2 for level in range(LEVELS)])
TEXELS = int(LEVEL_OFFSETS[-1])    # of one texture
_LIKE = {'plaster': 'Plaster', 'floor': 'Tiles', 'wood': 'Wood', 'brick': 'Bricks',
         'fabric': 'Fabric', 'ceiling': 'OfficeCeiling', 'crate': 'Planks',
         'wallpaper': 'Wallpaper', 'books': 'Paper', 'picture': 'Paint'}


@dataclass(frozen=True)
class Textures:
    """What surfaces can look like."""

    texels: np.ndarray          # [textures * TEXELS, 3] uint8, level 0 of a texture first
    means: np.ndarray           # [textures, 3] float32 in [0, 255]
    categories: tuple[str, ...]   # of each texture, such as 'Wood'

    def __len__(self) -> int:
        """Return the number of textures."""
        return len(self.categories)

    def choose(self, rng: np.random.Generator, categories: Sequence[str]) -> int:
        """Return a texture of one of `categories`, or any if there is none of them."""
        wanted = [name for name in categories if name in self._members]
        if not wanted:
            return int(rng.integers(len(self)))
        members = self._members[wanted[rng.integers(len(wanted))]]
        return members[rng.integers(len(members))]

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        """Return the numbers of the textures by their category."""
        numbers: dict[str, list[int]] = {}
        for number, category in enumerate(self.categories):
            numbers.setdefault(category, []).append(number)
        return numbers

    def share(self, held_back: bool) -> 'Textures':
        """Return the tenth of the textures that is held back from training, or the others."""
        chosen = np.array([number for number in range(len(self))
                           if (number % 10 == 9) == held_back])
        texels = self.texels.reshape(len(self), TEXELS, 3)[chosen].reshape(-1, 3)
        return Textures(texels, self.means[chosen],
                        tuple(self.categories[number] for number in chosen))


def load_textures(folder: Path | None) -> Textures:
    """
    Return the textures in `folder` (pictures called CATEGORY_NUMBER.jpg), or procedural ones.

    Raises ValueError if the folder has no pictures.
    """
    if folder is None:
        return _procedural()
    paths = sorted(path for path in Path(folder).iterdir()
                   if path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.webp'))
    if not paths:
        raise ValueError(f'{folder} has no .jpg, .png or .webp pictures to take textures from')
    return _textures([_photograph(path) for path in paths],
                     [re.sub(r'_?\d+$', '', path.stem) for path in paths])


def _photograph(path: Path) -> np.ndarray:
    """Return a picture as a texture [SIDE, SIDE, 3] uint8."""
    with Image.open(path) as picture:
        width, height = picture.size
        side = min(width, height) - 2 * _TRIM
        if side < 8:
            raise ValueError(f'{path} is too small for a texture: {width}x{height} pixels')
        left, top = (width - side) // 2, (height - side) // 2
        middle = picture.convert('RGB').crop((left, top, left + side, top + side))
        return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _procedural() -> Textures:
    """Return textures that need no pictures."""
    pictures, categories = [], []
    for seed in range(_PROCEDURAL_SETS):
        atlas = make_textures(np.random.default_rng((seed, 0x77de)))
        for number, name in enumerate(TEXTURE_NAMES):
            pictures.append(_level(atlas, number))
            categories.append(_LIKE[name.rstrip('0123456789')])
    return _textures(pictures, categories)


def _level(atlas: TextureAtlas, number: int) -> np.ndarray:
    """Return the mip level of SIDE texels of a texture of the synthetic world."""
    level = int(np.log2(atlas.size // SIDE))
    start = number * atlas.texels_per_texture + atlas.level_offsets[level]
    return atlas.texels[start:start + SIDE * SIDE].reshape(SIDE, SIDE, 3)


def _textures(pictures: list[np.ndarray], categories: list[str]) -> Textures:
    """Return textures with their mip levels."""
    level = np.stack(pictures).astype(np.float32)
    levels = []
    for _ in range(LEVELS):
        levels.append((level + 0.5).astype(np.uint8).reshape(len(pictures), -1, 3))
        count, side = level.shape[:2]
        level = level.reshape(count, side // 2, 2, side // 2, 2, 3).mean(axis=(2, 4))
    texels = np.concatenate(levels, axis=1)
    return Textures(texels.reshape(-1, 3), levels[0].mean(axis=1, dtype=np.float32),
                    tuple(categories))
