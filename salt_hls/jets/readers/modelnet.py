"""ModelNet10: <class>/<train or test>/<name>.off, meshes sampled to point clouds.

A point cloud is a `JetSet` whose features are x, y, z (`POINTS`): as many points as the model has
particles, drawn from the surface with a seed that belongs to the file, centred, scaled into the
unit ball, and ordered along a Morton curve, so that a partition is a region of space.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salt_hls.errors import UserError
from salt_hls.jets.dataset import JET_COLUMNS, POINTS, JetSet
from salt_hls.jets.readers.base import Format

MORTON_BITS = 10


def slices(path: Path, particles: int) -> Iterator[JetSet]:
    """The one object of a file, `particles` points."""
    try:
        folder = path.absolute().parents[1]
        classes = tuple(sorted(p.name for p in folder.parent.iterdir() if any(p.glob("*/*.off"))))
        label = classes.index(folder.name)
    except (IndexError, ValueError):
        raise UserError(f"{path}: expected <class>/<train or test>/<name>.off") from None
    vertices, triangles = read_off(path)
    try:
        points = point_cloud(vertices, triangles, particles, zlib.crc32(path.name.encode()))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    yield JetSet(
        points[None].astype(np.float32),
        np.array([label]),
        np.zeros((1, len(JET_COLUMNS)), np.float32),
        classes,
        POINTS,
    )


def read_off(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (n, 3) and triangles (m, 3) of an OFF mesh; polygons become fans of triangles.

    Counts glued to the header ("OFF490 518 0") are read. Raises `UserError` for anything that is
    no such mesh.
    """
    lines = path.read_text(encoding="ascii", errors="replace").lstrip().splitlines()
    body = " ".join(line.split("#")[0] for line in lines)
    if not body.startswith("OFF"):
        raise UserError(f"{path}: no OFF mesh: it starts with {body[:12]!r}")
    numbers = np.array(body[3:].split(), dtype=object)
    try:
        values = numbers.astype(np.float64)
        count, faces = int(values[0]), int(values[1])
        vertices = values[3 : 3 + 3 * count].reshape(count, 3)
        rest = values[3 + 3 * count :].astype(np.int64)
        triangles = _triangles(rest, faces)
    except (ValueError, IndexError):
        raise UserError(f"{path}: damaged OFF mesh: not the numbers its header promises") from None
    if not np.isfinite(vertices).all():
        raise UserError(f"{path}: damaged OFF mesh: NaN or infinity among the vertices")
    if not len(triangles) or np.min(triangles) < 0 or np.max(triangles) >= count:
        raise UserError(f"{path}: damaged OFF mesh: faces name vertices it does not have")
    return vertices, triangles


def _triangles(indices: NDArray[np.int64], faces: int) -> NDArray[np.int64]:
    if len(indices) == 4 * faces and np.all(indices[::4] == 3):
        return indices.reshape(faces, 4)[:, 1:]
    fans, at = [], 0
    for _ in range(faces):
        corners = indices[at + 1 : at + 1 + indices[at]]
        if len(corners) != indices[at]:
            raise ValueError("face cut off")
        fans += [(corners[0], a, b) for a, b in zip(corners[1:], corners[2:], strict=False)]
        at += 1 + len(corners)
    return np.array(fans, np.int64).reshape(-1, 3)


def point_cloud(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.float64]:
    """`count` points (count, 3) of the surface, uniform by area, in the unit ball, Morton order.

    Raises `ValueError` when the area is 0 or not finite.
    """
    rng = np.random.default_rng(seed)
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    with np.errstate(over="ignore", invalid="ignore"):
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not 0 < area.sum() < np.inf:
        raise ValueError("a mesh without a finite area has no surface to draw points from")
    chosen = rng.choice(len(triangles), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    root = np.sqrt(u)
    points = (1 - root) * a[chosen] + root * (1 - v) * b[chosen] + root * v * c[chosen]
    points -= points.mean(axis=0)
    points /= max(float(np.linalg.norm(points, axis=1).max()), 1e-12)
    return np.asarray(points[np.argsort(morton(points), kind="stable")])


def morton(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of points of [-1, 1]^3 along the Morton curve: the interleaved bits of x, y, z."""
    cells = np.clip((points + 1) / 2 * 2**MORTON_BITS, 0, 2**MORTON_BITS - 1).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


FORMAT = Format("ModelNet", "", False, slices)
