"""The ROS 2 node."""

import xsvggt_ros.kernels.blas_threads  # noqa: F401 (before numpy)
