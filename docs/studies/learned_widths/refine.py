"""Goes on from one member of train.py's result at a fixed target: many minutes on CPUs.

Run: python refine.py n32.npz 5 --target 165000 --epochs 24 --rate 8e-4 --jets FOLDER
--teacher teacher.npz --out refined.npz
After every epoch it writes averaged weights, with one member in front.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from model import Config
from train import accuracy_of, cosine, epoch_of, jets_of, on_host, percent, progress, say, start


def main() -> None:
    """Weights of `member`, from its averaged ones, to --target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="npz that train.py wrote")
    parser.add_argument("member", type=int, help="counted from 0")
    parser.add_argument("--target", type=float, required=True, help="in LUT")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="highest learning rate")
    parser.add_argument("--until", type=float, default=0.6, help="part of it in which widths move")
    parser.add_argument("--jets", type=Path, required=True, help="folder that jets.py wrote to")
    parser.add_argument("--teacher", type=Path, required=True, help="npz that teacher.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="npz to write")
    parser.add_argument("--batch", type=int, default=1024)
    a = parser.parse_args()
    file = np.load(a.trained)
    names = [n for n in file.files if not n.startswith("_")]
    weights = {n: jnp.asarray(file[n][a.member : a.member + 1]) for n in names}
    _, particles, width = weights["im:embed"].shape
    config = Config(particles, width, weights["ff1.kernel"].shape[-1])
    train, validation = jets_of(a.jets, particles)
    teacher = jnp.asarray(np.load(a.teacher)["train"].astype(np.float32))
    state = start(weights, log_price=-14.0)
    run, accuracy_at = epoch_of(config, True, a.batch, share=0.6), accuracy_of(config, True)
    say("start", percent(accuracy_at(weights, validation)))
    key, steps = jax.random.PRNGKey(100), len(train[0]) // a.batch
    goals = jnp.full((steps, 1), a.target, jnp.float32)
    for epoch in range(a.epochs):
        at = progress(epoch, a.epochs, steps)
        rates = cosine(at, a.rate, a.rate / 100)
        if epoch == 0:
            rates *= np.linspace(0.05, 1, steps)
        width_rates = np.where(at < a.until, 1e-3, 0.0)
        key, now = jax.random.split(key)
        plan = (jnp.asarray(v, jnp.float32) for v in (rates, width_rates))
        state, ce, lut = run(state, *train, teacher, now, *plan, goals)
        accuracy = accuracy_at(state["average"], validation)
        raw = accuracy_at(state["weights"], validation)
        say(
            f"epoch {epoch + 1}/{a.epochs} ce",
            np.round(np.array(ce), 4),
            "kLUT",
            np.round(np.array(lut) / 1e3, 1),
            "acc",
            percent(accuracy),
            "raw",
            percent(raw),
        )
        figures = {"_cost": np.array(lut), "_acc": accuracy, "_epoch": np.array(epoch + 1)}
        np.savez_compressed(a.out, **on_host(state["average"]), **figures)


if __name__ == "__main__":
    main()
