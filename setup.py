"""
Install the Python part with pip: network, cache, engine and tools, which need no ROS.

colcon does not read this file: it builds the package, and its messages, by CMakeLists.txt.
"""

from setuptools import find_packages, setup

setup(
    name='xsvggt_ros',
    version='0.1.0',
    description='Streaming 3D reconstruction with a bounded key/value cache',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['xsvggt_ros', 'xsvggt_ros.*']),
    # Given, though it is the default: `pip install -e` then puts the checkout itself on the path,
    # where xsvggt_ros.msg of a ROS installation can join it (see xsvggt_ros/__init__.py).
    package_dir={'': '.'},
    package_data={'xsvggt_ros': ['assets/*']},
    # transforms3d: quaternions and matrices, as tf_transformations, which is no wheel, wraps it.
    install_requires=['numpy', 'safetensors', 'torch', 'transforms3d'],
    extras_require={'demo': ['matplotlib', 'pillow', 'pyyaml']},
    entry_points={'console_scripts': ['xsvggt = xsvggt_ros.tools.cli:main']},
)
