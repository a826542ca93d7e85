"""
The least of launch and launch_ros that stream.launch.py needs to say what it would start.

Neither comes as a wheel; where they are installed, test_launch_runs.py runs the real ones.
"""

from pathlib import Path
import sys
from types import ModuleType, SimpleNamespace

LAUNCH = Path(__file__).parents[1] / 'launch' / 'stream.launch.py'


class Action:
    """Remembers how it was made."""

    def __init__(self, *args, **options):
        self.kind, self.args, self.options = type(self).__name__, args, options


class Context:
    """Arguments, and what a launch is told of failures."""

    def __init__(self, **configurations):
        self.launch_configurations = configurations
        self.failures = []
        self.is_shutdown = False
        self.asyncio_loop = SimpleNamespace(
            call_exception_handler=lambda context: self.failures.append(context['message']))


class LaunchConfiguration:
    """The value of an argument."""

    def __init__(self, name):
        self.name = name

    def perform(self, context):
        """Return the value."""
        return context.launch_configurations[self.name]


class Logs:
    """What launch has logged."""

    def __init__(self):
        self.lines = []

    def get_logger(self, name):
        """Return a logger of any name."""
        return SimpleNamespace(warning=self.lines.append, info=self.lines.append)


def action(name):
    """Return a class of actions."""
    return type(name, (Action,), {})


def load(monkeypatch):
    """Return the launch file as a module, with stand-ins for what it imports; and their logs."""
    def module(name, **members):
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    logs = Logs()
    actions = {name: action(name) for name in (
        'DeclareLaunchArgument', 'EmitEvent', 'ExecuteProcess', 'OpaqueFunction',
        'SetEnvironmentVariable', 'Shutdown')}
    events = SimpleNamespace(
        matches_action=lambda target: target,
        process=SimpleNamespace(ShutdownProcess=lambda process_matcher: process_matcher))
    module('launch', LaunchContext=Context, LaunchDescription=list, LaunchDescriptionEntity=Action,
           actions=module('launch.actions', **actions), events=events, logging=logs)
    module('launch.substitutions', LaunchConfiguration=LaunchConfiguration)
    module('launch_ros')
    module('launch_ros.actions', Node=action('Node'))
    module('launch_ros.parameter_descriptions',
           ParameterValue=lambda value, value_type: (value, value_type))
    loaded = ModuleType('stream_launch')
    loaded.__file__ = str(LAUNCH)
    exec(compile(LAUNCH.read_text(), str(LAUNCH), 'exec'), vars(loaded))
    return loaded, logs.lines
