"""How many threads a network gets on a CPU."""

import os

import torch

from xsvggt_ros.model.network import StreamNetwork

PYTORCH_CHOICE = torch.get_num_threads()  # usually one for each core


def use_threads(wanted: int, model: StreamNetwork) -> None:
    """
    Set the threads of PyTorch and of the C++ kernels, for the whole process.

    model: where it will run and in the precision that it will have. wanted: 0 chooses: one for a
    small network that the C++ kernels compute, whose many short calls would wait for the slowest
    thread when other programs want the cores (times: docs/performance.md); otherwise PyTorch's
    choice, as in any case if OMP_NUM_THREADS is set.
    """
    on_cpu = model.aggregator.camera_token.device.type == 'cpu'
    if not wanted and on_cpu and 'OMP_NUM_THREADS' not in os.environ \
            and model.aggregator.global_blocks[0].is_native:
        wanted = 1
    torch.set_num_threads(wanted or PYTORCH_CHOICE)
