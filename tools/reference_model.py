#!/usr/bin/env python3
"""A Llama-3-family transformer in float64 NumPy: loss, all gradients by hand, AdamW. It is the oracle of tests/model.

It was derived from the definitions of the model and not from the C++: everything is written with einsum on
(batch, position, head, channel) arrays and nothing is fused. `--check` compares its gradients with finite differences
of its own loss; without arguments it writes the golden file.

    tools/reference_model.py --check
    tools/reference_model.py --output tests/golden/tiny_model.json
"""

import argparse
import hashlib
import json
import statistics

import numpy as np

CONFIG = dict(vocabulary=23, width=16, layers=2, heads=4, kv_heads=2, head_size=6, feed_forward=20,
              sequence_length=12, rope_base=100.0, norm_epsilon=1e-5, z_loss_weight=0.01)
OPTIMIZER = dict(learning_rate=0.01, beta1=0.9, beta2=0.95, epsilon=1e-3, weight_decay=0.1, gradient_norm_max=0.5)
UPDATES = 2
SEED = 20241128


def tensor_shapes(c):
    """Full names and shapes, in canonical order."""
    C, F, D = c['width'], c['feed_forward'], c['head_size']
    shapes = {'embedding.embedding': (c['vocabulary'], C)}
    for i in range(c['layers']):
        shapes |= {f'blocks.{i}.norm1': (C,),
                   f'blocks.{i}.qkv': ((c['heads'] + 2 * c['kv_heads']) * D, C),
                   f'blocks.{i}.out': (C, c['heads'] * D),
                   f'blocks.{i}.norm2': (C,),
                   f'blocks.{i}.gate': (F, C),
                   f'blocks.{i}.up': (F, C),
                   f'blocks.{i}.down': (C, F)}
    return shapes | {'head.norm': (C,), 'head.head': (c['vocabulary'], C)}


def make_weights(c, random):
    """Large enough that every part of the model matters to the loss; rounded to fp32, which the file then holds exactly."""
    weights = {}
    for name, shape in tensor_shapes(c).items():
        if len(shape) == 1:
            value = random.uniform(0.5, 1.5, shape)
        else:
            value = random.normal(0, 1.2 / np.sqrt(shape[1]), shape)
        weights[name] = value.astype(np.float32).astype(np.float64)
    return weights


def make_batch(c, random):
    """Two rows; in each, a second document starts at another place. One target is not counted."""
    T = c['sequence_length']
    tokens = random.integers(0, c['vocabulary'], (2, T))
    targets = random.integers(0, c['vocabulary'], (2, T))
    targets[0, 5] = -1
    starts = np.zeros((2, T), dtype=np.int64)
    starts[0, 7:] = 7
    starts[1, 3:] = 3
    return dict(tokens=tokens, targets=targets, document_starts=starts)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Each operation returns its result and a function from the result's gradient to the gradients of its inputs.

def rmsnorm(x, weight, epsilon):
    mean_square = np.mean(x * x, axis=-1, keepdims=True) + epsilon
    unit = x / np.sqrt(mean_square)

    def backward(dy):
        dunit = dy * weight
        dx = dunit / np.sqrt(mean_square)
        dmean_square = np.sum(dunit * x, axis=-1, keepdims=True) * -0.5 * mean_square**-1.5
        return dx + dmean_square * 2 * x / x.shape[-1], np.einsum('btc,btc->c', dy, unit)

    return unit * weight, backward


def linear(x, weight):
    def backward(dy):
        return np.einsum('bto,oc->btc', dy, weight), np.einsum('bto,btc->oc', dy, x)

    return np.einsum('btc,oc->bto', x, weight), backward


def rope(x, base):
    """x (b, t, h, d): pair (j, j + d/2) turned by t * base^(-2j/d)."""
    half = x.shape[-1] // 2
    frequency = base ** (-2.0 * np.arange(half) / x.shape[-1])
    angle = np.arange(x.shape[1])[:, None] * frequency

    def turn(v, sign):
        rotated = (v[..., :half] + 1j * v[..., half:]) * np.exp(1j * sign * angle)[:, None, :]
        return np.concatenate([rotated.real, rotated.imag], axis=-1)

    return turn(x, 1), lambda dy: turn(dy, -1)


def attention(q, k, v, starts):
    """q (b, t, H, d); k, v (b, t, K, d). Causal, inside documents."""
    groups = q.shape[2] // k.shape[2]
    keys, values = np.repeat(k, groups, axis=2), np.repeat(v, groups, axis=2)
    scale = 1 / np.sqrt(q.shape[-1])
    position = np.arange(q.shape[1])
    visible = (position[None, None, :] <= position[None, :, None]) & (position[None, None, :] >= starts[:, :, None])
    scores = np.einsum('bihd,bjhd->bhij', q, keys) * scale
    scores = np.where(visible[:, None], scores, -np.inf)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)

    def gather_groups(x):
        return x.reshape(*k.shape[:3], groups, k.shape[3]).sum(axis=3)

    def backward(dout):
        dp = np.einsum('bihd,bjhd->bhij', dout, values)
        dscores = p * (dp - np.sum(dp * p, axis=-1, keepdims=True)) * scale
        dq = np.einsum('bhij,bjhd->bihd', dscores, keys)
        dk = gather_groups(np.einsum('bhij,bihd->bjhd', dscores, q))
        dv = gather_groups(np.einsum('bhij,bihd->bjhd', p, dout))
        return dq, dk, dv

    return np.einsum('bhij,bjhd->bihd', p, values), backward


def swiglu(gate, up):
    s = sigmoid(gate)

    def backward(dy):
        return dy * up * (s + gate * s * (1 - s)), dy * gate * s

    return gate * s * up, backward


def losses(logits, targets, z_weight):
    """Sums of cross-entropy and of z_weight * (largest logit)^2 over counted targets, and the gradient of their sum."""
    counted = targets >= 0
    largest = logits.max(axis=-1)
    exponentials = np.exp(logits - largest[..., None])
    log_sum = np.log(exponentials.sum(axis=-1)) + largest
    right = np.take_along_axis(logits, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    loss = np.sum((log_sum - right)[counted])
    z_loss = np.sum(z_weight * largest[counted] ** 2)

    gradient = exponentials / exponentials.sum(axis=-1, keepdims=True)
    for index in np.ndindex(targets.shape):
        if counted[index]:
            gradient[index][targets[index]] -= 1
            gradient[index][np.argmax(logits[index])] += 2 * z_weight * largest[index]
        else:
            gradient[index] = 0
    return loss, z_loss, gradient


def block(c, w, x, starts):
    """w: the block's tensors by local name. Returns the new residual stream and its backward."""
    H, K, D = c['heads'], c['kv_heads'], c['head_size']
    normed, norm1_backward = rmsnorm(x, w['norm1'], c['norm_epsilon'])
    qkv, qkv_backward = linear(normed, w['qkv'])
    heads = qkv.reshape(*x.shape[:2], H + 2 * K, D)
    q, q_backward = rope(heads[:, :, :H], c['rope_base'])
    k, k_backward = rope(heads[:, :, H:H + K], c['rope_base'])
    mixed, attention_backward = attention(q, k, heads[:, :, H + K:], starts)
    branch, out_backward = linear(mixed.reshape(*x.shape[:2], H * D), w['out'])
    middle = x + branch

    normed2, norm2_backward = rmsnorm(middle, w['norm2'], c['norm_epsilon'])
    gate, gate_backward = linear(normed2, w['gate'])
    up, up_backward = linear(normed2, w['up'])
    hidden, swiglu_backward = swiglu(gate, up)
    branch2, down_backward = linear(hidden, w['down'])

    def backward(dy):
        g = {}
        dhidden, g['down'] = down_backward(dy)
        dgate, dup = swiglu_backward(dhidden)
        dnormed_a, g['gate'] = gate_backward(dgate)
        dnormed_b, g['up'] = up_backward(dup)
        dmiddle, g['norm2'] = norm2_backward(dnormed_a + dnormed_b)
        dmiddle = dmiddle + dy
        dmixed, g['out'] = out_backward(dmiddle)
        dq, dk, dv = attention_backward(dmixed.reshape(mixed.shape))
        dheads = np.concatenate([q_backward(dq), k_backward(dk), dv], axis=2)
        dnormed, g['qkv'] = qkv_backward(dheads.reshape(qkv.shape))
        dx, g['norm1'] = norm1_backward(dnormed)
        return dx + dmiddle, g

    return middle + branch2, backward


def model(c, weights, batch):
    """Returns (loss sum, z-loss sum, counted targets, gradients of (loss + z-loss) / counted targets)."""
    tokens = batch['tokens']
    x = weights['embedding.embedding'][tokens]
    block_backwards = []
    for i in range(c['layers']):
        local = {name.rsplit('.', 1)[1]: w for name, w in weights.items() if name.startswith(f'blocks.{i}.')}
        x, backward = block(c, local, x, batch['document_starts'])
        block_backwards.append(backward)
    normed, norm_backward = rmsnorm(x, weights['head.norm'], c['norm_epsilon'])
    logits, head_backward = linear(normed, weights['head.head'])
    loss, z_loss, dlogits = losses(logits, batch['targets'], c['z_loss_weight'])
    count = int(np.sum(batch['targets'] >= 0))

    gradients = {}
    dnormed, gradients['head.head'] = head_backward(dlogits / count)
    dx, gradients['head.norm'] = norm_backward(dnormed)
    for i in reversed(range(c['layers'])):
        dx, local = block_backwards[i](dx)
        gradients |= {f'blocks.{i}.{name}': g for name, g in local.items()}
    gradients['embedding.embedding'] = np.zeros_like(weights['embedding.embedding'])
    np.add.at(gradients['embedding.embedding'], tokens, dx)
    return loss, z_loss, count, gradients


def global_norm(gradients):
    return np.sqrt(sum(np.sum(g * g) for g in gradients.values()))


def adamw_updates(c, o, weights, batch, updates):
    """Weights after some updates on the same batch."""
    weights = dict(weights)
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(1, updates + 1):
        gradients = model(c, weights, batch)[3]
        scale = min(1, o['gradient_norm_max'] / (global_norm(gradients) + 1e-6))
        for name in weights:
            g = gradients[name] * scale
            m[name] = o['beta1'] * m[name] + (1 - o['beta1']) * g
            v[name] = o['beta2'] * v[name] + (1 - o['beta2']) * g * g
            direction = (m[name] / (1 - o['beta1']**step)) / (np.sqrt(v[name] / (1 - o['beta2']**step)) + o['epsilon'])
            weights[name] = weights[name] - o['learning_rate'] * (direction + o['weight_decay'] * weights[name])
    return weights


def philox4x32(key, low, high):
    """Philox4x32-10 of Salmon et al. (SC 2011) for a 64-bit key and a 128-bit counter."""
    mask = 0xFFFFFFFF
    c = [low & mask, low >> 32, high & mask, high >> 32]
    k0, k1 = key & mask, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & mask, (p0 >> 32) ^ c[3] ^ k1, p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


def initial_values(name, seed, deviation, cut, count):
    """The first elements of a tensor at step 0."""
    high = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little')
    values = []
    for element in range(count):
        attempt = 0
        while True:
            word = philox4x32(seed, element // 4 | attempt << 56, high)[element % 4]
            x = statistics.NormalDist().inv_cdf((word + 0.5) / 2**32)
            if cut == 0 or abs(x) <= cut:
                break
            attempt += 1
        values.append(deviation * x)
    return values


def check(c, weights, batch):
    """Every gradient against central differences along random directions, and along single elements."""
    def total(w):
        loss, z_loss, count, _ = model(c, w, batch)
        return (loss + z_loss) / count

    random = np.random.default_rng(1)
    gradients = model(c, weights, batch)[3]
    step, worst = 1e-5, 0.0
    for name, weight in weights.items():
        directions = [random.normal(size=weight.shape) for _ in range(3)]
        for _ in range(5):
            one = np.zeros(weight.shape)
            one.flat[random.integers(weight.size)] = 1
            directions.append(one)
        for direction in directions:
            difference = (total(weights | {name: weight + step * direction}) -
                          total(weights | {name: weight - step * direction})) / (2 * step)
            product = np.sum(gradients[name] * direction)
            worst = max(worst, abs(difference - product) / (1e-3 + abs(difference)))
    print(f'worst relative difference to finite differences: {worst:.1e}')
    assert worst < 1e-6, worst


def rounded(array):
    return [float(f'{x:.8e}') for x in np.ravel(array)]


def golden(c, o, weights, batch):
    loss, z_loss, count, gradients = model(c, weights, batch)
    after = adamw_updates(c, o, weights, batch, UPDATES)
    initial = dict(name='head.head', seed=7, standard_deviation=0.25, cut=1.5)
    initial['values'] = rounded(initial_values(initial['name'], initial['seed'], initial['standard_deviation'],
                                               initial['cut'], 64))
    return dict(config=c, optimizer=o, updates=UPDATES,
                batch={name: [int(x) for x in np.ravel(value)] for name, value in batch.items()},
                loss=float(loss), z_loss=float(z_loss), count=count, gradient_norm=float(global_norm(gradients)),
                tensors=[dict(name=name, weight=rounded(weights[name]), gradient=rounded(gradients[name]),
                              updated=rounded(after[name])) for name in tensor_shapes(c)],
                initial=initial)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--check', action='store_true', help='compare with finite differences')
    parser.add_argument('--output', help='golden file to write')
    arguments = parser.parse_args()
    random = np.random.default_rng(SEED)
    weights = make_weights(CONFIG, random)
    batch = make_batch(CONFIG, random)
    if arguments.check:
        check(CONFIG, weights, batch)
    if arguments.output:
        with open(arguments.output, 'w', encoding='utf-8') as file:
            json.dump(golden(CONFIG, OPTIMIZER, weights, batch), file, separators=(',', ':'))
            file.write('\n')


if __name__ == '__main__':
    main()
