"""
Start the stream node on a camera or on a recording, with RViz if wanted.

    ros2 launch xsvggt_ros stream.launch.py checkpoint:=weights.safetensors rviz:=true

These are the settings that people change most; the rest is in `config/stream.yaml`. What the
parameter file says counts for every parameter whose argument is not given. The arguments stand in
`xsvggt_ros/launch_arguments.py`.

The launch ends with exit code 1 if an argument is wrong, the node fails, or the recording or
camera cannot be opened; a camera that is unplugged later is waited for. Included by another launch
file it ends what it has started itself and nothing else, unless `on_exit:=shutdown`.
"""

from functools import partial
import os
from pathlib import Path
import shutil

from ament_index_python.packages import get_package_prefix, PackageNotFoundError
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

import launch
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from xsvggt_ros import launch_arguments
from xsvggt_ros.launch_arguments import camera_info_beside, full_name, PARAMETERS, Value
from xsvggt_ros.launch_names import mistyped

# This file is installed beside config/, and lies beside it in the source tree.
CONFIG = Path(__file__).resolve().parents[1] / 'config'
# Argument: default, description.
OTHERS = {name: (str(CONFIG / argument.text) if name in launch_arguments.FILES else argument.text,
                 argument.help) for name, argument in launch_arguments.OTHERS.items()}
RESPAWN_DELAY = 2.0  # seconds


def generate_launch_description() -> LaunchDescription:
    """Return the arguments, and what they start."""
    defaults = {name: (argument.text, argument.help) for name, argument in PARAMETERS.items()}
    not_given: set[str] = set()
    return LaunchDescription([
        OpaqueFunction(function=find_not_given, args=[not_given]),
        *(DeclareLaunchArgument(name, default_value=default, description=text,
                                choices=choices(name))
          for name, (default, text) in (OTHERS | defaults).items()),
        *middleware_profile(),
        OpaqueFunction(function=start, args=[not_given]),
    ])


def choices(name: str) -> list[str] | None:
    """Return the allowed values, unless they are true and false: launch would refuse True."""
    allowed = launch_arguments.ALL[name].choices
    return list(allowed) if allowed and 'true' not in allowed else None


def middleware_profile() -> list[LaunchDescriptionEntity]:
    """Give Fast DDS a profile that loses no images, unless the user has chosen one."""
    before_kilted, since_kilted = 'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'
    if before_kilted in os.environ or since_kilted in os.environ:
        return []
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
    variable = before_kilted if old else since_kilted
    return [SetEnvironmentVariable(variable, str(CONFIG / 'fastdds.xml'))]


def find_not_given(context: LaunchContext, not_given: set[str]) -> None:
    """Collect the arguments that nobody has given, before they are declared with defaults."""
    not_given.clear()
    not_given.update(launch_arguments.ALL.keys() - context.launch_configurations.keys())


def start(
    context: LaunchContext, not_given: set[str] = frozenset(),
) -> list[LaunchDescriptionEntity]:
    """Return node, recording and RViz, now that the arguments are known, or refuse them."""
    texts = {name: LaunchConfiguration(name).perform(context) for name in launch_arguments.ALL}
    for name in not_given:
        # A default must not pass for given where this file is included once more.
        context.launch_configurations.pop(name, None)
    given = {name: text for name, text in texts.items() if text and name not in not_given}
    defaults = {name: argument.default for name, argument in launch_arguments.OTHERS.items()}
    defaults |= {name: OTHERS[name][0] for name in launch_arguments.FILES}
    try:
        values = defaults | launch_arguments.read(given)
        launch_arguments.check_files(values)
        check_programs(values)
    except ValueError as error:
        return fail(context, str(error), texts['on_exit'], [])
    for line in (*launch_arguments.without_effect(values),
                 *mistyped(context.launch_configurations)):
        launch.logging.get_logger('stream.launch.py').warning(line)

    started: list[ExecuteProcess] = []
    started += [stream_node(values, started), *recording(values, started),
                *rviz(context, values)]
    return list(started)


def check_programs(values: dict[str, Value]) -> None:
    """Raise ValueError for programs that are asked for and not installed."""
    if values['rviz']:
        try:
            get_package_prefix('rviz2')
        except PackageNotFoundError:
            distribution = os.environ.get('ROS_DISTRO', '<distribution>')
            raise ValueError(f'rviz:=true, but RViz is not installed: sudo apt-get install '
                             f'ros-{distribution}-rviz2, or leave rviz away') from None
    if values['bag'] and shutil.which('ros2') is None:
        raise ValueError('bag is given, but there is no program ros2 to play it')


def stream_node(values: dict[str, Value], started: list[ExecuteProcess]) -> Node:
    """Return the node; when it ends, so does all that is in `started` by then."""
    image = values['image_topic']
    if values.get('image_transport') == 'compressed':
        image = image.removesuffix('/compressed')  # the node adds it
    camera_info = values['camera_info_topic']
    return Node(
        package='xsvggt_ros', executable='stream_node', name=values['node_name'],
        namespace=values['namespace'].rstrip('/'), output='screen', emulate_tty=True,
        parameters=[launch_arguments.expanded(values['params_file']), node_parameters(values)],
        remappings=[
            ('image', image),
            ('camera_info', camera_info_beside(image) if camera_info == 'auto' else camera_info),
            ('odom_hint', values['odom_hint_topic']),
            ('depth_hint', values['depth_hint_topic'])],
        ros_arguments=['--log-level', values['log_level']],
        respawn=values['respawn'], respawn_delay=RESPAWN_DELAY,
        on_exit=partial(when_node_has_ended, values=values, started=started))


def node_parameters(values: dict[str, Value]) -> dict[str, ParameterValue]:
    """Return what overrides the parameter file."""
    parameters = {
        argument.parameter: values[name] for name, argument in PARAMETERS.items()
        if name in values}
    parameters['exit_on_failure'] = values['exit_on_failure']
    sim_time = uses_sim_time(values)
    if sim_time is not None:
        parameters['use_sim_time'] = sim_time
    return {name: ParameterValue(value, value_type=list[str] if isinstance(value, list)
                                 else type(value)) for name, value in parameters.items()}


def uses_sim_time(values: dict[str, Value]) -> bool | None:
    """Return whether time comes from /clock; None: as the parameter file says."""
    if values['use_sim_time'] == 'auto':
        return True if values['bag'] else None
    return values['use_sim_time'] == 'true'


def recording(
    values: dict[str, Value], started: list[ExecuteProcess],
) -> list[ExecuteProcess]:
    """Return what plays the recording, if there is one; when it fails, `started` ends."""
    if values['input']:
        return [published(values, started)]
    if not values['bag']:
        return []
    return [ExecuteProcess(
        cmd=['ros2', 'bag', 'play', launch_arguments.expanded(values['bag']), '--clock',
             '--rate', str(values['bag_rate']), '--delay', str(values['bag_delay']),
             *(['--loop'] if values['loop'] else [])],
        output='screen',
        on_exit=partial(when_recording_has_ended, values=values, started=started))]


def published(values: dict[str, Value], started: list[ExecuteProcess]) -> Node:
    """Return what publishes the images of a camera, a video or a folder once the node listens."""
    given, calibration = values['input'], values['calibration']
    is_camera = launch_arguments.is_camera(given)
    return Node(
        package='xsvggt_ros', executable='camera', namespace=values['namespace'].rstrip('/'),
        arguments=[
            '--input', given if is_camera else launch_arguments.expanded(given),
            '--topic', values['image_topic'], '--wait-for-subscriber', '1',
            # As of now: the transforms of a robot that is on are. And an unplugged camera does not
            # end the node, which has the map.
            '--reconnect' if is_camera else '--restamp',
            *(['--input-topic', values['input_topic']] if values['input_topic'] else []),
            *(['--calibration', launch_arguments.expanded(calibration)] if calibration else []),
            *(['--loop'] if values['loop'] and not is_camera else [])],
        output='screen',
        on_exit=partial(when_recording_has_ended, values=values, started=started))


def rviz(context: LaunchContext, values: dict[str, Value]) -> list[Node]:
    """Return RViz if it is wanted, its topics and fixed frame led to those of this node."""
    if not values['rviz']:
        return []
    pushed = context.launch_configurations.get('ros_namespace', '')  # by who includes this file
    name = values['namespace']
    root = name if name.startswith('/') else full_name(pushed, name)
    private = full_name(root, values['node_name'])
    image = (list(filter(None, values.get('image_topics', []))) or [values['image_topic']])[0]
    frame = ['-f', values['odom_frame']] if 'odom_frame' in values else []
    return [Node(
        package='rviz2', executable='rviz2',
        arguments=['-d', launch_arguments.expanded(values['rviz_config']), *frame],
        parameters=[{'use_sim_time': bool(uses_sim_time(values))}],
        remappings=[
            *((f'/xsvggt/{topic}', f'{private}/{topic}')
              for topic in ('points', 'map_points', 'odometry')),
            ('/camera/image_raw', full_name(root, image))])]


def when_node_has_ended(
    event: 'launch.events.process.ProcessExited', context: LaunchContext, *,
    values: dict[str, Value], started: list[ExecuteProcess],
) -> list[LaunchDescriptionEntity]:
    """Stop what was started for the node, and make its failure that of the launch."""
    if context.is_shutdown or values['respawn']:
        return []
    rest = [action for action in started if action is not event.action]
    started.clear()   # the end of the others is told by nobody
    if event.returncode != 0:
        message = f'the node has ended with exit code {event.returncode}'
        return fail(context, message, values['on_exit'], rest)
    return stop(values['on_exit'], rest)


def when_recording_has_ended(
    event: 'launch.events.process.ProcessExited', context: LaunchContext, *,
    values: dict[str, Value], started: list[ExecuteProcess],
) -> list[LaunchDescriptionEntity]:
    """Leave the node to those who want to see and save its map, if there was a recording."""
    if context.is_shutdown or not started:   # told to end, because the node has ended
        return []
    if event.returncode != 0:
        what, who = ('bag', 'ros2 bag') if values['bag'] else ('input', 'the camera')
        message = (f"{what}:='{values[what]}' cannot be played: {who} has ended with exit code "
                   f'{event.returncode}')
        rest = [action for action in started if action is not event.action]
        return fail(context, message, values['on_exit'], rest)
    launch.logging.get_logger('stream.launch.py').info(
        'the recording has ended; the node goes on, so that its map can be seen and saved')
    return []


def fail(
    context: LaunchContext, message: str, on_exit: str, started: list[ExecuteProcess],
) -> list[LaunchDescriptionEntity]:
    """
    Say what is wrong, in one line, and have the launch end with exit code 1.

    An exception would do that too, but also end a launch that includes this one, and leave
    processes behind that were started in the same moment.
    """
    launch.logging.get_logger('asyncio')  # so that the line looks like launch's others
    context.asyncio_loop.call_exception_handler({'message': f'stream.launch.py: {message}'})
    return stop(on_exit, started)


def stop(on_exit: str, started: list[ExecuteProcess]) -> list[LaunchDescriptionEntity]:
    """End what this file has started, or everything; a launch with nothing left ends by itself."""
    if on_exit == 'shutdown':
        return [Shutdown(reason='stream.launch.py has ended, and on_exit is shutdown')]
    return [launch.actions.EmitEvent(event=launch.events.process.ShutdownProcess(
        process_matcher=launch.events.matches_action(action))) for action in started]
