"""Jets of `make data` as compressed codes: what travels to the machine with the GPU.

Run: .venv/bin/python docs/studies/learned_widths/jets.py data/chunks FOLDER
It writes FOLDER/train.npz (45 MB) and FOLDER/validation.npz (6 MB). `load` needs only NumPy.
"""

from __future__ import annotations

import argparse
import lzma
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation")
PARTICLES = 32
STEPS = 32
"""Of the input grid in 1: the inputs of salt_p4 have 5 fraction bits."""
SHUFFLE_SEED = 5

Codes = NDArray[np.int16]


def read_codes(chunks: Path, split: str) -> tuple[Codes, NDArray[np.uint8]]:
    """Inputs of salt_p4 as integers (jets, 32, 3), shuffled, and labels (jets,)."""
    # Not above: the machine with the GPU needs no salt_hls.
    from salt_hls.config import ModelConfig
    from salt_hls.jets.dataset import JetSet
    from salt_hls.jets.ordering import prepare

    inputs = ModelConfig.load("salt_p4").inputs
    codes, labels = [], []
    for path in sorted(chunks.glob(f"{split}-*.h5")):
        jets = JetSet.read(path)
        x = prepare(jets.constituents, PARTICLES, inputs)
        codes.append(np.rint(x * STEPS).astype(np.int16))
        labels.append(jets.labels.astype(np.uint8))
    order = np.random.default_rng(SHUFFLE_SEED).permutation(sum(map(len, labels)))
    return np.concatenate(codes)[order], np.concatenate(labels)[order]


def pack(codes: Codes, labels: NDArray[np.uint8], split: str) -> dict[str, NDArray[np.generic]]:
    """Planes of bytes, each compressed: pT has 8 bits, an angle 8 low bits and a sign."""
    planes = {"pt": codes[..., 0].astype(np.uint8), "labels": labels}
    for column, angle in ((1, "eta"), (2, "phi")):
        planes[f"{angle}_low"] = (codes[..., column] & 255).astype(np.uint8)
        planes[f"{angle}_neg"] = np.packbits(codes[..., column] < 0)
    packed: dict[str, NDArray[np.generic]] = {}
    for name, plane in planes.items():
        plane = np.ascontiguousarray(plane.T)  # one particle's values of all jets are alike
        content = lzma.compress(plane.tobytes(), preset=2)
        packed[f"{split}_{name}"] = np.frombuffer(content, np.uint8)
        packed[f"{split}_{name}__shape"] = np.array(plane.shape)
    return packed


def unpack(file: np.lib.npyio.NpzFile, split: str) -> tuple[Codes, NDArray[np.uint8]]:
    """What `pack` packed."""

    def plane(name: str) -> NDArray[np.uint8]:
        content = lzma.decompress(file[f"{split}_{name}"].tobytes())
        return np.frombuffer(content, np.uint8).reshape(file[f"{split}_{name}__shape"]).T

    def angle(name: str) -> Codes:
        low = plane(f"{name}_low").astype(np.int16)
        negative = np.unpackbits(plane(f"{name}_neg"))[: low.size].reshape(low.shape)
        return low - 256 * negative.astype(np.int16)

    codes = np.stack([plane("pt").astype(np.int16), angle("eta"), angle("phi")], axis=-1)
    return codes, plane("labels")


def hardest(codes: Codes, particles: int) -> Codes:
    """The `particles` of highest pT code, in the order they have: (jets, particles, 3).

    Where codes of pT tie, `prepare` looks at the pT itself, and may take another particle.
    """
    if particles == codes.shape[1]:
        return codes
    order = np.argsort(-codes[..., 0], axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    kept = np.argsort(rank >= particles, axis=1, kind="stable")[:, :particles]
    return np.take_along_axis(codes, kept[..., None], axis=1)


def load(
    folder: Path, split: str, particles: int = PARTICLES
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Model inputs (jets, particles, 3) on the input grid, and labels (jets,)."""
    codes, labels = unpack(np.load(folder / f"{split}.npz"), split)
    return hardest(codes, particles).astype(np.float32) / STEPS, labels.astype(np.int32)


def main() -> None:
    """Packs both splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chunks", type=Path, help="data/chunks of `make data`")
    parser.add_argument("folder", type=Path, help="where train.npz and validation.npz go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        codes, labels = read_codes(arguments.chunks, split)
        np.savez(arguments.folder / f"{split}.npz", **pack(codes, labels, split))
        sys.stdout.write(f"{split}: {len(labels)} jets\n")


if __name__ == "__main__":
    main()
