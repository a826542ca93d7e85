"""Synthetic rooms as varied as real ones, for training only; needs embreex and numba."""
