"""All numbers of the trajectory in one place."""

from dataclasses import dataclass

MODES = ('network', 'tracked', 'optimized')


@dataclass(frozen=True)
class TrajectoryConfig:
    """
    How frames are tracked, located and adjusted.

    Lengths in pixels are for an image 320 pixels wide and grow with it; relative depths are
    natural logarithms.
    """

    # Tracks.
    corners: int = 350               # that are followed at most
    corner_quality: float = 0.005    # of the best corner's response
    corner_distance: float = 6.0     # pixels between two
    flow_window: int = 15            # pixels, not scaled beyond 21
    backward_error: float = 0.7      # pixels by which a way there and back may miss
    # Poses.
    pixel_sigma: float = 0.5         # pixels, of an observation
    huber: float = 2.0               # sigmas from which an observation counts less
    outlier: float = 4.0             # sigmas from which it is none
    fewest_inliers: int = 15
    inlier_share: float = 0.3        # of the tracks that are left
    # Keyframes.
    survivors: float = 0.7           # share of a keyframe's tracks below which a new one is made
    parallax: float = 0.06           # of the image's width, rotation taken out
    # Window.
    optimize: bool = True
    window: int = 10                 # keyframes that move; as many older ones hold them
    baseline: float = 0.02           # of depth, that keyframes must be apart; or they only turn
    iterations: int = 5
    depth_sigma: float = 0.15        # of the network's depth
    depth_cauchy: float = 2.0        # sigmas from which a depth counts less
    depth_lean: float = 0.5          # of a new keyframe's scale that the network's own gives
    focal_sigma: float = 0.1         # of a focal length that is the network's guess
    focal_from: int = 3              # keyframes before it is estimated
    focal_floor: float = 0.01        # to which its uncertainty falls
    correct_depth: bool = True       # where it is optimized
    # Dynamic objects.
    dynamic_share: float = 0.15      # of the tracks, that must move together
    dynamic_error: float = 3.0       # pixels by which a thing has moved
    dynamic_depth: float = 0.5       # of log depth, by which that may be off
    dynamic_frames: int = 10         # after which what stands still is a part of the scene
    # Times the expected variance by which a window's depths miss the network's, beyond which it is
    # not believed while there are many: what moves was taken for the scene.
    dynamic_misfit: float = 1.8
    # Pixels of error beyond which depth is not corrected then. Whatever is known to move, a camera
    # that only turned is thought of.
    doubt: float = 1.5
    # When tracks are lost.
    matching_keyframes: int = 8      # that are searched
    matching_inliers: int = 20
    fallback_frames: int = 60        # that tell which fallback was better
    min_contrast: float = 4.0        # grey levels below which an image shows nothing
    # Odometry from elsewhere.
    odometry_cauchy: float = 5.0     # sigmas from which a motion by it counts less
    odometry_segments: int = 60      # of the trajectory, that tell how long its metre is
    # Loops.
    close_loops: bool = True         # where it is optimized
    loop_similarity: float = 0.5     # of thumbnails, 1: the same
    loop_candidates: int = 5         # keyframes that a new one is compared with
    loop_inliers: int = 25
    loop_share: float = 0.4          # of the matches
    loop_gate: float = 5.0           # sigmas of the path between, beyond which it is none
    loop_cauchy: float = 3.0         # sigmas from which a loop counts less
    loop_iterations: int = 5         # of the graph, at each loop
    keyframes: int = 400             # that are kept for loops, at most
    # A saved map.
    localize_candidates: int = 40    # keyframes of it that a new one is compared with
    localize_share: float = 0.3      # of the landmarks that should be seen, that look like that
    localize_margin: float = 1.5     # by which a place must be surer than the next best one
    localize_confirmations: int = 4  # keyframes that must agree before a place is believed
    localize_gain: float = 0.2       # of a correction, that a later one takes over
    # Covariance: factors of variances, so that they hold the errors measured.
    located_inflation: float = 2.0   # of a frame against its landmarks: a motion has two ends
    window_inflation: float = 16.0   # a corner's errors in ten keyframes are nearly one error
    depth_inflation: float = 3.0     # of depth errors in common: neighbouring keyframes share some
    alone_inflation: float = 4.0     # of a frame against its landmarks, where no window helps

    def many_move(self, tracks: int) -> bool:
        """Return whether so many tracks move that the camera's own motion may be another one."""
        return tracks > self.dynamic_share * self.corners

    def scaled(self, width: int) -> float:
        """Return how many pixels of an image `width` wide are one of 320."""
        return width / 320.0
