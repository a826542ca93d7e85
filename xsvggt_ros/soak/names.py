"""Names of this soak's own: nobody else in the domain is disturbed, nor disturbs. Needs no ROS."""

import os

SPACE = f'/soak_{os.getpid()}'   # in which everything is, what is global elsewhere too
NODE = f'{SPACE}/xsvggt'
IMAGE, CAMERA_INFO = f'{SPACE}/image_raw', f'{SPACE}/camera_info'
ODOMETRY, DEPTH = f'{SPACE}/odometry', f'{SPACE}/depth'
TF, TF_STATIC, DIAGNOSTICS = f'{SPACE}/tf', f'{SPACE}/tf_static', f'{SPACE}/diagnostics'

REMAPPED = {'image': IMAGE, 'camera_info': CAMERA_INFO, 'odom_hint': ODOMETRY,
            'depth_hint': DEPTH, '/tf': TF, '/tf_static': TF_STATIC,
            '/diagnostics': DIAGNOSTICS}
