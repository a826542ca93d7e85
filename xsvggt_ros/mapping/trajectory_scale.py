"""The scale by the camera's trajectory: by the network, and by odometry in metres."""

from collections import deque
from itertools import count

import numpy as np

from xsvggt_ros.mapping.scale import MIN_OBSERVATIONS, NoScale, Scale, ScaleEstimator, WINDOW
from xsvggt_ros.mapping.similarity_fit import SimilarityFit

MIN_TRAVEL = 0.2  # metres, RMS spread of the positions: below, noise would decide
_MIN_BEND = 0.25  # of the spread of a trajectory: a smaller jump hardly bends it
_MIN_SPLIT_GAIN = 40  # by so much two pieces must be likelier than one (-2 log likelihood)
_MAX_SPLITS = 8  # at once


class TrajectoryScale(ScaleEstimator):
    """
    Compares the camera's trajectory in the network's unit with the same one in metres.

    A robust similarity fit over the newest positions (Umeyama, PAMI 1991, with Cauchy weights, so
    that slips and outliers do not pull). The network's positions are fitted to the odometry and
    not the other way round: theirs is the larger noise, and noise on the side that is fitted
    leaves the scale unbiased.

    Where one of the two trajectories breaks off and goes on elsewhere, the window is split: each
    piece has its own translation and rotation, and all have one scale. Breaks that are known come
    with the positions, as other numbers of the piece; others show as residuals that jump.
    """

    def __init__(self) -> None:
        """Begin without any position."""
        super().__init__(0.01)
        # Each with the number of its piece, which is another one than it was given with.
        self._pairs: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=WINDOW)
        self._given: int | None = None  # with the newest pair
        self._numbers = count()
        self._piece = next(self._numbers)  # of the pairs that come now

    def forget(self) -> None:
        """Begin anew: the network's unit is another one."""
        super().forget()
        self._pairs.clear()
        self._given = None

    def add(self, position: np.ndarray, metric_position: np.ndarray, piece: int = 0) -> None:
        """
        Take a camera position [3] in the network's world, and in metres in any world.

        piece: another number than the one before says that these metres are of another world.
        """
        if not (np.isfinite(position).all() and np.isfinite(metric_position).all()):
            return
        if piece != self._given:
            self._given, self._piece = piece, next(self._numbers)
        self._pairs.append((self._piece, np.asarray(position, np.float64),
                            np.asarray(metric_position, np.float64)))

    def _unsure(self) -> str:
        return "the camera's trajectory by the network does not follow that by the odometry"

    def _estimate(self) -> Scale:
        numbers = np.array([number for number, *_ in self._pairs], np.intp)
        names, pieces, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
        used = np.flatnonzero(sizes[pieces] >= MIN_OBSERVATIONS)
        if not len(used):
            broken = f' in {len(names)} pieces' if len(names) > 1 else ''
            raise NoScale(f'{len(numbers)} positions compared so far{broken}, and '
                          f'{MIN_OBSERVATIONS} without a break are needed', waits=True)
        positions, metric = (np.stack(side)[used] for side in list(zip(*self._pairs))[1:])
        fit = self._fit(positions, metric, numbers, used)
        if fit.spread < MIN_TRAVEL:
            raise NoScale(
                f'by the odometry the camera has moved {fit.spread:.2g} m (RMS) without a break, '
                f'and {MIN_TRAVEL} m are needed; drive on', waits=True)
        if fit.units <= 0:
            raise NoScale('the two trajectories have nothing in common')
        return Scale(1 / fit.units, fit.uncertainty)

    def _fit(self, positions: np.ndarray, metric: np.ndarray, numbers: np.ndarray,
             used: np.ndarray) -> SimilarityFit:
        """Fit the pairs [N, 3] that are used, after splits where one trajectory has jumped."""
        fit = SimilarityFit.to(positions, metric, numbers[used])
        for _ in range(_MAX_SPLITS):
            found = fit.likely_jump()
            if found is None:
                break
            jump, is_plain = found
            split, new = numbers.copy(), next(self._numbers)
            split[used[jump]:][numbers[used[jump]:] == numbers[used[jump]]] = new
            better = SimilarityFit.to(positions, metric, split[used])
            gain = fit.cost(better.deviation) - better.cost(better.deviation)
            bends = fit.jump(jump, better.units) > _MIN_BEND * better.spread
            if gain < (0 if is_plain else _MIN_SPLIT_GAIN) or better.units <= 0 or not bends:
                break
            if self._piece == numbers[used[jump]]:
                self._piece = new
            fit, numbers = better, split
            for index, (_, position, there) in enumerate(self._pairs):
                self._pairs[index] = int(split[index]), position, there
        return fit
