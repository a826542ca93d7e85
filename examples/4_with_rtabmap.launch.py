"""
Map with RTAB-Map on what one camera sees: depth, colour and odometry come from this package.

RTAB-Map (`sudo apt-get install ros-$ROS_DISTRO-rtabmap-slam`) closes loops and publishes the edge
`map` -> odometry. Every argument of stream.launch.py may be given as well:

    ros2 launch examples/4_with_rtabmap.launch.py image_topic:=/camera/image_raw \
        checkpoint:=weights.safetensors scale_mode:=odometry odom_hint_topic:=/wheel/odometry

RTAB-Map takes lengths for metres: choose a `scale_mode`, unless the network's unit is the metre.
TF must know where the camera is on `base_frame`. A camera without a robot is given a base:

    ros2 run tf2_ros static_transform_publisher --yaw -1.5708 --roll -1.5708 \
        --frame-id base_link --child-frame-id <frame_id of the images>

A recording is played with `bag:=recording use_sim_time:=true`. RTAB-Map goes on with the map in
~/.ros/rtabmap.db if there is one; `database_path` names another.
"""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

NODE = 'xsvggt'  # its topics are /xsvggt/...
STREAM = ('xsvggt_ros', 'launch', 'stream.launch.py')


def generate_launch_description() -> LaunchDescription:
    """Return the node of this package, and RTAB-Map on its outputs."""
    base_frame, sim_time, database = (
        LaunchConfiguration(name) for name in ('base_frame', 'use_sim_time', 'database_path'))
    return LaunchDescription([
        DeclareLaunchArgument('base_frame', default_value='base_link',
                              description='Frame of the robot whose way is mapped'),
        DeclareLaunchArgument('use_sim_time', default_value='false',
                              description='Whether time comes from /clock: true or false'),
        DeclareLaunchArgument('database_path', default_value='~/.ros/rtabmap.db',
                              description='Where RTAB-Map keeps its map'),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(PathJoinSubstitution(
                [FindPackageShare(STREAM[0]), *STREAM[1:]])),
            launch_arguments={
                'node_name': NODE, 'namespace': '/', 'base_frame': base_frame,
                'use_sim_time': sim_time,
                'publish_map_tf': 'false',  # RTAB-Map does
                'on_exit': 'shutdown',      # RTAB-Map ends, too, and saves its map
            }.items()),
        Node(
            package='rtabmap_slam', executable='rtabmap', output='screen',
            parameters=[{
                'frame_id': ParameterValue(base_frame, value_type=str),
                'use_sim_time': ParameterValue(sim_time, value_type=bool),
                'database_path': ParameterValue(database, value_type=str),
                'subscribe_depth': True, 'subscribe_rgb': True,
                # All four carry the header stamp of their image, to the nanosecond.
                'approx_sync': False,
            }],
            remappings=[
                ('rgb/image', f'/{NODE}/rgb/image_rect_color'),
                ('rgb/camera_info', f'/{NODE}/rgb/camera_info'),
                ('depth/image', f'/{NODE}/depth/image_rect'),
                ('odom', f'/{NODE}/odometry')]),
    ])
