"""A cache in a step that is not to be remembered."""

from torch import Tensor

from xsvggt_ros.kv_cache.cache import KVCache


class ReadOnlyCache:
    """Attends as a cache does, and remembers nothing."""

    def __init__(self, cache: KVCache) -> None:
        """Take the cache that is looked at."""
        self._cache = cache

    @property
    def steps(self) -> int:
        """Return how many steps the cache has remembered."""
        return self._cache.steps

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend as `KVCache.attend_readonly` does."""
        return self._cache.attend_readonly(layer, query, key, value)

    def end_step(self) -> None:
        """Do nothing: there is nothing to commit."""
