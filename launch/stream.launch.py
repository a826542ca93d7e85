"""
Start the stream node on a camera or on a recording, with RViz if wanted.

    ros2 launch xsvggt_ros stream.launch.py checkpoint:=weights.safetensors rviz:=true

These are the settings that people change most; the rest is in `config/stream.yaml`. An argument
that is left empty does not touch what the parameter file says.
"""

import os
from pathlib import Path
from typing import List

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (DeclareLaunchArgument, ExecuteProcess, OpaqueFunction,
                            SetEnvironmentVariable, Shutdown)
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
import yaml

# This file is installed beside config/, and lies beside it in the source tree.
CONFIG = Path(__file__).resolve().parents[1] / 'config'

# Argument: parameter of the node, its type, description.
PARAMETERS = {
    'checkpoint': ('model.checkpoint', str, 'Weights: path of a .safetensors, .pt or .pth file, '
                   'or "small", which comes with the package and knows synthetic rooms only'),
    'device': ('model.device', str, 'Where the network runs: auto, cpu, cuda or cuda:N'),
    'image_size': ('model.image_size', int, 'Width in pixels to which images are resized, a '
                   'multiple of 14; smaller is faster and coarser'),
    'max_tokens': ('cache.max_tokens', int, 'Budget of the KV cache, in tokens per layer'),
    'policy': ('cache.policy', str, 'Which tokens stay in a full cache: xstream, '
               'xstream_per_head, value_aware, frame_coverage, sliding_window, random, or full '
               '(no budget)'),
    'memory_budget_mb': ('cache.memory_budget_mb', float, 'Memory for the caches in MB, '
                         'instead of max_tokens'),
    'quantization': ('cache.quantization', str, 'How the cache is packed: int4, int8 or none'),
    'image_transport': ('image_transport', str, 'raw, or compressed for '
                        'sensor_msgs/CompressedImage on <image_topic>/compressed'),
    'image_topics': ('image_topics', List[str], 'Images of a rig instead of image_topic, the '
                     "reference camera first: ['/left/image_raw','/right/image_raw']"),
    'odom_frame': ('odom_frame', str, 'Frame in which the camera is tracked'),
    'base_frame': ('base_frame', str, 'Frame of the robot whose pose is published, for example '
                   'base_link; empty: that of the images'),
    'publish_tf': ('publish_tf', bool, 'Whether to publish the edge from odom_frame to the frame '
                   'of the images: true or false'),
    'invert_tf': ('invert_tf', bool, 'Whether odom_frame hangs below the robot: true for robots '
                  'whose frames have a root already, or false'),
    'autostart': ('autostart', bool, 'Whether the node configures and activates itself: true, or '
                  'false if a lifecycle manager does it'),
    'use_sim_time': ('use_sim_time', bool, 'Whether time comes from /clock: true or false; empty: '
                     'true if bag is set'),
}

# Other arguments: default, description.
OTHERS = {
    'image_topic': ('/camera/image_raw', 'Images to reconstruct (sensor_msgs/Image)'),
    'camera_info_topic': ('', 'Calibration of that camera; empty: camera_info beside image_topic'),
    'params_file': (str(CONFIG / 'stream.yaml'), 'Parameter file of the node'),
    'namespace': ('', 'Namespace of the node and its topics'),
    'log_level': ('info', 'Least severity of log messages: debug, info, warn, error or fatal'),
    'bag': ('', 'Recording (rosbag2) to play; empty: a live camera'),
    'bag_rate': ('1.0', 'Speed of the recording, 1.0 as recorded'),
    'bag_delay': ('5.0', 'Seconds before the recording starts: time for loading the weights'),
    'rviz': ('false', 'Whether to show points, TF and images in RViz: true or false'),
    'rviz_config': (str(CONFIG / 'stream.rviz'), 'What RViz shows'),
}


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and what they start."""
    arguments = {**{name: (default, text) for name, (default, text) in OTHERS.items()},
                 **{name: ('', text) for name, (_, _, text) in PARAMETERS.items()}}
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, (default, text) in arguments.items()),
        *middleware_profile(),
        OpaqueFunction(function=start),
    ])


def middleware_profile() -> list[LaunchDescriptionEntity]:
    """Give Fast DDS a profile that loses no images, unless the user has chosen one."""
    before_kilted, since_kilted = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
    if before_kilted in os.environ or since_kilted in os.environ:
        return []
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
    variable = before_kilted if old else since_kilted
    return [SetEnvironmentVariable(variable, str(CONFIG / 'fastdds.xml'))]


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return node, recording and RViz, now that the arguments are known."""
    argument = {name: LaunchConfiguration(name).perform(context)
                for name in [*PARAMETERS, *OTHERS]}
    image = argument['image_topic']
    camera_info = argument['camera_info_topic'] or f'{image.rpartition("/")[0]}/camera_info'
    parameters = {parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)
                  for name, (parameter, kind, _) in PARAMETERS.items() if argument[name]}
    if argument['bag']:
        parameters.setdefault('use_sim_time', True)
    node = Node(
        package='xsvggt_ros', executable='stream_node', name='xsvggt',
        namespace=argument['namespace'], output='screen', emulate_tty=True,
        parameters=[argument['params_file'], *([parameters] if parameters else [])],
        remappings=[('image', image), ('camera_info', camera_info)],
        ros_arguments=['--log-level', argument['log_level']],
        on_exit=Shutdown(reason='the stream node has ended'),
    )
    entities = [node, rviz(argument, use_sim_time=parameters.get('use_sim_time', False))]
    if argument['bag']:
        entities.append(ExecuteProcess(
            cmd=['ros2', 'bag', 'play', argument['bag'], '--clock', '--rate', argument['bag_rate'],
                 '--delay', argument['bag_delay']], output='screen'))
    return entities


def rviz(argument: dict[str, str], use_sim_time: ParameterValue | bool) -> Node:
    """Return RViz, its absolute topics and fixed frame led to those of this node."""
    root = '/'.join(['', *filter(None, argument['namespace'].split('/'))])
    image = (yaml.safe_load(argument['image_topics']) or [argument['image_topic']])[0]
    frame = ['-f', argument['odom_frame']] if argument['odom_frame'] else []
    return Node(
        package='rviz2', executable='rviz2', condition=IfCondition(LaunchConfiguration('rviz')),
        arguments=['-d', argument['rviz_config'], *frame],
        parameters=[{'use_sim_time': use_sim_time}],
        remappings=[('/xsvggt/points', f'{root}/xsvggt/points'),
                    ('/xsvggt/map_points', f'{root}/xsvggt/map_points'),
                    ('/xsvggt/odometry', f'{root}/xsvggt/odometry'),
                    ('/camera/image_raw', image if image[:1] == '/' else f'{root}/{image}')],
    )
