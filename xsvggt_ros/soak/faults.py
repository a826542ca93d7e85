"""All kinds of faults: importing their modules registers them."""

from xsvggt_ros.soak import (  # noqa: F401  they register their kinds
    camera_faults,
    file_faults,
    hint_faults,
    image_faults,
    inside_faults,
    lens_faults,
    process_faults,
    service_faults,
    stamp_faults,
    tf_faults,
)
from xsvggt_ros.soak.kinds import KINDS as KINDS
