"""Faults of the disk on which maps are saved."""

from collections.abc import Callable
from pathlib import Path

from xsvggt_ros.soak.kinds import Failure, fault
from xsvggt_ros.soak.stage import Stage

GROUP = 'files'
WRITING = ('write cloud', 'write way', 'name files')  # points, see `patches`
REFUSES = 'says why; leaves no part of a file behind; the map stays'


def cannot_save(stage: Stage, fired: Callable[[], int] = lambda: 1) -> None:
    """Call ~/save_map, which has to fail; fired: how often what makes it fail has happened."""
    response = stage.trigger('save_map')
    stage.until(fired, 'the map to be written')  # a busy node saves it later
    if response.success:
        raise Failure('wrong', f'a map was saved all the same: {response.message}')
    if not response.message:
        raise Failure('silent', 'the answer does not say why the map was not saved')
    stage.check_maps()


@fault(GROUP, REFUSES, tries=2)
def a_disk_that_is_full(stage: Stage) -> None:
    """Have writing of the map's files fail for want of room."""
    with stage.broken(stage.rng.choice(WRITING), 'disk full') as fired:
        cannot_save(stage, fired)
    stage.save_map()


@fault(GROUP, REFUSES, tries=2)
def no_memory_to_save_the_map(stage: Stage) -> None:
    """Raise MemoryError or RuntimeError while files are written."""
    effect = stage.rng.choice(('memory error', 'exception'))
    with stage.broken(stage.rng.choice(WRITING), effect) as fired:
        cannot_save(stage, fired)
    stage.save_map()


@fault(GROUP, REFUSES)
def a_folder_that_cannot_be_written(stage: Stage) -> None:
    """Set map.save_directory to what is no folder, and back."""
    blocked = stage.folder / 'not_a_folder'
    blocked.write_text('a file', encoding='utf-8')
    folder = stage.rng.choice((blocked, blocked / 'below', Path('/proc/xsvggt'),
                               Path('/dev/null')))
    stage.set('map.save_directory', str(folder))
    try:
        cannot_save(stage)
    finally:
        stage.set('map.save_directory', str(stage.maps))
    stage.save_map()


@fault(GROUP, 'makes it anew')
def a_folder_that_is_deleted(stage: Stage) -> None:
    """Delete the folder of the maps before one is saved."""
    if stage.maps.is_dir():
        stage.maps.rmdir()
    stage.save_map()


@fault(GROUP, 'writes both under names of their own')
def two_maps_in_one_second(stage: Stage) -> None:
    """Save two maps as quickly as it goes."""
    for _ in range(2):
        stage.trigger('save_map')
    stage.until(lambda: stage.saved_maps() == 2, 'two maps', 'lost')
    stage.save_map()  # checks and deletes all
