"""
The inner loops of the renderer, compiled by numba.

`patch` is always the number of a patch of the scene, -1 where nothing was met. Rays are those of
pixels: origin + depth * direction, where direction has length 1 along the optical axis.
"""

import math
from typing import Any

from numba import njit

from training.wide_world.textures import LEVEL_OFFSETS, LEVELS, SIDE, TEXELS

_OFFSETS = LEVEL_OFFSETS
_OPTIONS: dict[str, Any] = {'cache': True, 'nogil': True, 'fastmath': True}
_PART = {**_OPTIONS, 'inline': 'always'}   # of a longer one, and as quick as within it


@njit(**_OPTIONS)
def directions(frame, row, column, turn, lens, out):
    """Write the directions out [n, 3] of pixels; turn [F, H, 3, 3], lens fx, fy, cx, cy."""
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    height = turn.shape[1]
    for i in range(len(frame)):
        x, y = (column[i] - cx) / fx, (row[i] - cy) / fy
        line = min(max(int(row[i] + 0.5), 0), height - 1)
        m = turn[frame[i], line]
        for axis in range(3):
            out[i, axis] = m[axis, 0] * x + m[axis, 1] * y + m[axis, 2]


@njit(**_OPTIONS)
def fill_between(patch, flat):
    """
    Fill pixels between those that were traced, every second of rows and columns, in place.

    Returns flat indices of those that must be traced themselves: not all of the traced pixels
    around them show the same patch. patch [F, H, W]; flat [F * H * W] int64 is scratch.
    """
    frames, height, width = patch.shape
    count = 0
    for f in range(frames):
        for y in range(height):
            y0, y1 = y - (y & 1), y + (y & 1)
            if y1 >= height:
                y1 = y0
            for x in range(width):
                if not (y & 1 or x & 1):
                    continue
                x0, x1 = x - (x & 1), x + (x & 1)
                if x1 >= width:
                    x1 = x0
                one = patch[f, y0, x0]
                if one == patch[f, y0, x1] and one == patch[f, y1, x0] and one == patch[f, y1, x1]:
                    patch[f, y, x] = one
                else:
                    flat[count] = (f * height + y) * width + x
                    count += 1
    return count


@njit(**_OPTIONS)
def depths(frame, patch, origin, direction, row, plane, out):
    """Write the depths out [n] at which rays meet the planes of their patches."""
    height = origin.shape[1]
    for i in range(len(patch)):
        if patch[i] < 0:
            out[i] = 0.0
            continue
        p = plane[patch[i]]
        line = min(max(int(row[i] + 0.5), 0), height - 1)
        o = origin[frame[i], line]
        down = p[0] * direction[i, 0] + p[1] * direction[i, 1] + p[2] * direction[i, 2]
        if abs(down) < 1e-9:
            down = 1e-9
        out[i] = (p[3] - p[0] * o[0] - p[1] * o[1] - p[2] * o[2]) / down


@njit(**_OPTIONS)
def find_edges(patch, depth, plane, material, flat):
    """Write flat indices of pixels at edges of what is seen; returns how many there are."""
    frames, height, width = patch.shape
    count = 0
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                one = patch[f, y, x]
                edge = False
                for way in range(4):
                    y1 = y + (way == 0) - (way == 1)
                    x1 = x + (way == 2) - (way == 3)
                    if y1 < 0 or x1 < 0 or y1 >= height or x1 >= width:
                        continue
                    other = patch[f, y1, x1]
                    if other == one:
                        continue
                    if other < 0 or one < 0 or material[other] != material[one]:
                        edge = True
                        break
                    cos = (plane[one, 0] * plane[other, 0] + plane[one, 1] * plane[other, 1]
                           + plane[one, 2] * plane[other, 2])
                    ratio = depth[f, y1, x1] / max(depth[f, y, x], 1e-6)
                    if cos < 0.85 or ratio > 1.05 or ratio < 0.95:
                        edge = True
                        break
                if edge:
                    flat[count] = (f * height + y) * width + x
                    count += 1
    return count


@njit(**_PART)
def _between(x, y):
    """Return the weights of four neighbours at x, y of the way from the first: 00, 01, 10, 11."""
    return (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x


@njit(**_PART)
def _light_near(s, t, start, shape):
    """Return the first of four points of a patch's grid of light around s, t, and weights."""
    gs, gt = s * (shape[0] - 1), t * (shape[1] - 1)
    ks, kt = min(int(gs), shape[0] - 2), min(int(gt), shape[1] - 2)
    return start + ks * shape[1] + kt, _between(gt - kt, gs - ks)


@njit(**_PART)
def _texels_near(u, v, spread, texture):
    """Return four texels around u, v, and weights; spread: of a pixel, in the finest texels."""
    level = 0      # whose texels are about as large as the pixel
    while level < LEVELS - 1 and spread > 1.5:
        spread *= 0.5
        level += 1
    side = SIDE >> level
    base = texture * TEXELS + _OFFSETS[level]
    tu, tv = u * side - 0.5, v * side - 0.5
    cu, cv = math.floor(tu), math.floor(tv)
    iu, iv = int(cu) & (side - 1), int(cv) & (side - 1)
    ju, jv = (iu + 1) & (side - 1), (iv + 1) & (side - 1)
    above, below = base + iv * side, base + jv * side
    return (above + iu, above + ju, below + iu, below + ju), _between(tu - cu, tv - cv)


@njit(**_PART)
def _mirrored(place, view, plane, cos, lamp):
    """Return a lamp's mirror image, wide and weak, at a place; view: unit direction to it."""
    x, y, z = lamp[0] - place[0], lamp[1] - place[1], lamp[2] - place[2]
    far = math.sqrt(x * x + y * y + z * z) + 1e-6
    toward = ((view[0] - 2 * cos * plane[0]) * x + (view[1] - 2 * cos * plane[1]) * y
              + (view[2] - 2 * cos * plane[2]) * z) / far
    return lamp[3] * toward ** 24 if toward > 0.0 else 0.0


@njit(**_OPTIONS)
def shade(frame, row, patch, depth, direction, origin, corner, axes, plane, mapping, material,
          light, light_start, light_shape, look, texture, texels, means, lamp, pixel, out):
    """
    Write the colours out [n, 3] (1: white) that rays see at `depth` on their patches.

    axes [P, 2, 3]: dual vectors, which tell where on a patch a point is. mapping [P, 7]: texture
    coordinates in repeats, and repeats per metre. light [L, 3]: grids of baked light. look
    [M, 6]: contrast, tint, gloss, emission; texture [M]. lamp [4]: position of what is mirrored,
    and its strength. pixel: the angle that one pixel sees, rad.
    """
    height = origin.shape[1]
    for i in range(len(patch)):
        p = patch[i]
        if p < 0:
            out[i, 0] = out[i, 1] = out[i, 2] = 0.0
            continue
        z = depth[i]
        o = origin[frame[i], min(max(int(row[i] + 0.5), 0), height - 1)]
        dx, dy, dz = direction[i, 0], direction[i, 1], direction[i, 2]
        px, py, pz = o[0] + z * dx, o[1] + z * dy, o[2] + z * dz
        qx, qy, qz = px - corner[p, 0], py - corner[p, 1], pz - corner[p, 2]
        a = axes[p]
        s = a[0, 0] * qx + a[0, 1] * qy + a[0, 2] * qz
        t = a[1, 0] * qx + a[1, 1] * qy + a[1, 2] * qz
        s, t = min(max(s, 0.0), 1.0), min(max(t, 0.0), 1.0)
        m = mapping[p]
        u, v = m[0] + s * m[1] + t * m[2], m[3] + s * m[4] + t * m[5]
        at, w = _light_near(s, t, light_start[p], light_shape[p])
        k, nt = material[p], light_shape[p, 1]
        norm = math.sqrt(dx * dx + dy * dy + dz * dz)
        cos = (plane[p, 0] * dx + plane[p, 1] * dy + plane[p, 2] * dz) / norm
        spread = z * pixel * SIDE * m[6] / math.sqrt(max(abs(cos), 0.05))
        near, b = _texels_near(u, v, spread, texture[k])
        shine = 0.0
        if look[k, 4] > 0.01:
            shine = look[k, 4] * _mirrored((px, py, pz), (dx / norm, dy / norm, dz / norm),
                                           plane[p], cos, lamp)
        for c in range(3):
            texel = (b[0] * texels[near[0], c] + b[1] * texels[near[1], c]
                     + b[2] * texels[near[2], c] + b[3] * texels[near[3], c])
            mean = means[texture[k], c]
            albedo = look[k, 1 + c] * (mean + look[k, 0] * (texel - mean)) * (1.0 / 255.0)
            bright = (w[0] * light[at, c] + w[1] * light[at + 1, c] + w[2] * light[at + nt, c]
                      + w[3] * light[at + nt + 1, c])
            out[i, c] = albedo * bright + look[k, 5] * (0.4 + albedo) + shine * bright


@njit(**_OPTIONS)
def smear(picture, flow, out):
    """Write pictures out [F, H, W, 3], each pixel the mean along its flow [F, H, W, 2], pixels."""
    frames, height, width = picture.shape[:3]
    for f in range(frames):
        for y in range(height):
            for x in range(width):
                dx, dy = flow[f, y, x, 0], flow[f, y, x, 1]
                long = max(abs(dx), abs(dy))
                taps = min(int(long * 1.5) + 1, 11)
                r = g = b = 0.0
                for tap in range(taps):
                    at = (tap + 0.5) / taps - 0.5
                    sx = min(max(x + dx * at, 0.0), width - 1.001)
                    sy = min(max(y + dy * at, 0.0), height - 1.001)
                    ix, iy = int(sx), int(sy)
                    fx, fy = sx - ix, sy - iy
                    w00, w01, w10, w11 = ((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx),
                                          fy * fx)
                    here = picture[f]
                    r += (w00 * here[iy, ix, 0] + w01 * here[iy, ix + 1, 0]
                          + w10 * here[iy + 1, ix, 0] + w11 * here[iy + 1, ix + 1, 0])
                    g += (w00 * here[iy, ix, 1] + w01 * here[iy, ix + 1, 1]
                          + w10 * here[iy + 1, ix, 1] + w11 * here[iy + 1, ix + 1, 1])
                    b += (w00 * here[iy, ix, 2] + w01 * here[iy, ix + 1, 2]
                          + w10 * here[iy + 1, ix, 2] + w11 * here[iy + 1, ix + 1, 2])
                out[f, y, x, 0], out[f, y, x, 1], out[f, y, x, 2] = r / taps, g / taps, b / taps


@njit(**_OPTIONS)
def develop(picture, gain, vignette, curve, saturation, noise, strength, shift, out):
    """
    Write what a sensor makes of light, out [F, H, W, 3] uint8.

    picture [F, H, W, 3]; gain [F, 3]: exposure and white balance; vignette [H, W]; curve [n]:
    grey levels in [0, 1] of light from 0 to 2; saturation: 1 leaves colours as they are; noise
    [m]: a field that is shifted by shift [F] texels and is strength times as strong.
    """
    frames, height, width = picture.shape[:3]
    last, long = len(curve) - 1.001, len(noise)
    for f in range(frames):
        number = shift[f]
        for y in range(height):
            for x in range(width):
                dim = vignette[y, x] * 0.5 * (len(curve) - 1)
                r = curve[int(min(picture[f, y, x, 0] * gain[f, 0] * dim, last))]
                g = curve[int(min(picture[f, y, x, 1] * gain[f, 1] * dim, last))]
                b = curve[int(min(picture[f, y, x, 2] * gain[f, 2] * dim, last))]
                grey = 0.3 * r + 0.59 * g + 0.11 * b
                rough = strength * math.sqrt(0.15 + grey)
                for c, value in ((0, r), (1, g), (2, b)):
                    number += 1
                    if number >= long:
                        number -= long
                    value = grey + saturation * (value - grey) + rough * noise[number]
                    out[f, y, x, c] = int(min(max(value, 0.0), 1.0) * 255.0 + 0.5)
