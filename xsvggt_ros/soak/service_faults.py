"""Services, parameters and transitions at bad moments."""

import time

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.soak.kinds import Failure, fault
from xsvggt_ros.soak.stage import Stage

GROUP = 'services'
MANY = 100
QUEUE = 5   # requests that a service must not lose: half of what the middleware holds


@fault(GROUP, 'begins a new stream; the map has nothing of the old one', new_stream=True)
def resets_while_images_come(stage: Stage) -> None:
    """Call ~/reset five times, and save the map of the new stream."""
    for _ in range(5):
        if not stage.trigger('reset').success:
            raise Failure('wrong', '~/reset failed')
        stage.shots(stage.rng.randint(0, 3))
    stage.tracked()
    stage.shots(5)
    stage.save_map()


@fault(GROUP, 'answers as many as its queues hold, and whoever comes next', new_stream=True)
def a_hundred_calls_at_once(stage: Stage) -> None:
    """Call ~/reset, ~/save_map and ~/enable a hundred times without waiting."""
    requests = {'reset': (Trigger, Trigger.Request()), 'save_map': (Trigger, Trigger.Request()),
                'enable': (SetBool, SetBool.Request())}
    futures: dict[str, list[Future]] = {name: [] for name in requests}
    for _ in range(MANY):
        name = stage.rng.choice(list(requests))
        kind, request = requests[name]
        futures[name].append(stage.ask(kind, name, request))
    try:
        for name, asked in futures.items():
            # The middleware replaces what does not fit into the queue of a service.
            wanted = min(len(asked), QUEUE)
            for number in range(1, wanted + 1):
                stage.until(lambda: sum(future.done() for future in asked) >= number,
                            f'answer {number} of {wanted} of {name}')
    finally:
        stage.enable(True)
    stage.trigger('reset')
    stage.check_maps()


@fault(GROUP, 'saves whole maps')
def maps_saved_while_images_come(stage: Stage) -> None:
    """Call ~/save_map again and again."""
    for _ in range(4):
        stage.save_map()


@fault(GROUP, 'takes every change')
def parameters_at_every_image(stage: Stage) -> None:
    """Change a parameter with every image."""
    values = {'cloud.stride': (1, 2, 3, 8), 'cloud.confidence_percentile': (0.0, 20.0, 99.0),
              'cloud.source': ('depth', 'points'), 'cloud.max_range': (0.0, 0.001, 5.0),
              'cloud.max_error': (0.0, 0.01, 0.5),
              'cloud.max_rate': (0.0, 1.0), 'input.max_rate': (0.0, 3.0),
              'input.keyframe_stride': (1, 2, 7), 'deadline_ms': (0.0, 60000.0),
              'map.publish_period': (0.1, 2.0), 'publish_tf': (True, False)}
    for _ in range(20):
        name = stage.rng.choice(list(values))
        if not stage.set(name, stage.rng.choice(values[name])):
            raise Failure('wrong', f'{name} was not changed')
        stage.shots(1)
    for name, (usual, *_) in values.items():
        stage.set(name, usual)


@fault(GROUP, 'refuses them')
def illegal_parameters(stage: Stage) -> None:
    """Set parameters to values beyond their ranges, of wrong types, or while they are fixed."""
    values = {'cloud.stride': (0, -1, 2 ** 40), 'cloud.confidence_percentile': (float('nan'), 1e9),
              'deadline_ms': (float('inf'), -1.0), 'scale.value': (0.0, 'metre'),
              'model.image_size': (28,), 'cache.policy': ('full',), 'cloud.source': ('', 'x')}
    for name, wrong in values.items():
        for value in wrong:
            if stage.set(name, value):
                raise Failure('wrong', f'{name} took {value}')


@fault(GROUP, 'refuses what is wrong; says which')
def many_parameters_of_which_one_is_wrong(stage: Stage) -> None:
    """Set several parameters in a call, the last of them to nonsense."""
    request = SetParameters.Request(parameters=[
        Parameter(name, value=value).to_parameter_msg()
        for name, value in (('cloud.stride', 2), ('cloud.stride', 1), ('no.such.thing', 1))])
    results = stage.call(SetParameters, 'set_parameters', request).results
    if results[-1].successful:
        raise Failure('wrong', 'a parameter that does not exist was set')


# Lifecycle ---------------------------------------------------------------------------------------

@fault('lifecycle', 'stops and begins a new stream', new_stream=True)
def deactivated_and_activated(stage: Stage) -> None:
    """Deactivate and activate the node three times, at random moments."""
    for _ in range(3):
        stage.change('deactivate')
        stage.observer.expect_new_life()
        time.sleep(stage.rng.uniform(0, 0.1))
        stage.change('activate')
        stage.shots(stage.rng.randint(0, 5))


@fault('lifecycle', 'loads the network anew', new_stream=True)
def all_transitions(stage: Stage) -> None:
    """Deactivate, clean up, configure and activate."""
    stage.change('deactivate')
    stage.observer.expect_new_life()
    for transition in ('cleanup', 'configure', 'activate'):
        stage.change(transition)


@fault('lifecycle', 'refuses them and stays as it is')
def transitions_that_are_not_allowed(stage: Stage) -> None:
    """Ask an active node to activate, configure and clean up."""
    for transition in ('activate', 'configure', 'cleanup'):
        if stage.try_change(transition):
            raise Failure('wrong', f'{transition} of an active node succeeded')


@fault('lifecycle', 'stays unconfigured and says why; then it can be corrected', new_stream=True)
def an_illegal_topic_name(stage: Stage) -> None:
    """Configure the node with image topics that cannot be, then without."""
    stage.change('deactivate')
    stage.observer.expect_new_life()
    stage.change('cleanup')
    if stage.set('image_topics', ['not a topic!', '9wrong']):
        if stage.try_change('configure') and stage.try_change('activate'):
            raise Failure('wrong', 'the node is active on topics that cannot be')
        stage.says('Model')
        stage.set('image_topics', [''])
    if stage.state() == 'inactive':
        stage.change('cleanup')
    stage.activate()


@fault('lifecycle', 'undoes the transition and says why; the next one succeeds', new_stream=True)
def a_transition_that_fails_half_way(stage: Stage) -> None:
    """Have loading, the publishers or the first steps of activation fail."""
    point = stage.rng.choice(('load', 'publishers', 'begin'))
    effect = stage.rng.choice(('exception', 'memory error', 'out of memory'))
    stage.change('deactivate')
    stage.observer.expect_new_life()
    stage.change('cleanup')
    with stage.broken(point, effect) as fired:
        done = stage.try_change('configure') and stage.try_change('activate')
        if fired() and done:
            raise Failure('wrong', f'{effect} in "{point}" went unnoticed')
    stage.says('Model')
    stage.activate()
