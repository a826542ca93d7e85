"""
Data sets with known depth and poses, found in the folders in which they are published.

Pictures are given as they are: lens distortion (TUM freiburg1 and 2, Bonn) is not taken out, and
the intrinsics are those of the pinhole model that was published with it.
"""

import logging
import os
from pathlib import Path

from xsvggt_ros.console.errors import ChoiceError, ToolError
from xsvggt_ros.evaluation.datasets.kitti import Kitti
from xsvggt_ros.evaluation.datasets.rendered import Rendered
from xsvggt_ros.evaluation.datasets.sequence import DatasetSequence, NoTruthError
from xsvggt_ros.evaluation.datasets.seven_scenes import SevenScenes
from xsvggt_ros.evaluation.datasets.tum import Bonn, Tum

_SEARCH_DEPTH = 2   # levels of folders below the given one

_log = logging.getLogger(__name__)


# In the order in which folders are compared with them; Bonn fits TUM, too.
LAYOUTS: dict[str, type[DatasetSequence]] = {
    '7scenes': SevenScenes, 'bonn': Bonn, 'tum': Tum, 'kitti': Kitti,
    'rendered': Rendered}


def open_sequences(folder: Path | str, layout: str = 'auto') -> list[DatasetSequence]:
    """
    Return the sequences that `folder` is or holds, sorted by name; raise ToolError.

    They may lie up to two levels below it, as in the folders of 7-Scenes (chess/seq-01) and KITTI
    (sequences/00). Of several sequences those without poses are named in the log and left out.
    layout: a key of LAYOUTS, or 'auto' for what each sequence looks like.
    """
    if layout != 'auto' and layout not in LAYOUTS:
        raise ChoiceError(f"there is no layout '{layout}'; choose from auto, {', '.join(LAYOUTS)}")
    folder = Path(os.path.abspath(folder))   # names and parents, but no links followed
    if not folder.is_dir():
        raise ToolError(f'{folder}: {"not a" if folder.exists() else "no such"} folder; give a '
                        'sequence of a data set, or a folder of sequences')
    sequences = _find_sequences(folder, layout)
    if not sequences:
        known = LAYOUTS if layout == 'auto' else {layout: LAYOUTS[layout]}
        looks = '\n'.join(f'  {name}: {kind.looks_like}' for name, kind in known.items())
        raise ToolError(f'{folder}: no sequence found in it; give a folder that is or holds\n'
                        + looks)
    return _open_those_with_poses(sequences)


def _find_sequences(folder: Path, layout: str) -> list[tuple[type[DatasetSequence], Path]]:
    """Return layout and folder of the sequences on the first level that has some."""
    level = [folder]
    for _ in range(_SEARCH_DEPTH + 1):
        kinds = [_layout_of(place, layout) for place in level]
        found = [(kind, place) for kind, place in zip(kinds, level) if kind]
        if found:
            return found
        level = sorted(child for place in level for child in _subfolders(place))
    return []


def _layout_of(folder: Path, layout: str) -> type[DatasetSequence] | None:
    if layout == 'auto':
        return next((kind for kind in LAYOUTS.values() if kind.recognises(folder)), None)
    return LAYOUTS[layout] if LAYOUTS[layout].fits(folder) else None


def _subfolders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir()
            and not entry.name.startswith('.') and os.access(entry, os.R_OK | os.X_OK)]


def _open_those_with_poses(
    sequences: list[tuple[type[DatasetSequence], Path]],
) -> list[DatasetSequence]:
    """Return the sequences that have poses; raise NoTruthError if none has."""
    recordings, missing = [], []
    for kind, place in sequences:
        try:
            recordings.append(kind(place))
        except NoTruthError as error:
            missing.append(error)
    if not recordings:
        raise missing[0]
    for reason in missing:
        _log.warning('%s; left out', reason)
    return recordings
