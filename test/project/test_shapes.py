"""The table of shapes finds wrong ones, and says what the docstrings say."""

import dataclasses
import importlib
import inspect
import re

import pytest

pytest.importorskip('beartype')
pytest.importorskip('jaxtyping')
from jaxtyping import Float, TypeCheckError
import numpy as np
from shape_table import TABLE
from tensor_shapes import checked
import torch
from torch import Tensor

from xsvggt_ros.geometry.se3 import make_transform, transform_points
from xsvggt_ros.kv_cache.build import build_cache
from xsvggt_ros.kv_cache.config import CacheConfig, CacheLayout
from xsvggt_ros.kv_cache.store import KVStore
from xsvggt_ros.model.camera_head import AttentionMemory
from xsvggt_ros.trajectory.pose_graph import GraphSolution

ROWS = [(module, name) for module, rows in TABLE.items() for name in rows]
# A shape in a docstring: numbers, axes and sums or multiples of them.
WRITTEN = re.compile(r'\[((?:\.\.\.|[\w ./*+-]+)?(?:, ?(?:\.\.\.|[\w ./*+-]+))*)\]')

# What arguments of these names are everywhere.
USUAL = {'camera': ['3', '3'], 'pose': ['4', '4'], 'points': ['n', '3'], 'pixels': ['n', '2'],
         'ids': ['n'], 'initial': ['4', '4'], 'transform': ['4', '4'],
         'odom_from_camera': ['4', '4']}

PROTOCOLS = KVStore, AttentionMemory  # what they say is said of what follows them


def product(a, b):
    return a @ b


class Doubler:
    size = 3

    def twice(self, x):
        return 2 * x

    @staticmethod
    def of(x):
        return x

    @property
    def value(self):
        return torch.zeros(self.size)


MATRICES = dict(a=Float[Tensor, 'rows inner'], b=Float[Tensor, 'inner columns'],
                returns=Float[Tensor, 'rows columns'])


def test_axes_of_one_name_have_one_size():
    multiply = checked(product, MATRICES)
    assert multiply(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
    with pytest.raises(TypeCheckError, match="parameter 'b'"):
        multiply(torch.ones(2, 3), torch.ones(4, 3))
    with pytest.raises(TypeCheckError, match="parameter 'a'"):
        multiply(torch.ones(2, 3).int(), torch.ones(3, 4).int())


@pytest.mark.parametrize('wrong', [Tensor.t, Tensor.int])
def test_what_comes_back_is_checked(wrong):
    def spoiled(a, b):
        return wrong(a @ b)

    with pytest.raises(TypeCheckError, match='return value'):
        checked(spoiled, MATRICES)(torch.ones(2, 3), torch.ones(3, 4))


def test_methods_properties_and_attributes_are_checked():
    numbers = Float[Tensor, '{self.size}']
    twice = checked(Doubler.twice, dict(x=numbers, returns=numbers))
    assert twice(Doubler(), torch.ones(3)).sum() == 6
    with pytest.raises(TypeCheckError):
        twice(Doubler(), torch.ones(4))
    with pytest.raises(TypeCheckError):
        checked(vars(Doubler)['value'], dict(returns=Float[Tensor, '4'])).fget(Doubler())
    with pytest.raises(TypeCheckError):
        checked(vars(Doubler)['of'], dict(x=numbers)).__func__(np.ones(3))


def test_an_argument_that_there_is_not_is_refused():
    with pytest.raises(TypeError, match=r"product has no arguments \['c'\]"):
        checked(product, dict(c=Float[Tensor, '3']))


def test_the_packages_own_functions_are_checked():
    with pytest.raises(TypeCheckError, match='geometry.se3.transform_points'):
        transform_points(torch.eye(3), torch.ones(5, 3))
    with pytest.raises(TypeCheckError, match='GraphSolution'):
        GraphSolution(np.ones((2, 4, 4)), np.ones((3, 7)), 0.0)
    cache = build_cache(CacheLayout(1, 2, 8, 4, 1), CacheConfig(), None, torch.float32, 'cpu',
                        'none')
    right, wrong = torch.ones(2, 4, 8), torch.ones(4, 2, 8)
    assert cache.attend(0, right, right, right).shape == right.shape
    with pytest.raises(TypeCheckError, match='KVCache.attend'):
        cache.attend(0, right, right, wrong)


@pytest.mark.wrong_shapes
def test_tests_that_give_wrong_shapes_on_purpose_see_what_the_package_does():
    with pytest.raises(RuntimeError, match='size'):
        make_transform(torch.eye(3), torch.ones(4))


# The docstrings ----------------------------------------------------------------------------------

@pytest.mark.parametrize('module,name', ROWS, ids=[f'{module}.{name}' for module, name in ROWS])
def test_docstrings_say_what_the_table_says(module, name):
    said = written_shapes(module, name)
    for argument, hint in TABLE[module][name].items():
        for shape in shapes_of(hint):
            assert USUAL.get(argument) == shape or any(agree(shape, other) for other in said), (
                f'{argument} is [{" ".join(shape)}] in the table, but the docstrings say {said}')


def written_shapes(module, name):
    """Return the shapes in docstrings: of a function, its class and module, and what it names."""
    place = importlib.import_module(f'xsvggt_ros.{module}')
    texts, owners = [inspect.getdoc(place) or ''], [place]
    for part in name.split('.'):
        member = inspect.getattr_static(owners[-1], part)
        member = getattr(member, '__func__', member)
        texts.append(text_of(member))
        owners.append(member)
    texts += [text_of(getattr(protocol, part, None)) for protocol in PROTOCOLS]
    for named in re.findall(r'`(\w+)`', texts[len(owners) - 1]):
        for owner in owners:
            other = inspect.getattr_static(owner, named, None)
            texts += [text_of(other), text_of(getattr(other, name.split('.')[-1], None))]
    return [[axis.strip() for axis in re.split(', ?', inner)] if inner else []
            for text in texts for inner in WRITTEN.findall(text.replace('\n', ' '))]


def text_of(member):
    """Return a docstring, of a dataclass the comments on its fields too."""
    if dataclasses.is_dataclass(member):
        return inspect.getsource(member).partition('    def ')[0]
    return inspect.getdoc(member) or '' if callable(member) or isinstance(member, property) else ''


def shapes_of(hint):
    """Return the axes of all tensors in a type, as lists of words."""
    if hasattr(hint, 'dim_str'):
        return [hint.dim_str.split()]
    return [shape for part in getattr(hint, '__args__', ()) for shape in shapes_of(part)]


def agree(shape, said):
    """Return whether axes of the table can be those of a docstring."""
    one = {True: r'{0} ', False: r'(?!\d+ |\.\.\. )[^ ]+ '}
    words = (r'(?:[^ ]+ )*' if axis.startswith('*') else one[axis.isdigit()].format(axis)
             for axis in shape)
    return re.fullmatch(''.join(words), ''.join(f'{axis.replace(" ", "")} ' for axis in said))
