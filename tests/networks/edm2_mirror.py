"""The network of Karras et al. (2024), Fig. 21 and appendix B, typed in NumPy from the paper: float64, channels first,
weights (out, in, k, k), one function a formula. Nothing of it is shared with jaxdiff.

Weights are named as in the figure: "enc/8x8_conv", "enc/8x8_block0/conv_res0", "dec/4x4_in0/attn_qkv", "emb_noise"."""

import numpy as np


def vector_norm(v, axes):
    """||v||_2 / sqrt(N) along axes, kept."""
    n = np.prod([v.shape[axis] for axis in axes])
    return np.sqrt(np.sum(v**2, axis=axes, keepdims=True) / n)


def norm(v, axes):  # eq. 66, eps as in its listing
    return v / (1e-4 + vector_norm(v, axes))


def silu(x):  # eq. 81
    return x / (1 + np.exp(-x)) / 0.596


def add(a, b, t):  # eq. 88
    return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)


def concat(a, b, t):  # eq. 103
    na, nb = a.shape[1], b.shape[1]
    c = np.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return np.concatenate([c * (1 - t) / np.sqrt(na) * a, c * t / np.sqrt(nb) * b], axis=1)


def conv(x, w):
    """Weight-normalised, w_i / (||w_i|| + eps) with ||.|| the norm over sqrt(fan_in); zeros around the edge."""
    fan_in = w[0].size
    w = norm(w, tuple(range(1, w.ndim))) / np.sqrt(fan_in)
    if w.ndim == 2:
        return np.einsum("nc,oc->no", x, w)
    k = w.shape[-1]
    x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    y = 0
    for i in range(k):
        for j in range(k):
            y = y + np.einsum("nchw,oc->nohw", x[:, :, i : i + height, j : j + width], w[:, :, i, j])
    return y


def attention(x, w_qkv, w_proj, heads, t):
    n, c, height, width = x.shape
    qkv = conv(x, w_qkv).reshape(n, heads, c // heads, 3, height * width)
    q, k, v = (norm(qkv[:, :, :, i], (2,)) for i in range(3))
    y = np.zeros((n, heads, c // heads, height * width))
    for b in range(n):
        for h in range(heads):
            weights = np.exp(q[b, h].T @ k[b, h] / np.sqrt(c // heads))
            weights /= weights.sum(axis=1, keepdims=True)
            y[b, h] = (weights @ v[b, h].T).T
    return add(x, conv(y.reshape(x.shape), w_proj), t)


def block(x, emb, w, kind, *, up=False, down=False, head=None, res_balance, attn_balance, clip):
    if down:
        x = (x[:, :, ::2, ::2] + x[:, :, 1::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, 1::2]) / 4
    if up:
        x = np.repeat(np.repeat(x, 2, axis=2), 2, axis=3)
    if kind == "enc":
        if "conv_skip" in w:
            x = conv(x, w["conv_skip"])
        x = norm(x, (1,))
    y = conv(silu(x), w["conv_res0"])
    c = conv(emb, w["emb_linear"]) * w["emb_gain"] + 1
    y = conv(silu(y * c[:, :, None, None]), w["conv_res1"])
    if kind == "dec" and "conv_skip" in w:
        x = conv(x, w["conv_skip"])
    x = add(x, y, res_balance)
    if head is not None:
        x = attention(x, w["attn_qkv"], w["attn_proj"], x.shape[1] // head, attn_balance)
    return np.clip(x, -clip, clip)


def network(
    weights, x, c_noise, one_hot, *, mult, num_blocks, attn_resolutions, head,
    label_balance=0.5, concat_balance=0.5, res_balance=0.3, attn_balance=0.3, clip=256.0,
):  # fmt: skip
    """F(x; c_noise, label): x (N, C, H, W), c_noise (N,), one_hot (N, classes) or None for a network without."""

    def part(name):
        return {key[len(name) + 1 :]: value for key, value in weights.items() if key.startswith(name + "/")}

    def run(x, name, kind, **options):
        options |= {"res_balance": res_balance, "attn_balance": attn_balance, "clip": clip}
        return block(x, emb, part(f"{kind}/{name}"), kind, **options)

    frequencies, phases = weights["emb_fourier/freqs"], weights["emb_fourier/phases"]
    emb = conv(np.sqrt(2) * np.cos(np.outer(c_noise, frequencies) + phases), weights["emb_noise"])
    if one_hot is not None:
        emb = add(emb, conv(one_hot * np.sqrt(one_hot.shape[1]), weights["emb_label"]), label_balance)
    emb = silu(emb)

    resolution = x.shape[2]
    x = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
    skips = []
    for level in range(len(mult)):
        res = resolution >> level
        here = {"head": head if res in attn_resolutions else None}
        at = f"{res}x{res}"
        x = conv(x, weights[f"enc/{at}_conv"]) if level == 0 else run(x, f"{at}_down", "enc", down=True)
        skips.append(x)
        for i in range(num_blocks):
            x = run(x, f"{res}x{res}_block{i}", "enc", **here)
            skips.append(x)
    for level in reversed(range(len(mult))):
        res = resolution >> level
        here = {"head": head if res in attn_resolutions else None}
        if level == len(mult) - 1:
            x = run(x, f"{res}x{res}_in0", "dec", head=head)
            x = run(x, f"{res}x{res}_in1", "dec")
        else:
            x = run(x, f"{res}x{res}_up", "dec", up=True)
        for i in range(num_blocks + 1):
            x = run(concat(x, skips.pop(), concat_balance), f"{res}x{res}_block{i}", "dec", **here)
    return conv(x, weights["out_conv"]) * weights["out_gain"]


def log_variance(weights, c_noise):
    features = np.sqrt(2) * np.cos(np.outer(c_noise, weights["freqs"]) + weights["phases"])
    return conv(features, weights["linear"])[:, 0]
