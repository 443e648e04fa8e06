"""The teacher: a large float tagger, whose logits of the training jets SAL-T learns from.

Five layers of full attention, 96 wide, with eight heads and pairwise features of the particles
added to the attention's logits, in bfloat16. Run:
python teacher.py --jets FOLDER --out teacher.npz
It writes the logits of all training jets as `train` (jets, 5) float16.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from limits import CLASSES
from model import Weights
from numpy.typing import NDArray
from train import Jets, adam, cosine, cross_entropy, jets_of, percent, progress, say

WIDTH, LAYERS, HEADS, HIDDEN, PAIR_HIDDEN = 96, 5, 8, 256, 32
LEARNING_RATE, WEIGHT_DECAY, AVERAGE = 1e-3, 0.02, 0.0015
PREDICTED = 4096
MASKED = -1e9


def initial_weights(key: Array) -> Weights:
    """Float weights; kernels (inputs, outputs)."""
    keys = iter(jax.random.split(key, 200))

    def kernel(inputs: int, outputs: int) -> Array:
        return jax.random.normal(next(keys), (inputs, outputs)) / math.sqrt(inputs)

    weights = {
        "input1.kernel": kernel(6, WIDTH),
        "input1.bias": jnp.zeros(WIDTH),
        "input2.kernel": kernel(WIDTH, WIDTH),
        "input2.bias": jnp.zeros(WIDTH),
        "pair1.kernel": kernel(4, PAIR_HIDDEN),
        "pair1.bias": jnp.zeros(PAIR_HIDDEN),
        "pair2.kernel": kernel(PAIR_HIDDEN, PAIR_HIDDEN),
        "pair2.bias": jnp.zeros(PAIR_HIDDEN),
        "pair3.kernel": kernel(PAIR_HIDDEN, HEADS) * 0.1,
        "pool.kernel": kernel(WIDTH, 1) * 0.1,
        "head.kernel": kernel(2 * WIDTH, WIDTH),
        "head.bias": jnp.zeros(WIDTH),
        "classes.kernel": kernel(WIDTH, CLASSES),
        "classes.bias": jnp.zeros(CLASSES),
    }
    for i in range(LAYERS):
        weights |= {
            f"{i}.qkv.kernel": kernel(WIDTH, 3 * WIDTH),
            f"{i}.output.kernel": kernel(WIDTH, WIDTH) * 0.5,
            f"{i}.ff1.kernel": kernel(WIDTH, HIDDEN),
            f"{i}.ff1.bias": jnp.zeros(HIDDEN),
            f"{i}.ff2.kernel": kernel(HIDDEN, WIDTH) * 0.5,
            f"{i}.norm1.gain": jnp.ones(WIDTH),
            f"{i}.norm2.gain": jnp.ones(WIDTH),
        }
    return weights | {"norm.gain": jnp.ones(WIDTH)}


def normalized(x: Array, gain: Array) -> Array:
    """Layer normalization without a bias, computed in float32."""
    x = x.astype(jnp.float32)
    scale = lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    return ((x - x.mean(-1, keepdims=True)) * scale * gain).astype(jnp.bfloat16)


def particle_features(log_pt: Array, eta: Array, phi: Array) -> Array:
    """(batch, N, 6): log2(1 + pT), angles, log of pT / jet pT, of deltaR, and of jet pT, scaled."""
    pt = jnp.exp2(log_pt) - 1
    total = pt.sum(-1, keepdims=True)
    distance = jnp.sqrt(eta**2 + phi**2 + 1e-8)
    features = [
        log_pt / 3 - 1.5,
        eta * 4,
        phi * 4,
        jnp.log(pt / total + 1e-5) / 2 + 2,
        jnp.log(distance + 1e-3) / 1.5 + 1.5,
        jnp.log(total + 0 * log_pt) - 6.5,
    ]
    return jnp.stack(features, -1)


def pair_features(log_pt: Array, eta: Array, phi: Array) -> Array:
    """(batch, N, N, 4): logarithms of deltaR, kT = min pT deltaR, z = min pT / (sum of both pT),
    and of pT pT deltaR^2, which is like m^2; a third of each."""
    pt = jnp.exp2(log_pt) - 1
    one, two = pt[:, :, None], pt[:, None]
    square = (eta[:, :, None] - eta[:, None]) ** 2 + (phi[:, :, None] - phi[:, None]) ** 2
    distance = jnp.sqrt(square + 1e-6)
    softer = jnp.minimum(one, two)
    features = [
        jnp.log(distance),
        jnp.log(softer * distance + 1e-3),
        jnp.log(softer / (one + two + 1e-6) + 1e-4),
        jnp.log(one * two * distance * distance + 1e-4),
    ]
    return jnp.stack(features, -1) / 3


def forward(weights: Weights, x: Array) -> Array:
    """Inputs of salt_p4 (batch, N, 3) to logits (batch, 5)."""

    def dense(layer: str, x: Array) -> Array:
        y = x.astype(jnp.bfloat16) @ weights[f"{layer}.kernel"].astype(jnp.bfloat16)
        bias = weights.get(f"{layer}.bias")
        return y if bias is None else y + bias.astype(jnp.bfloat16)

    log_pt, eta, phi = x[..., 0] * 2, x[..., 1] / 8, x[..., 2] / 8  # log2(1 + pT/GeV), rad, rad
    real = log_pt > 0
    batch, n = real.shape
    h = dense("input2", jax.nn.gelu(dense("input1", particle_features(log_pt, eta, phi))))
    pairs = jax.nn.gelu(dense("pair1", pair_features(log_pt, eta, phi)))
    pairs = dense("pair3", jax.nn.gelu(dense("pair2", pairs)))
    bias = pairs.transpose(0, 3, 1, 2).astype(jnp.float32)  # (batch, heads, N, N)
    bias = jnp.where(real[:, None, None, :], bias, MASKED)
    for i in range(LAYERS):
        qkv = dense(f"{i}.qkv", normalized(h, weights[f"{i}.norm1.gain"]))
        q, k, v = jnp.split(qkv.reshape(batch, n, 3 * HEADS, WIDTH // HEADS), 3, 2)
        logits = jnp.einsum("bnhd,bmhd->bhnm", q, k).astype(jnp.float32)
        attention = jax.nn.softmax(logits / math.sqrt(WIDTH // HEADS) + bias)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", attention.astype(jnp.bfloat16), v)
        h = h + dense(f"{i}.output", mixed.reshape(batch, n, WIDTH))
        hidden = jax.nn.gelu(dense(f"{i}.ff1", normalized(h, weights[f"{i}.norm2.gain"])))
        h = h + dense(f"{i}.ff2", hidden)
    h = normalized(h, weights["norm.gain"])
    scores = jnp.where(real, dense("pool", h)[..., 0].astype(jnp.float32), MASKED)
    pooled = jnp.einsum("bn,bnd->bd", jax.nn.softmax(scores).astype(jnp.bfloat16), h)
    mean = jnp.where(real[..., None], h, 0).mean(1)
    hidden = jax.nn.gelu(dense("head", jnp.concatenate([pooled, mean], -1)))
    logits = hidden @ weights["classes.kernel"].astype(jnp.bfloat16)
    return logits.astype(jnp.float32) + weights["classes.bias"]


def reflected(key: Array, x: Array) -> Array:
    """Each jet with the sign of each angle, and their order, by chance."""
    flip_eta, flip_phi, swap = jax.random.bernoulli(key, 0.5, (3, len(x)))[..., None]
    eta, phi = (
        jnp.where(flip_eta, -x[..., 1], x[..., 1]),
        jnp.where(flip_phi, -x[..., 2], x[..., 2]),
    )
    return jnp.stack([x[..., 0], jnp.where(swap, phi, eta), jnp.where(swap, eta, phi)], -1)


@jax.jit
def mean_logits(weights: Weights, x: Array) -> Array:
    """Mean over the four signs of the angles."""
    signs = ((1, 1), (-1, 1), (1, -1), (-1, -1))
    views = (jnp.stack([x[..., 0], a * x[..., 1], b * x[..., 2]], -1) for a, b in signs)
    return sum(forward(weights, view) for view in views) / 4


def predict(weights: Weights, x: Array) -> NDArray[np.float32]:
    """`mean_logits` of any number of jets."""
    parts = (x[i : i + PREDICTED] for i in range(0, len(x), PREDICTED))
    return np.concatenate([np.array(mean_logits(weights, part)) for part in parts])


def epoch_of(batch: int) -> Callable[..., tuple[tuple[Weights, ...], Array]]:
    """One epoch, compiled: (state, jets, key, learning rates (steps,)) to (state, mean loss).

    state: weights, both moments of Adam, averaged weights, steps. Adam with decoupled weight decay
    of the kernels; gradients longer than 1 are scaled to 1.
    """

    def loss(weights: Weights, x: Array, labels: Array) -> Array:
        return cross_entropy(forward(weights, x), labels)

    @jax.jit
    def epoch(
        state: tuple[Weights, ...], jets: Jets, key: Array, rates: Array
    ) -> tuple[tuple[Weights, ...], Array]:
        shuffle, reflect = jax.random.split(key)
        steps = len(rates)
        order = jax.random.permutation(shuffle, len(jets[0]))[: steps * batch]

        def body(
            state: tuple[Weights, ...], at: tuple[Array, ...]
        ) -> tuple[tuple[Weights, ...], Array]:
            rows, rate, key = at
            old, first, second, average, step = state
            x, labels = reflected(key, jets[0][rows]), jets[1][rows]
            value, gradients = jax.value_and_grad(loss)(old, x, labels)
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradients)))
            step = step + 1
            weights, firsts, seconds = {}, {}, {}
            for name, weight in old.items():
                gradient = gradients[name] * jnp.minimum(1, 1 / norm)
                change, firsts[name], seconds[name] = adam(
                    gradient, first[name], second[name], step, rate
                )
                decay = rate * WEIGHT_DECAY * weight if weight.ndim == 2 else 0
                weights[name] = weight + change - decay
            average = {n: (1 - AVERAGE) * average[n] + AVERAGE * weights[n] for n in weights}
            return (weights, firsts, seconds, average, step), value

        each = order.reshape(steps, batch), rates, jax.random.split(reflect, steps)
        state, losses = lax.scan(body, state, each)
        return state, losses.mean()

    return epoch


def train_teacher(train: Jets, validation: Jets, batch: int, epochs: int) -> Weights:
    """Averaged weights. The learning rate falls as a cosine to 1e-5 after one epoch of rising."""
    weights = initial_weights(jax.random.PRNGKey(0))
    zeros = {n: jnp.zeros_like(w) for n, w in weights.items()}
    state = weights, zeros, zeros, weights, jnp.float32(0)
    run, key, steps = epoch_of(batch), jax.random.PRNGKey(1), len(train[0]) // batch
    for epoch in range(epochs):
        rates = cosine(progress(epoch, epochs, steps), LEARNING_RATE, 1e-5)
        if epoch == 0:
            rates *= np.linspace(0.02, 1, steps)
        key, now = jax.random.split(key)
        state, loss = run(state, train, now, jnp.asarray(rates, jnp.float32))
        if epoch < 2 or (epoch + 1) % 5 == 0 or epoch + 1 == epochs:
            right = predict(state[3], validation[0]).argmax(-1) == np.array(validation[1])
            shown = round(float(loss), 4), "validation", percent(right.mean())
            say("teacher epoch", epoch + 1, "loss", *shown)
    return state[3]


def main() -> None:
    """Trains, and writes the logits of the training jets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jets", type=Path, required=True, help="folder that jets.py wrote to")
    parser.add_argument("--out", type=Path, required=True, help="npz to write")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--batch", type=int, default=1024)
    a = parser.parse_args()
    train, validation = jets_of(a.jets, 32)
    weights = train_teacher(train, validation, a.batch, a.epochs)
    np.savez(a.out, train=predict(weights, train[0]).astype(np.float16))
    say("teacher saved")


if __name__ == "__main__":
    main()
