#!/bin/bash
# Runs a command with ROS and this package found; `xsvggt ...` too.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /workspace/install/setup.bash
if [ "$1" = xsvggt ]; then
  shift
  exec python3 -m xsvggt_ros.cli.main "$@"
fi
exec "$@"
