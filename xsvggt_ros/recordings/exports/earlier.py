"""Exports that an earlier run left in a folder: removed, so that it has the files of one run."""

from collections.abc import Collection
from contextlib import suppress
import json
from pathlib import Path

from xsvggt_ros.recordings.exports.export import remove_old
from xsvggt_ros.recordings.report import REPORT_FILE

# Of each export: in which folders it writes, innermost first, and the names of its files there.
_FILES: dict[str, tuple[tuple[str, str], ...]] = {
    'mcap': (('.', r'recording\.mcap(\.part)?'),),
    'rerun': (('.', r'recording(_\d+)?\.rrd'),),
    'grid': (('.', r'map\.(pgm|yaml)'),),
    'depth': (('depth', r'-?\d{18,19}\.(png|npz)|depth\.json'),),
    'colmap': (('colmap/sparse/0', r'(rigs|cameras|frames|images|points3D)\.(bin|txt)'),
               ('colmap/sparse', ''), ('colmap/images', r'frame_\d{6,}\.png'), ('colmap', '')),
}


def remove_earlier(folder: Path, kept: Collection[str]) -> list[str]:
    """
    Remove exports that the report in a folder names, but for those `kept`; return their names.

    Files of others stay, and so do those that no report tells of. Raises OSError.
    """
    removed = [name for name in _FILES if name in _told(folder) and name not in kept]
    for name in removed:
        for place, pattern in _FILES[name]:
            if (folder / place).is_dir():
                remove_old(folder / place, pattern)
            if place != '.':
                with suppress(OSError):   # it is not there, or has files of others
                    (folder / place).rmdir()
    return removed


def _told(folder: Path) -> set[str]:
    """Return the exports of the run whose report is in a folder; none without one."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding='utf-8'))
        return set(report['exports'])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
