#!/usr/bin/env python3
"""
Write a PLY as the package does, and print what other programs' readers get from it.

Each reader that is installed is run: pip install plyfile trimesh open3d pymeshlab meshio pyvista
pyntcloud point-cloud-utils opencv-python-headless pycolmap. The table stands in
docs/recordings.md.
"""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
import tempfile
from typing import NamedTuple

import numpy as np

from xsvggt_ros.mapping.map_files import make_cloud, write_ply

POINTS = np.array([[1, 2, 3], [-4.5, 5, 6], [0.25, 0.5, 0.75]])
COLOURS = np.array([[200, 100, 50], [250, 128, 0], [1, 2, 3]], np.uint8)
CONFIDENCE = np.array([1.5, 7.25, 3])


class Read(NamedTuple):
    """What a reader got; None where it has no place for it."""

    points: np.ndarray
    colours: np.ndarray | None = None
    confidence: np.ndarray | None = None


def by_plyfile(path: str) -> Read:
    """Read with plyfile."""
    from plyfile import PlyData
    return _of_columns(PlyData.read(path)['vertex'])


def by_trimesh(path: str) -> Read:
    """Read with trimesh."""
    import trimesh
    cloud = trimesh.load(path)
    raw = cloud.metadata['_ply_raw']['vertex']['data']
    return Read(cloud.vertices, cloud.colors[:, :3], raw['confidence'])


def by_open3d(path: str) -> Read:
    """Read with Open3D's tensors."""
    import open3d
    cloud = open3d.t.io.read_point_cloud(path).point
    return Read(cloud.positions.numpy(), cloud.colors.numpy(), cloud.confidence.numpy().ravel())


def by_pymeshlab(path: str) -> Read:
    """Read with pymeshlab."""
    import pymeshlab
    meshes = pymeshlab.MeshSet()
    meshes.load_new_mesh(path)
    mesh = meshes.current_mesh()
    return Read(mesh.vertex_matrix(), mesh.vertex_color_matrix()[:, :3] * 255,
                mesh.vertex_scalar_array())


def by_meshio(path: str) -> Read:
    """Read with meshio."""
    import meshio
    mesh = meshio.read(path)
    colours = np.stack([mesh.point_data[name] for name in ('red', 'green', 'blue')], axis=1)
    return Read(mesh.points, colours, mesh.point_data['confidence'])


def by_pyvista(path: str) -> Read:
    """Read with PyVista."""
    import pyvista
    mesh = pyvista.read(path)
    return Read(mesh.points, mesh.point_data['RGB'])


def by_pyntcloud(path: str) -> Read:
    """Read with pyntcloud."""
    from pyntcloud import PyntCloud
    return _of_columns(PyntCloud.from_file(path).points)


def by_point_cloud_utils(path: str) -> Read:
    """Read with point-cloud-utils."""
    import point_cloud_utils
    data = point_cloud_utils.load_triangle_mesh(path).vertex_data
    colours = data.colors[:, :3]
    scale = 255 if colours.dtype.kind == 'f' else 1
    return Read(data.positions, colours * scale, data.quality.ravel())


def by_opencv(path: str) -> Read:
    """Read with OpenCV, whose colours are 0 to 1 (version 5)."""
    import cv2
    points, _, colours = cv2.loadPointCloud(path)
    return Read(points.reshape(-1, 3), colours.reshape(-1, 3) * 255)


def by_pycolmap(path: str) -> Read:
    """Read with pycolmap."""
    import pycolmap
    model = pycolmap.Reconstruction()
    model.import_PLY(path)
    points = [point for _, point in sorted(model.points3D.items())]
    return Read(np.array([point.xyz for point in points]),
                np.array([point.color for point in points]))


READERS: dict[str, Callable[[str], Read]] = {
    'plyfile': by_plyfile, 'trimesh': by_trimesh, 'open3d': by_open3d,
    'pymeshlab': by_pymeshlab, 'meshio': by_meshio, 'pyvista': by_pyvista,
    'pyntcloud': by_pyntcloud, 'point-cloud-utils': by_point_cloud_utils,
    'opencv-python-headless': by_opencv, 'pycolmap': by_pycolmap}


def _of_columns(columns: object) -> Read:
    """Return what a table of the properties holds."""
    points, colours = (np.stack([np.asarray(columns[name]) for name in names], axis=1)  # type: ignore[index]
                       for names in ('xyz', ('red', 'green', 'blue')))
    return Read(points, colours, np.asarray(columns['confidence']))  # type: ignore[index]


def _judge(found: np.ndarray | None, wanted: np.ndarray) -> str:
    if found is None:
        return 'no place for it'
    found = np.asarray(found)
    if found.shape == wanted.shape and np.allclose(found, wanted):
        return 'right'
    if found.dtype.kind == 'i' and np.allclose(found.astype(int) % 256, wanted):
        return 'signed bytes'
    return 'wrong'


def main() -> None:
    """Print the table."""
    print('| reader | points | colours | confidence |\n|---|---|---|---|')
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'map.ply'
        write_ply(path, make_cloud(POINTS, COLOURS, CONFIDENCE), 'weights: small')
        for name, read in READERS.items():
            try:
                label = f'{name} {version(name)}'
            except PackageNotFoundError:
                continue
            try:
                found = read(str(path))
                cells = [_judge(found.points, POINTS), _judge(found.colours, COLOURS),
                         _judge(found.confidence, CONFIDENCE)]
            except Exception as error:   # of any of them
                cells = [f'fails: {type(error).__name__}'] * 3
            print(f"| {label} | {' | '.join(cells)} |")


if __name__ == '__main__':
    main()
