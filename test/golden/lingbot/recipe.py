# ruff: noqa (kept as it came with the data)
"""Weights and frames of the LingBot-Map golden sets: numpy only, exact arithmetic, the same bits everywhere.

uniform(key, shape, seed): u in [-1, 1) on a 2^-23 grid; one splitmix64 stream per (seed, key):
state0 = (seed * 0x9E3779B97F4A7C15 + crc32(key)) mod 2^64; element i (C order) takes
z = mix(state0 + (i+1) * 0x9E3779B97F4A7C15), u = (z >> 40) / 2^23 - 1.  (As in the StreamVGGT recipe.)
tensor(key, shape, seed) = float32(float32(u * amplitude) + offset), see amp_off.
frames(seed, n, h, w): uint8 [n, 3, h, w], a window that slides over a blocky texture with fine grain.

    python recipe.py            checks weights_sha256 and frames_sha256 of README.json beside it
"""
import hashlib, json, math, os, zlib
import numpy as np

G = np.uint64(0x9E3779B97F4A7C15)

def uniform(key, shape, seed):
    n = int(np.prod(shape)) if len(shape) else 1
    s0 = np.uint64((seed * 0x9E3779B97F4A7C15 + zlib.crc32(key.encode())) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):
        z = s0 + np.arange(1, n + 1, dtype=np.uint64) * G
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.int64).astype(np.float64) / 2.0 ** 23 - 1.0
    return u.astype(np.float32).reshape(shape)

def amp_off(key, shape):
    """(amplitude, offset) for a state-dict key; offset may be an array."""
    r3, nd, leaf = math.sqrt(3.0), len(shape), key.rsplit(".", 1)[-1]
    if key.endswith(("q_norm.weight", "k_norm.weight")): return 0.5, 1.5
    if key.endswith("k_norm.bias"): return 1.0, 0.0
    if key.endswith("q_norm.bias"): return 0.5, 0.0
    if leaf == "gamma": return 0.2, 0.6
    if key.endswith(("camera_token", "register_token", "scale_token")): return r3, 0.0
    if key.endswith("mask_token"): return 0.0, 0.0
    if key.endswith(("cls_token", "register_tokens")): return 0.8, 0.0
    if key.endswith("pos_embed"): return 0.6, 0.0
    if key.endswith("empty_pose_tokens"): return 0.5, 0.0
    if key.endswith("pose_branch.fc2.bias"):
        off = np.zeros(shape, np.float32); off[6] = 0.25; off[7:9] = 0.2
        return 0.05, off
    if nd == 1 and "norm" in key: return (0.3, 1.0) if leaf == "weight" else (0.2, 0.0)
    if leaf == "bias": return 0.1, 0.0
    gain = 1.0
    if "pose_branch.fc2" in key: gain = 0.3
    if "poseLN_modulation" in key: gain = 0.5
    if "output_conv2.2" in key: gain = 0.5
    if key.endswith("patch_embed.proj.weight"): gain = 2.0
    if nd == 2: fan = shape[1]
    elif nd == 4:
        fan = shape[1] * shape[2] * shape[3]
        if "resize_layers.0" in key or "resize_layers.1" in key: fan = shape[0]   # transposed, kernel == stride
        elif "scratch" in key: gain *= math.sqrt(1.5)
    else: raise KeyError((key, shape))
    return r3 * gain / math.sqrt(fan), 0.0

def tensor(key, shape, seed):
    a, o = amp_off(key, tuple(shape))
    w = (uniform(key, tuple(shape), seed) * np.float32(a)).astype(np.float32)
    return (w + np.asarray(o, np.float32)).astype(np.float32)

def state_dict(shapes, seed):
    """shapes: {key: shape}; returns {key: float32 array}. Key order does not matter."""
    return {k: tensor(k, s, seed) for k, s in shapes.items()}

def frames(seed, n, h, w):
    step_y, step_x, cell = 2, 3, 7
    hh, ww = h + step_y * (n - 1), w + step_x * (n - 1)
    rows, cols = -(-hh // cell), -(-ww // cell)
    coarse = np.floor((uniform("coarse", (3, rows, cols), seed).astype(np.float64) + 1) * 96).astype(np.int64)
    fine = np.floor((uniform("fine", (3, hh, ww), seed).astype(np.float64) + 1) * 31).astype(np.int64)
    texture = coarse.repeat(cell, 1).repeat(cell, 2)[:, :hh, :ww] + fine
    return np.stack([texture[:, step_y * f:step_y * f + h, step_x * f:step_x * f + w] for f in range(n)]).astype(np.uint8)

def digest(arrays):
    """sha256 over sorted names of name bytes + C-order bytes."""
    h = hashlib.sha256()
    for k in sorted(arrays):
        h.update(k.encode()); h.update(np.ascontiguousarray(arrays[k]).tobytes())
    return h.hexdigest()

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    for name, case in json.load(open(os.path.join(here, "README.json")))["cases"].items():
        w = digest(state_dict(case["state_dict_shapes"], case["weight_seed"])) == case["weights_sha256"]
        f = digest({"frames": frames(case["frame_seed"], case["n_frames"], case["H"], case["W"])}) == case["frames_sha256"]
        print(name, "weights", "ok" if w else "DIFFER", "frames", "ok" if f else "DIFFER")
