"""Which tests of the node do not run with the network of `--network`, and why."""

SHIPPED = 'poses and metres of a room: only the shipped weights were trained to see one'

# By file. Of the others, all tests that start a node run with every one of `tiny_stream.NETWORKS`.
REASONS = {
    'test_camera.py': 'the camera publisher alone: no network',
    'test_demo.py': SHIPPED,
    'test_launch.py': 'what launch files say: no network',
    'test_launch_runs.py': 'scripts in place of the node: no network',
    'test_launch_arguments.py': 'what launch files say: no network',
    'test_lingbot_node.py': 'what only LingBot-Map can or cannot do: with it in any case',
    'test_map_output.py': 'the map without a node: no network',
    'test_node_bench.py': 'times the shipped weights',
    'test_node_diagnostics.py': 'words of the diagnostics: no network',
    'test_node_failures.py': 'an engine without a network, whose answers are known',
    'test_node_localization.py': SHIPPED,
    'test_node_loops.py': SHIPPED,
    'test_node_odometry.py': SHIPPED,
    'test_node_opening.py': 'an engine without a network, whose answers are known',
    'test_node_overlap.py': 'an engine without a network, whose answers are known',
    'test_node_start.py': 'the node ends before an image, or before it has a network',
    'test_node_trajectory.py': SHIPPED,
    'test_soak.py': 'parts of the soak test without a network',
    'test_soak_report.py': 'parts of the soak test without a network',
    'test_soak_short.py': SHIPPED,
}
ELSEWHERE = 'a part of the node without a network'


def why_not(file: str) -> str:
    """Return why a test without the fixture `network` has none, by its file's name."""
    return REASONS.get(file, ELSEWHERE)
