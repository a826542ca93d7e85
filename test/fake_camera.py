"""Cameras of this machine that stand in for real ones: texts of a sitecustomize.py."""

# A camera of this machine is a test picture, ten times a second.
CAMERA = """
import av
opened = av.open
def open_camera(name, format=None, options=None, **others):
    if format != 'v4l2':
        return opened(name, format=format, options=options, **others)
    # Stamps in microseconds since 1970, as of a driver.
    return opened('testsrc2=size=80x60:rate=10,realtime,settb=1/1000000,setpts=RTCTIME',
                  format='lavfi')
av.open = open_camera
"""
# The same, unplugged after 40 images.
UNPLUGGED = CAMERA.replace("return opened('testsrc2", "return Unplugged('testsrc2") + """
class Unplugged:
    def __init__(self, *names, **options):
        self.camera = opened(*names, **options)

    def __enter__(self):
        self.camera.__enter__()
        return self

    def __exit__(self, *error):
        self.camera.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.camera, name)

    def demux(self, **streams):
        for number, packet in enumerate(self.camera.demux(**streams)):
            if number == 40:
                raise av.error.OSError(19, 'No such device', '/dev/video0')
            yield packet
"""
