"""What the node loads of what its parameters ask for; without ROS."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from xsvggt_ros.kernels import native, rounded
from xsvggt_ros.model.threads import PYTORCH_CHOICE
from xsvggt_ros.node.loading import load_engine, saved_landmarks, StartError
from xsvggt_ros.node.settings import DEFAULTS
from xsvggt_ros.trajectory.keyframe import Keyframe
from xsvggt_ros.trajectory.landmark_file import write_landmarks
from xsvggt_ros.trajectory.landmark_map import KeptKeyframes, landmark_map
from xsvggt_ros.trajectory.matching import Features

SMALL = {'model.checkpoint': 'random', 'model.device': 'cpu', 'model.image_size': 56}
KERNELS = 'portable' + (
    ', C++ where layers are small and for packed tokens' if native.library() else '')


def load(**values):
    settings = DEFAULTS.changed(
        SMALL | {name.replace('__', '.'): x for name, x in values.items()})
    return load_engine(settings.model, settings.cache, settings.input.tracking_size)


COMPILER_IS_LEFT = """
import sys
import numpy as np
import torch
had = set(sys.modules)
from xsvggt_ros.node.loading import load_engine
from xsvggt_ros.node.settings import DEFAULTS
settings = DEFAULTS.changed(
    {'model.checkpoint': 'small', 'model.device': 'cpu', 'model.weights': sys.argv[1]})
engine = load_engine(settings.model, settings.cache).engine
engine.step(np.zeros((84, 112, 3), np.uint8))
engine.finish_frame()
print(sorted({'torch._dynamo', 'torch._inductor', 'sympy', 'triton'} & set(sys.modules) - had))
"""


@pytest.mark.parametrize('weights', ['float', 'int8', 'int8_dynamic'])
def test_until_the_first_image_the_compiler_of_torch_is_left_where_it_is(weights):
    if weights == 'int8_dynamic' and not rounded.works():
        pytest.skip('this CPU has no products of 8 bits')
    done = subprocess.run([sys.executable, '-c', COMPILER_IS_LEFT, weights],
                          capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.strip()) == (0, '[]'), done.stdout + done.stderr


def test_nothing_that_no_gpu_has_run_is_on_by_default():
    assert load().engine.acceleration() == {'kernels': KERNELS, 'graphs': 'off'}


def test_auto_takes_what_there_is(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    engine = load(model__kernels='auto', model__graphs='auto').engine
    assert engine.acceleration() == {'kernels': KERNELS, 'graphs': 'off'}


@pytest.mark.parametrize('parameter, value, words', [
    ('model.kernels', 'triton', ('Triton does not run on the device cpu', 'auto')),
    ('model.graphs', 'on', ('need a GPU', 'runs on cpu', 'model.graphs:=off'))])
def test_what_needs_a_gpu_is_refused_by_name_without_one(parameter, value, words, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    with pytest.raises(StartError) as refused:
        load(**{parameter.replace('.', '__'): value})
    message = str(refused.value)
    assert parameter in message and all(word in message for word in words), message


def test_a_small_network_gets_one_thread_unless_somebody_says_otherwise(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if native.library() is None:
        pytest.skip('native.cpp was not built')
    threads = torch.get_num_threads()
    try:
        for expected, values in ((1, {}), (3, {'model__threads': 3}),
                                 (PYTORCH_CHOICE, {'model__dtype': 'bf16'})):
            load(**values)
            assert torch.get_num_threads() == expected
        monkeypatch.setenv('OMP_NUM_THREADS', '5')
        load()
        assert torch.get_num_threads() == PYTORCH_CHOICE
    finally:
        torch.set_num_threads(threads)


def test_a_saved_map_without_metres_does_not_go_with_a_scale(tmp_path):
    features = Features(0, np.full((4, 2), 5.0, np.float32), np.zeros((4, 32), np.uint8),
                        np.arange(4))
    keyframe = Keyframe(0, features, np.ones((4, 3)), np.ones(4),
                        np.zeros((15, 20), np.float32), np.ones((15, 20), np.float32),
                        np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]]), (160, 120), False)
    kept = KeptKeyframes((keyframe,), np.eye(4)[None])
    assert saved_landmarks(DEFAULTS) is None
    for is_metric in (True, False):
        file = tmp_path / f'{is_metric}.landmarks.safetensors'
        write_landmarks(file, landmark_map(kept, np.eye(4), 1.0, is_metric))
        settings = DEFAULTS.changed({'map.localize_in': str(file)})
        assert saved_landmarks(settings).is_metric is is_metric
        scaled = settings.changed({'scale.mode': 'odometry'})
        if is_metric:
            assert saved_landmarks(scaled).landmarks == 4
            continue
        with pytest.raises(StartError, match='is not in metres, but scale.mode is odometry'):
            saved_landmarks(scaled)
    with pytest.raises(StartError, match='map.localize_in: .*none.* cannot be read'):
        saved_landmarks(DEFAULTS.changed({'map.localize_in': str(tmp_path / 'none')}))
