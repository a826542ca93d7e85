"""What tests of exports share."""

import numpy as np
from PIL import Image
import yaml

SMALL = ['--image-size', '56', '--max-tokens', '60']


def nav2_cells(folder):
    """Return occupancy 100, 0 or -1 [rows, columns] by y, as nav2_map_server reads it."""
    about = yaml.safe_load((folder / 'map.yaml').read_text())
    grey = np.asarray(Image.open(folder / about['image'])).astype(float)
    occupancy = grey / 255 if about['negate'] else (255 - grey) / 255
    cells = np.full(grey.shape, -1)
    cells[occupancy > about['occupied_thresh']] = 100
    cells[occupancy < about['free_thresh']] = 0
    return cells[::-1], about
