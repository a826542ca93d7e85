"""Faults of the disk on which maps are saved."""

from collections.abc import Callable
from pathlib import Path

from xsvggt_ros.soak.harness import Harness
from xsvggt_ros.soak.kinds import Failure, fault

GROUP = 'files'
WRITING = ('write cloud', 'write way', 'name files')  # points, see `patches`
REFUSES = 'says why; leaves no part of a file behind; the map stays'


def cannot_save(harness: Harness, fired: Callable[[], int] = lambda: 1) -> None:
    """Call ~/save_map, which has to fail; fired: how often what makes it fail has happened."""
    response = harness.trigger('save_map')
    harness.until(fired, 'the map to be written')  # a busy node saves it later
    if response.success:
        raise Failure('wrong', f'a map was saved all the same: {response.message}')
    if not response.message:
        raise Failure('silent', 'the answer does not say why the map was not saved')
    harness.check_maps()


@fault(GROUP, REFUSES, tries=2)
def a_disk_that_is_full(harness: Harness) -> None:
    """Have writing of the map's files fail for want of room."""
    with harness.broken(harness.rng.choice(WRITING), 'disk full') as fired:
        cannot_save(harness, fired)
    harness.save_map()


@fault(GROUP, REFUSES, tries=2)
def no_memory_to_save_the_map(harness: Harness) -> None:
    """Raise MemoryError or RuntimeError while files are written."""
    effect = harness.rng.choice(('memory error', 'exception'))
    with harness.broken(harness.rng.choice(WRITING), effect) as fired:
        cannot_save(harness, fired)
    harness.save_map()


@fault(GROUP, REFUSES)
def a_folder_that_cannot_be_written(harness: Harness) -> None:
    """Set map.save_directory to what is no folder, and back."""
    blocked = harness.folder / 'not_a_folder'
    blocked.write_text('a file', encoding='utf-8')
    folder = harness.rng.choice((blocked, blocked / 'below', Path('/proc/xsvggt'),
                                 Path('/dev/null')))
    harness.set('map.save_directory', str(folder))
    try:
        cannot_save(harness)
    finally:
        harness.set('map.save_directory', str(harness.maps))
    harness.save_map()


@fault(GROUP, 'makes it anew')
def a_folder_that_is_deleted(harness: Harness) -> None:
    """Delete the folder of the maps before one is saved."""
    if harness.maps.is_dir():
        harness.maps.rmdir()
    harness.save_map()


@fault(GROUP, 'writes both under names of their own')
def two_maps_in_one_second(harness: Harness) -> None:
    """Save two maps as quickly as it goes."""
    for _ in range(2):
        harness.trigger('save_map')
    harness.until(lambda: harness.saved_maps() == 2, 'two maps', 'lost')
    harness.save_map()  # checks and deletes all
