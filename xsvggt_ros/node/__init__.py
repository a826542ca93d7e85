"""The ROS 2 node."""

import xsvggt_ros.kernels.process_environment  # noqa: F401 (before numpy)
