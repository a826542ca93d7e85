"""The picture of a run: cloud, trajectory, input image and cache occupancy on one page."""

import io
from pathlib import Path
from typing import Any
import warnings

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, ScalarFormatter
import numpy as np

from xsvggt_ros.mapping.map_files import parse_stamp
from xsvggt_ros.mapping.trajectory import StampedPose
from xsvggt_ros.recordings.cloud_view import draw_cloud, Viewpoint, viewpoint_around
from xsvggt_ros.recordings.outputs import CacheRow
from xsvggt_ros.recordings.recording import describe_errors, PICTURE_FILE, Recording, writing

BACKGROUND = '#0f1218'
PANEL = '#161b24'
GRID = '#2b3342'
TEXT = '#e8ecf3'
FAINT = '#9aa5b8'
ACCENT = '#4cc2ff'
WARNING = '#ffb347'
TRUTH = '#ffffff'          # the true trajectory, where it is known
COLOUR_MAP = 'plasma'      # of the trajectory, from first to last frame

_MAX_DRAWN = 350_000       # points
_DPI = 120
_MARGIN = 0.012            # of the page's width, left and right
_MANY_TIMES = 3.0          # the usual latency, from where the axis is logarithmic


def write_picture(recording: Recording, folder: Path) -> Path:
    """
    Draw the picture of the run; takes seconds. Raises ToolError.

    It is there as a whole or not at all, and never that of an earlier run.
    """
    path = folder / PICTURE_FILE
    with writing(folder):
        path.unlink(missing_ok=True)
        path.write_bytes(draw_reconstruction(recording))
    return path


def draw_reconstruction(recording: Recording) -> bytes:
    """Return a PNG of 1920 x 1080 pixels that shows the recording."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')   # names in scripts that the font lacks
        picture = io.BytesIO()
        lay_out(recording).savefig(picture, format='png', facecolor=BACKGROUND)
    return picture.getvalue()


def lay_out(recording: Recording) -> Figure:
    """Return the page."""
    style = {'text.color': TEXT, 'axes.labelcolor': FAINT, 'xtick.color': FAINT,
             'ytick.color': FAINT, 'axes.edgecolor': GRID, 'axes.facecolor': PANEL,
             'font.size': 10, 'font.family': 'DejaVu Sans'}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(16, 9), dpi=_DPI, facecolor=BACKGROUND)
        FigureCanvasAgg(figure)
        scene = _Scene(recording)
        _draw_header(figure, recording, scene)
        _draw_view(figure.add_axes((_MARGIN, 0.285, 0.615, 0.585)), scene)
        _draw_cache(figure.add_axes((0.058, 0.075, 0.52, 0.165)), recording)
        _draw_image(figure.add_axes((0.645, 0.535, 0.343, 0.335)), recording)
        _draw_top(figure.add_axes((0.685, 0.075, 0.29, 0.4)), scene)
    return figure


class _Scene:
    """The points worth drawing and the range they span; outliers and ceilings left out."""

    def __init__(self, recording: Recording) -> None:
        cloud = recording.cloud()
        self.total = len(cloud)
        self.unit = 'm' if recording.metric else 'network units'
        if len(cloud) > _MAX_DRAWN:
            cloud = cloud[np.random.default_rng(0).choice(len(cloud), _MAX_DRAWN, replace=False)]
        points = np.stack([cloud['x'], cloud['y'], cloud['z']], axis=-1).astype(np.float64)
        colours = np.stack([cloud['red'], cloud['green'], cloud['blue']], axis=-1)
        poses = [pose for pose in recording.poses if np.isfinite(pose.position).all()]
        self.poses: list[StampedPose] = poses
        self.positions = np.array([pose.position for pose in poses], np.float64).reshape(-1, 3)
        self.errors = recording.errors()
        keep = _without_outliers(points, self.positions)
        self.points, self.colours = points[keep], colours[keep]
        true_positions = np.zeros((0, 3)) if self.errors is None else self.errors.true_positions
        everything = np.concatenate([self.points, self.positions, true_positions])
        if len(everything) == 0:
            everything = np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
        self.low, self.high = everything.min(axis=0), everything.max(axis=0)
        extent = np.maximum(self.high - self.low, 1e-6)
        # Points lie on surfaces: about this far from each other if spread over the box's sides.
        area = extent[0] * extent[1] + extent[0] * extent[2] + extent[1] * extent[2]
        self.spacing = float(np.sqrt(3 * area / max(len(self.points), 1)))
        self.shaft = 0.05 * float(np.linalg.norm(extent[:2]))     # size of a drawn camera
        # What a view has to hold: lines to their last point, of the many points some.
        self.outline = np.concatenate([
            self.points[::max(1, len(self.points) // 20_000)], self.positions, true_positions,
            *(corners for _, corners in self.cameras())])
        if len(self.outline) == 0:
            self.outline = everything

    def cameras(self) -> list[tuple[int, np.ndarray]]:
        """Return some of the cameras: number and corners [5, 3] of a pyramid, its tip first."""
        # In the optical frame: x right, y down, z ahead.
        corners = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1],
                            [-0.6, 0.45, 1]]) * self.shaft
        numbers = np.unique(np.linspace(0, len(self.poses) - 1, 6).astype(int)) \
            if self.poses else []
        places = [(int(number), self.poses[number].matrix()) for number in numbers]
        return [(number, corners @ pose[:3, :3].T + pose[:3, 3]) for number, pose in places]


def _without_outliers(points: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Return which points to draw: the bulk, and nothing far above the cameras (a ceiling)."""
    if len(points) == 0:
        return np.zeros(0, bool)
    low, high = np.percentile(points, (1.0, 99.0), axis=0)
    margin = 0.08 * (high - low)
    keep = np.all((points >= low - margin) & (points <= high + margin), axis=1)
    if len(way):
        around = np.median(np.linalg.norm(points[:, :2] - np.median(way[:, :2], axis=0), axis=1))
        under = points[:, 2] < way[:, 2].max() + 0.22 * around
        # Where nearly everything is above the camera, cutting would leave nothing to see.
        keep = keep & under if (keep & under).mean() > 0.3 else keep
    return keep


# The header --------------------------------------------------------------------------------------

def _draw_header(figure: Figure, recording: Recording, scene: _Scene) -> None:
    """Write three lines: counts, weights, and errors or a warning."""
    right = 1 - _MARGIN
    figure.text(_MARGIN, 0.962, 'xsvggt_ros', size=20, weight='bold', va='center')
    stamps = [pose.stamp_ns for pose in recording.poses] or [0]
    seconds = (max(stamps) - min(stamps)) * 1e-9
    figure.text(right, 0.962, f'{recording.frames} frames, {seconds:.1f} s of camera, '
                f'{scene.total:,} points', size=11.5, color=FAINT, va='center', ha='right')
    _write_fitted(figure, 0.928, f'weights: {recording.model}', right, color=FAINT)
    if recording.random_weights:
        figure.text(0.32, 0.895, 'random weights: plumbing test, geometry is meaningless until a '
                    'trained checkpoint is given', size=11, color=BACKGROUND, weight='bold',
                    ha='center', va='center',
                    bbox={'boxstyle': 'round,pad=0.4', 'facecolor': WARNING, 'edgecolor': 'none'})
    elif scene.errors is not None:
        _write_fitted(figure, 0.896, describe_errors(scene.errors), right)


def _write_fitted(
    figure: Figure, height: float, words: str, right: float, **style: Any,
) -> None:
    """Write a line from the left margin; what does not fit is left out in its middle."""
    words = ' '.join(words.split())
    text = figure.text(_MARGIN, height, words, size=11.5, va='center', parse_math=False, **style)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]  # FigureCanvasAgg
    room = (right - _MARGIN) * figure.bbox.width
    shown = len(words)
    while text.get_window_extent(renderer).width > room and shown > 2:
        shown = int(0.95 * shown)
        text.set_text(f'{words[:shown // 2]} ... {words[-(shown - shown // 2):]}')


# The cloud in perspective ------------------------------------------------------------------------

def _draw_view(axes: Axes, scene: _Scene) -> None:
    axes.set_axis_off()
    box = axes.get_position()
    width = round(box.width * 16 * _DPI)
    height = round(box.height * 9 * _DPI)
    view = viewpoint_around(scene.outline, _azimuth(scene.outline), np.deg2rad(42), width, height)
    red, green, blue = (int(PANEL[start:start + 2], 16) for start in (1, 3, 5))
    axes.imshow(draw_cloud(scene.points, scene.colours, view, scene.spacing,
                           (red, green, blue)),
                interpolation='nearest')
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    if scene.errors is not None:
        axes.plot(*view.project(scene.errors.true_positions)[0].T, color=TRUTH, linewidth=1.4,
                  linestyle=(0, (4, 2)), zorder=6, scalex=False, scaley=False)
    _draw_trajectory(axes, view.project(scene.positions)[0] if len(scene.positions)
                     else scene.positions[:, :2], 2.6)
    _draw_cameras(axes, scene, view)


def _azimuth(outline: np.ndarray) -> float:
    """Return the direction of view in which the map lies broadside, from behind if it can be."""
    flat = outline[:, :2] - outline[:, :2].mean(axis=0)
    longest = np.linalg.eigh(flat.T @ flat)[1][:, -1]
    across = np.array([-longest[1], longest[0]])
    if across[0] < 0:       # look the way the first camera did, along +x, rather than back
        across = -across
    # A little to the side: three walls of a room say more than one seen square on.
    return -float(np.arctan2(across[1], across[0])) + np.deg2rad(18)


def _draw_trajectory(axes: Axes, positions: np.ndarray, width: float) -> None:
    """Draw the trajectory through `positions` [n, 2], coloured by time, with a dark rim."""
    if len(positions) < 2:
        return
    segments = list(np.stack([positions[:-1], positions[1:]], axis=1))
    axes.add_collection(LineCollection(segments, colors=BACKGROUND, linewidths=width + 2.2,
                                       capstyle='round', zorder=3), autolim=False)
    axes.add_collection(LineCollection(
        segments, array=np.linspace(0.15, 1.0, len(segments)), cmap=COLOUR_MAP,
        clim=(0.0, 1.0), linewidths=width, capstyle='round', zorder=4), autolim=False)


def _draw_cameras(axes: Axes, scene: _Scene, view: Viewpoint) -> None:
    """Draw some of the cameras as small pyramids."""
    lines = [(1, 2), (2, 3), (3, 4), (4, 1), (0, 1), (0, 2), (0, 3), (0, 4)]
    colours = matplotlib.colormaps[COLOUR_MAP]
    for number, corners in scene.cameras():
        pixels = view.project(corners)[0]
        colour = colours(0.15 + 0.85 * number / max(len(scene.poses) - 1, 1))
        axes.add_collection(LineCollection([pixels[list(line)] for line in lines], colors=[colour],
                                           linewidths=1.3, zorder=5), autolim=False)


# The cloud from above ----------------------------------------------------------------------------

def _draw_top(axes: Axes, scene: _Scene) -> None:
    """Draw the map as seen from above: x, where the first camera looked, points up the page."""
    _frame(axes, 'from above')
    middle = (scene.low[:2] + scene.high[:2]) / 2
    half = float((scene.high[:2] - scene.low[:2]).max()) / 2 * 1.08
    size = 420
    if len(scene.points):
        # Left on the page is +y, so that x up and y left make a right-handed view from above.
        column = ((middle[1] + half - scene.points[:, 1]) / (2 * half) * size).astype(int)
        row = ((middle[0] + half - scene.points[:, 0]) / (2 * half) * size).astype(int)
        order = np.argsort(scene.points[:, 2], kind='stable')
        image = np.zeros((size, size, 4), np.uint8)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            places = np.clip(row + down, 0, size - 1), np.clip(column + right, 0, size - 1)
            image[places[0][order], places[1][order], :3] = scene.colours[order]
            image[places[0][order], places[1][order], 3] = 255
        axes.imshow(image, interpolation='nearest',
                    extent=(middle[1] + half, middle[1] - half, middle[0] - half,
                            middle[0] + half))
    axes.set_xlim(middle[1] + half, middle[1] - half)
    axes.set_ylim(middle[0] - half, middle[0] + half)
    axes.set_aspect('equal')
    axes.set_xlabel(f'y, left ({scene.unit})')
    axes.set_ylabel(f'x, ahead ({scene.unit})')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6))
    _draw_trajectory(axes, scene.positions[:, [1, 0]], 2.0)
    if scene.errors is not None:
        axes.plot(*scene.errors.true_positions[:, [1, 0]].T, color=TRUTH, linewidth=1.4,
                  linestyle=(0, (4, 2)), zorder=6, label='truth', scalex=False, scaley=False)
    if len(scene.positions):
        across, ahead = scene.positions[0, [1, 0]]
        axes.scatter(across, ahead, s=46, color=ACCENT, edgecolor=BACKGROUND, zorder=6,
                     label='start')
        _put_legend(axes, axes.get_legend_handles_labels()[0])


# Input image and cache ---------------------------------------------------------------------------

def _draw_image(axes: Axes, recording: Recording) -> None:
    axes.set_axis_off()
    if recording.image is None:
        axes.text(0.5, 0.5, 'no input image received', ha='center', va='center', color=FAINT)
        return
    height, width = recording.image.shape[:2]
    axes.imshow(recording.image, interpolation='antialiased')
    axes.set_title(f'last input image ({width} x {height})', color=TEXT, size=11, loc='left',
                   pad=6)


def _draw_cache(axes: Axes, recording: Recording) -> None:
    """Draw tokens held over time, the budget, and every frame's latency."""
    rows = recording.cache
    if not rows:
        _frame(axes, 'KV cache')
        axes.text(0.5, 0.5, 'no frame was processed', ha='center', va='center', color=FAINT,
                  transform=axes.transAxes)
        return
    times, unit = _times(rows)
    tokens = np.array([row.tokens_used for row in rows])
    budget = rows[-1].tokens_budget
    limit = f' of {budget:,}' if budget else ''
    size = f'{rows[-1].bytes_used / 1e6:.1f} MB'
    _frame(axes, f'KV cache: {tokens[-1]:,}{limit} tokens a layer, {size}')
    axes.fill_between(times, tokens, color=ACCENT, alpha=0.25, linewidth=0)
    axes.plot(times, tokens, color=ACCENT, linewidth=1.8, label='tokens held')
    if budget:
        axes.axhline(budget, color=WARNING, linewidth=1.2, linestyle=(0, (5, 3)), label='budget')
    axes.set_ylim(0, 1.18 * max(budget, int(tokens.max()), 1))
    end = max(float(times[-1]), 1e-3)
    axes.set_xlim(-0.005 * end, end)   # the first frame's latency is worth seeing
    axes.set_xlabel(unit)
    axes.set_ylabel('tokens a layer')
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    lines = axes.get_legend_handles_labels()[0]
    latency = np.array([row.latency for row in rows]) * 1e3
    if np.isfinite(latency).any():
        lines.append(_draw_latency(axes.twinx(), times, latency))
    _put_legend(axes, lines)


def _times(rows: list[CacheRow]) -> tuple[np.ndarray, str]:
    """Return when frames were taken, from 0, and what it is; frame numbers if time went back."""
    stamps = [parse_stamp(row.stamp) for row in rows]
    seconds = np.array([stamp - stamps[0] for stamp in stamps]) * 1e-9
    if (np.diff(seconds) < 0).any():
        return np.arange(len(rows)), 'frame'
    return seconds, 'camera time (s)'


def _draw_latency(axes: Axes, times: np.ndarray, latency: np.ndarray) -> Line2D:
    """Draw every frame's latency, in ms; the first may be many times the usual one."""
    line, = axes.plot(times, latency, color=TEXT, linewidth=0.9, alpha=0.65, label='latency',
                      marker='.' if len(times) <= 200 else '', markersize=3)
    known = latency[np.isfinite(latency)]
    highest = max(float(known.max()), 1e-3)
    if highest > _MANY_TIMES * float(np.percentile(known, 90)) and known.min() > 0:
        axes.set_yscale('log')
        axes.set_ylim(float(known.min()) / 1.5, 1.5 * highest)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.set_ylim(0, 1.18 * highest)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.set_ylabel('latency (ms)')
    axes.tick_params(length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return line


def _put_legend(axes: Axes, handles: list[Artist]) -> None:
    """Explain lines beside the title, above what is drawn, which may be anywhere."""
    axes.legend(handles=handles, loc='lower right', bbox_to_anchor=(1.0, 1.0), ncol=len(handles),
                fontsize=9, frameon=False, borderaxespad=0.2, labelcolor=TEXT)


def _frame(axes: Axes, title: str) -> None:
    """Give `axes` the page's look and a title."""
    axes.set_title(title, color=TEXT, size=11, loc='left', pad=6)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(GRID)
