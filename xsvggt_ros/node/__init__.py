"""The ROS 2 node."""

import xsvggt_ros.console.blas_threads  # noqa: F401 (before numpy)
