"""Services, parameters and transitions at bad moments."""

import time

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Failure, fault

GROUP = 'services'
MANY = 100
QUEUE = 5   # requests that a service must not lose: half of what the middleware holds


@fault(GROUP, 'begins a new stream; the map has nothing of the old one', new_stream=True)
def resets_while_images_come(harness: Harness) -> None:
    """Call ~/reset five times, and save the map of the new stream."""
    for _ in range(5):
        if not harness.trigger('reset').success:
            raise Failure('wrong', '~/reset failed')
        harness.await_shots(harness.rng.randint(0, 3))
    harness.tracked()
    harness.await_shots(5)
    harness.save_map()


@fault(GROUP, 'answers as many as its queues hold, and whoever comes next', new_stream=True)
def a_hundred_calls_at_once(harness: Harness) -> None:
    """Call ~/reset, ~/save_map and ~/enable a hundred times without waiting."""
    requests = {'reset': (Trigger, Trigger.Request()), 'save_map': (Trigger, Trigger.Request()),
                'enable': (SetBool, SetBool.Request())}
    futures: dict[str, list[Future]] = {name: [] for name in requests}
    for _ in range(MANY):
        name = harness.rng.choice(list(requests))
        kind, request = requests[name]
        futures[name].append(harness.ask(kind, name, request))
    try:
        for name, asked in futures.items():
            # The middleware replaces what does not fit into the queue of a service.
            wanted = min(len(asked), QUEUE)
            for number in range(1, wanted + 1):
                harness.until(lambda: sum(future.done() for future in asked) >= number,
                              f'answer {number} of {wanted} of {name}')
    finally:
        harness.enable(True)
    harness.trigger('reset')
    harness.check_maps()


@fault(GROUP, 'saves whole maps')
def maps_saved_while_images_come(harness: Harness) -> None:
    """Call ~/save_map again and again."""
    for _ in range(4):
        harness.save_map()


@fault(GROUP, 'takes every change')
def parameters_at_every_image(harness: Harness) -> None:
    """Change a parameter with every image."""
    values = {'cloud.stride': (1, 2, 3, 8), 'cloud.confidence_percentile': (0.0, 20.0, 99.0),
              'cloud.source': ('depth', 'points'), 'cloud.max_range': (0.0, 0.001, 5.0),
              'cloud.max_error': (0.0, 0.01, 0.5),
              'cloud.max_rate': (0.0, 1.0), 'input.max_rate': (0.0, 3.0),
              'input.keyframe_stride': (1, 2, 7), 'deadline_ms': (0.0, 60000.0),
              'map.publish_period': (0.1, 2.0), 'publish_tf': (True, False)}
    for _ in range(20):
        name = harness.rng.choice(list(values))
        if not harness.set(name, harness.rng.choice(values[name])):
            raise Failure('wrong', f'{name} was not changed')
        harness.await_shots(1)
    for name, (usual, *_) in values.items():
        harness.set(name, usual)


@fault(GROUP, 'refuses them')
def illegal_parameters(harness: Harness) -> None:
    """Set parameters to values beyond their ranges, of wrong types, or while they are fixed."""
    values = {'cloud.stride': (0, -1, 2 ** 40), 'cloud.confidence_percentile': (float('nan'), 1e9),
              'deadline_ms': (float('inf'), -1.0), 'scale.value': (0.0, 'metre'),
              'model.image_size': (28,), 'cache.policy': ('full',), 'cloud.source': ('', 'x')}
    for name, wrong in values.items():
        for value in wrong:
            if harness.set(name, value):
                raise Failure('wrong', f'{name} took {value}')


@fault(GROUP, 'refuses what is wrong; says which')
def many_parameters_of_which_one_is_wrong(harness: Harness) -> None:
    """Set several parameters in a call, the last of them to nonsense."""
    request = SetParameters.Request(parameters=[
        Parameter(name, value=value).to_parameter_msg()
        for name, value in (('cloud.stride', 2), ('cloud.stride', 1), ('no.such.thing', 1))])
    results = harness.call(SetParameters, 'set_parameters', request).results
    if results[-1].successful:
        raise Failure('wrong', 'a parameter that does not exist was set')


# Lifecycle ---------------------------------------------------------------------------------------

@fault('lifecycle', 'stops and begins a new stream', new_stream=True)
def deactivated_and_activated(harness: Harness) -> None:
    """Deactivate and activate the node three times, at random moments."""
    for _ in range(3):
        harness.change('deactivate')
        harness.observer.expect_restart()
        time.sleep(harness.rng.uniform(0, 0.1))
        harness.change('activate')
        harness.await_shots(harness.rng.randint(0, 5))


@fault('lifecycle', 'loads the network anew', new_stream=True)
def all_transitions(harness: Harness) -> None:
    """Deactivate, clean up, configure and activate."""
    harness.change('deactivate')
    harness.observer.expect_restart()
    for transition in ('cleanup', 'configure', 'activate'):
        harness.change(transition)


@fault('lifecycle', 'refuses them and stays as it is')
def transitions_that_are_not_allowed(harness: Harness) -> None:
    """Ask an active node to activate, configure and clean up."""
    for transition in ('activate', 'configure', 'cleanup'):
        if harness.try_change(transition):
            raise Failure('wrong', f'{transition} of an active node succeeded')


@fault('lifecycle', 'stays unconfigured and says why; then it can be corrected', new_stream=True)
def an_illegal_topic_name(harness: Harness) -> None:
    """Configure the node with image topics that cannot be, then without."""
    harness.change('deactivate')
    harness.observer.expect_restart()
    harness.change('cleanup')
    if harness.set('image_topics', ['not a topic!', '9wrong']):
        if harness.try_change('configure') and harness.try_change('activate'):
            raise Failure('wrong', 'the node is active on topics that cannot be')
        harness.await_complaint('Model')
        harness.set('image_topics', [''])
    if harness.state() == 'inactive':
        harness.change('cleanup')
    harness.activate()


@fault('lifecycle', 'undoes the transition and says why; the next one succeeds', new_stream=True)
def a_transition_that_fails_half_way(harness: Harness) -> None:
    """Have loading, the publishers or the first steps of activation fail."""
    point = harness.rng.choice(('load', 'publishers', 'begin'))
    effect = harness.rng.choice(('exception', 'memory error', 'out of memory'))
    harness.change('deactivate')
    harness.observer.expect_restart()
    harness.change('cleanup')
    with harness.broken(point, effect) as fired:
        done = harness.try_change('configure') and harness.try_change('activate')
        if fired() and done:
            raise Failure('wrong', f'{effect} in "{point}" went unnoticed')
    harness.await_complaint('Model')
    harness.activate()
