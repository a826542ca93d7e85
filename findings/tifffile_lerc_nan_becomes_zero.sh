#!/usr/bin/env bash
# tifffile 2026.3.3 with imagecodecs 2026.3.6: a float image stored losslessly with LERC comes back
# with 0 where it had NaN.
#
# Depth images and height maps of floats have NaN where nothing was measured. LERC is the compression
# made for such images; its level 0, the default, is lossless.
#
# Guess: imread() gives what imwrite(compression='lerc') was given, NaN included, as with the other
# lossless compressions (LERC keeps a mask of what is no number).
# Seen: every NaN is 0.0, a measurement of zero; infinities and all finite numbers are exact. Nothing is
# said, neither when it is written nor when it is read. Deflate, Zstandard and JPEG XL keep them. The
# mask is in the file: imagecodecs.lerc_decode(data, masks=True) returns it, tifffile does not ask.
# The same with tifffile 2026.11.8 and imagecodecs 2026.10.10, which need Python 3.12.
# What to do: another compression, or write a number of your own for "not measured".
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$folder"
cat >probe.py <<'PYTHON'
import imagecodecs
import numpy as np
import tifffile

depth = np.linspace(0.3, 9, 64 * 80, dtype=np.float32).reshape(64, 80)
depth[10:20, 5:50] = np.nan
depth[40, 40] = np.inf
missing = np.isnan(depth)
kept = {}
for compression in ('deflate', 'zstd', 'jpegxl', 'lerc'):
    tifffile.imwrite('depth.tif', depth, compression=compression)
    back = tifffile.imread('depth.tif')
    kept[compression] = int(np.isnan(back).sum())
    same = np.array_equal(back[~missing], depth[~missing])
    print(f'{compression:8} {missing.sum()} NaN become {kept[compression]} NaN and '
          f'{int((back[missing] == 0).sum())} zeros; the rest is {"exact" if same else "not exact"}')
    if not same:
        raise SystemExit(1)
_, mask = imagecodecs.lerc_decode(imagecodecs.lerc_encode(depth), masks=True)
print('the mask of LERC is that of the NaN:', bool(np.array_equal(~mask, missing)))
raise SystemExit(not (kept.pop('lerc') == 0 and set(kept.values()) == {int(missing.sum())}
                      and np.array_equal(~mask, missing)))
PYTHON
venv/bin/python probe.py
