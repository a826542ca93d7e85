"""What surfaces are made of."""

import colorsys
from dataclasses import dataclass

import numpy as np

from training.wide_world.textures import Textures

# Texture categories by what a surface is, and how much of the texture's contrast may be left.
ROLES: dict[str, tuple[tuple[str, ...], tuple[float, float]]] = {
    'paint': (('Plaster', 'Paint', 'Paper', 'Concrete', 'Wallpaper', 'Porcelain'), (0.0, 0.5)),
    'wall': (('Plaster', 'Concrete', 'Bricks', 'Tiles', 'Wallpaper', 'WoodSiding', 'Planks',
              'Marble', 'Paint', 'Fabric', 'Travertine', 'PavingStones'), (0.3, 1.0)),
    'floor': (('WoodFloor', 'Tiles', 'Carpet', 'Planks', 'Terrazzo', 'Marble', 'Concrete',
               'PavingStones', 'Granite', 'WoodFloor', 'Tatami', 'Travertine', 'Fabric'),
              (0.4, 1.0)),
    'ceiling': (('OfficeCeiling', 'Plaster', 'Paint', 'Concrete', 'Planks'), (0.0, 0.8)),
    'wood': (('Wood', 'Planks', 'WoodFloor', 'Chipboard', 'Bamboo', 'WoodSiding'), (0.3, 1.0)),
    'front': (('Paint', 'Plastic', 'Wood', 'Planks', 'Metal', 'Paper'), (0.0, 0.8)),
    'stone': (('Marble', 'Granite', 'Terrazzo', 'Concrete', 'Onyx', 'Wood', 'Tiles'), (0.2, 1.0)),
    'metal': (('Metal', 'Foil', 'CorrugatedSteel', 'DiamondPlate', 'Rust'), (0.1, 0.9)),
    'plastic': (('Plastic', 'Rubber', 'Porcelain', 'Paint', 'Paper'), (0.0, 0.6)),
    'fabric': (('Fabric', 'Carpet', 'Wallpaper', 'Fabric', 'Rubber'), (0.2, 1.0)),
    'leaf': (('Grass', 'Moss', 'Ground', 'Fabric'), (0.1, 0.7)),
    'picture': ((), (0.6, 1.0)),
    'thing': (('Cardboard', 'Paper', 'Plastic', 'Metal', 'Fabric', 'Wood', 'Porcelain', 'Cork',
               'Clay', 'Paint', 'Foil', 'GlazedTerracotta', 'Tiles', 'Wallpaper', 'Rubber'),
              (0.0, 1.0)),
    'outside': (('Grass', 'Ground', 'Bricks', 'Snow', 'Rocks', 'Road', 'Moss'), (0.2, 0.6)),
}
_GLOSS = {'metal': 0.6, 'stone': 0.4, 'plastic': 0.35, 'front': 0.3, 'floor': 0.2, 'wood': 0.2,
          'thing': 0.25, 'picture': 0.2}


@dataclass(frozen=True)
class Material:
    """
    A surface's look.

    Its colour is tint * (mean + contrast * (texel - mean)); light is added by the scene.
    """

    texture: int
    tile: float                          # metres that one repeat of the texture covers
    contrast: float
    tint: tuple[float, float, float]
    gloss: float                         # share of light that is mirrored
    emission: float                      # of a lamp or a window, beside what it reflects
    turned: bool                         # its texture by a right angle


class Palette:
    """Draws the materials of one scene, which has a style: few colours, some of them repeated."""

    def __init__(self, rng: np.random.Generator, textures: Textures) -> None:
        """Draw a style."""
        self._rng, self._textures = rng, textures
        self.materials: list[Material] = []
        self._warmth = rng.normal(0.0, 0.08)
        self._colourful = rng.uniform(0.0, 1.0) ** 2
        self._kept: dict[str, list[int]] = {}

    def draw(self, role: str, emission: float = 0.0,
             brightness: tuple[float, float] = (0.06, 0.9)) -> int:
        """Return the number of a new material for what `role` of `ROLES` names."""
        rng = self._rng
        categories, (low, high) = ROLES[role]
        texture = self._textures.choose(rng, categories)
        contrast = rng.uniform(low, high)
        tint = self._tint(texture, role, brightness)
        tile = float(np.exp(rng.uniform(np.log(0.25), np.log(2.5))))
        gloss = _GLOSS.get(role, 0.0) * rng.uniform() ** 2
        self.materials.append(Material(texture, tile, contrast, tint, gloss, emission,
                                       bool(rng.uniform() < 0.5)))
        return len(self.materials) - 1

    def take(self, role: str) -> int:
        """Return a material that the scene may have used for this role before."""
        kept = self._kept.setdefault(role, [])
        if len(kept) < 2 or self._rng.uniform() < 0.35:
            kept.append(self.draw(role))
            return kept[-1]
        return int(kept[self._rng.integers(len(kept))])

    def _tint(self, texture: int, role: str,
              brightness: tuple[float, float]) -> tuple[float, float, float]:
        """Return what the texture is multiplied by: nothing, or what gives it another colour."""
        rng = self._rng
        repaint = {'paint': 1.0, 'ceiling': 0.9, 'leaf': 1.0, 'outside': 0.0}.get(role, 0.45)
        if rng.uniform() >= repaint:
            gain = rng.uniform(0.7, 1.25)
            return (gain, gain, gain)
        bright = rng.uniform(*brightness)
        hue, saturation = rng.uniform(), 0.7 * rng.uniform() ** (2.0 - self._colourful)
        if role in ('paint', 'ceiling'):
            bright = rng.uniform(0.55, 0.95) if rng.uniform() < 0.85 else bright
            hue = (0.1 + self._warmth) % 1 if rng.uniform() < 0.6 else hue
            saturation *= 0.5
        elif role == 'leaf':
            hue, saturation, bright = rng.uniform(0.2, 0.4), rng.uniform(0.3, 0.8), 0.4 * bright
        colour = np.array(colorsys.hsv_to_rgb(hue, saturation, bright)) * 255
        tint = np.minimum(colour / np.maximum(self._textures.means[texture], 20.0), 8.0)
        return float(tint[0]), float(tint[1]), float(tint[2])
