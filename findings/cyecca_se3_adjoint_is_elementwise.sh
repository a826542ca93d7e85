#!/usr/bin/env bash
# cyecca 0.2.3 (Lie groups for robots on CasADi, PyPI; newer ones need a newer Python and were not tried): Ad() of an SE(3)
# element is wrong: its upper right block is the element-by-element product of [p]x and R in place of the matrix product.
#
# Ad(X) takes a twist from X's frame: X [v]^ X^-1 = [Ad(X) v]^, and Ad(exp(x)) = exp(ad(x)).
#
# Guess: both hold for SE2, SE3 and SE23, quaternion or MRP, at any angle and translation.
# Seen: they hold for SE2 and SE23 to 1e-13. For SE3 (Quat and Mrp), translations of a metre or two and turns of 1 rad/s,
# velocities come out 2 m/s off on average. Of a pure translation the block is zero: the lever arm is lost. Covariances that are
# moved with it lose it as well. No message.
# What to do: the block is [p]x R; or take exp of ad of the log.
#
# Exit 0: it is so. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
  cyecca==0.2.3 casadi==3.8.2 beartype==0.19.0 numpy==2.1.3 scipy==1.17.1 sympy==1.14.0 mpmath==1.3.0
cd "$folder"
cat >probe.py <<'PYTHON'
import contextlib
import io

import casadi
import cyecca.lie as lie
import numpy as np
from scipy.linalg import expm

random = np.random.default_rng(0)


def number(value):
    return np.array(casadi.DM(value))


def errors(algebra, group, size):
    """Largest errors of Ad against exp(ad), and of the twists against X [v]^ X^-1, over 50 random elements and twists."""
    worst, twists = 0.0, []
    for _ in range(50):
        element = algebra.elem(casadi.DM(random.normal(size=size)))
        member = element.exp(group)
        adjoint, matrix = number(member.Ad()), number(member.to_Matrix())
        worst = max(worst, np.abs(adjoint - expm(number(element.ad()))).max())
        twist = random.normal(size=size)
        hat = number(algebra.elem(casadi.DM(twist)).to_Matrix())
        moved = number(algebra.elem(casadi.DM(adjoint @ twist)).to_Matrix())
        twists.append(np.linalg.norm((moved - matrix @ hat @ np.linalg.inv(matrix))[:-1, -1]))
    return worst, float(np.mean(twists))


as_seen = True
for name, algebra, group, size in (('SE2', lie.se2, lie.SE2, 3), ('SE23Quat', lie.se23, lie.SE23Quat, 9),
                                   ('SE23Mrp', lie.se23, lie.SE23Mrp, 9), ('SE3Quat', lie.se3, lie.SE3Quat, 6),
                                   ('SE3Mrp', lie.se3, lie.SE3Mrp, 6)):
    with contextlib.redirect_stdout(io.StringIO()):
        worst, twist = errors(algebra, group, size)
    print(f'{name}: Ad against exp(ad) off by {worst:.1e}, velocities by {twist:.1e} on average')
    as_seen &= (worst > 1 and twist > 1) if name.startswith('SE3') else (worst < 1e-9 and twist < 1e-9)
pose = lie.se3.elem(casadi.DM([1, 2, 3, 0.2, -0.4, 0.9])).exp(lie.SE3Quat)
matrix, adjoint = number(pose.to_Matrix()), number(pose.Ad())
cross = np.cross(matrix[:3, 3], np.eye(3), axisb=0, axisc=0)
given = number(pose.param).ravel()
print('upper right block', adjoint[:3, 3:].round(3).tolist(), 'for', (cross @ matrix[:3, :3]).round(3).tolist())
as_seen &= np.allclose(adjoint[:3, 3:], cross * matrix[:3, :3]) and np.allclose(given[:3], matrix[:3, 3])
shift = number(lie.se3.elem(casadi.DM([1, 2, 3, 0, 0, 0])).exp(lie.SE3Quat).Ad())
print('of a translation by 1, 2, 3', shift[:3, 3:].tolist())
as_seen &= not shift[:3, 3:].any()
raise SystemExit(not as_seen)
PYTHON
venv/bin/python probe.py
