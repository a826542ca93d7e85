"""Look at this machine: what runs here, how quickly, and what to mend first."""

import argparse
from pathlib import Path

from xsvggt_ros.console.arguments import add_device_arguments, image_size, positive_int
from xsvggt_ros.console.command import run_command

EPILOG = """\
example: xsvggt doctor --checkpoint checkpoints.pth --image 1280x720

exit codes: 0 nothing is worse than a warning, 1 something will not work (with --strict: or a
warning), 2 wrong arguments, 130 after Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to `parser`."""
    parser.add_argument('--checkpoint', default='small', metavar='FILE',
                        help="weights to try (default: 'small', which comes with the package)")
    parser.add_argument('--size', default='auto',
                        help='size of the network, for --checkpoint random: what model.size takes '
                             '(default: auto, what the weights say)')
    parser.add_argument('--image', type=image_size, default=(640, 480), metavar='WxH',
                        help="the camera's image size (default: 640x480)")
    parser.add_argument('--max-tokens', type=positive_int, default=7300, metavar='N',
                        help="budget of the KV cache per layer (default: 7300, as the node's)")
    parser.add_argument('--no-network', action='store_true',
                        help='leave checkpoint and speed aside')
    parser.add_argument('--strict', action='store_true', help='fail on warnings too')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what was found as JSON')
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_device_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Look at what the options say; return the exit code."""
    def work() -> int:
        # Everything slow to import comes after the handlers, so that Ctrl-C is always quiet.
        from xsvggt_ros.console.measurement import check_writable, write_json
        from xsvggt_ros.doctor.finding import lines_of, worst
        from xsvggt_ros.doctor.machine import machine_findings
        from xsvggt_ros.doctor.speed import network_findings

        check_writable(options.json)
        findings = machine_findings()
        if not options.no_network:
            findings += network_findings(options)
        print('\n'.join(lines_of(findings)))
        level = worst(findings)
        if options.json is not None:
            write_json(options.json, {'worst': level, 'findings': [
                finding.as_json() for finding in findings]})
        return int(level == 'error' or (options.strict and level == 'warning'))

    return run_command('doctor', work)
