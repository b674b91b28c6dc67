"""The order and the draws of a run, number for number as TensorFlow makes them.

Philox 4x32-10 (Salmon et al., 2011), keyed as TensorFlow keys its stateless operations.
"""

from __future__ import annotations

import numpy as np

# Draws of a view, and the examples whose draws are made at once.
NUM_DRAWS, DRAWN_AT_ONCE = 33, 256


def philox(key, counters: np.ndarray) -> np.ndarray:
    """Ten rounds: two words and [n, 4] words, all uint32 -> [n, 4] uint32."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    first, second = int(key[0]), int(key[1])
    x = [counters[:, i].astype(np.uint64) for i in range(4)]
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        x = [
            (q >> shift) ^ x[1] ^ np.uint64(first),
            q & low,
            (p >> shift) ^ x[3] ^ np.uint64(second),
            p & low,
        ]
        first, second = (first + 0x9E3779B9) % 2**32, (second + 0xBB67AE85) % 2**32
    return np.stack(x, axis=1).astype(np.uint32)


def random_words(seed, count: int) -> np.ndarray:
    """The words, uint32, behind `tf.random.stateless_uniform`; a seed is two int64."""
    words = np.array([seed], np.int64).view(np.uint32)
    mixed = philox((0x3EC8F720, 0x02461E29), words)[0]
    counters = np.zeros((-(-count // 4), 4), np.uint32)
    counters[:, 0], counters[:, 2:] = np.arange(len(counters)), mixed[2:]
    return philox(mixed[:2], counters).reshape(-1)[:count]


def random_ints(seed, count: int) -> np.ndarray:
    return random_words(seed, 2 * count).view(np.int64)


def fold_in(seed, number: int) -> tuple[int, int]:
    return int(random_ints(seed, 1)[0]), number


def epoch_seeds(seed: int, epoch: int) -> np.ndarray:
    """Of an epoch's order (its first number) and of its views."""
    return random_ints(fold_in((seed, 0), epoch), 4).reshape(2, 2)


def shuffled(seed: int, count: int) -> np.ndarray:
    """0, ..., count - 1 in the order of `tf.random.experimental.stateless_shuffle`."""
    order = list(range(count))
    for place, word in enumerate(random_words((seed, 0), count)[:-1].tolist()):
        other = place + word % (count - place)
        order[place], order[other] = order[other], order[place]
    return np.array(order, np.int32)


def draws(seed, start: int, stop: int) -> np.ndarray:
    """Of the examples start, ..., stop - 1 of an epoch: float32 [n, 2, NUM_DRAWS]."""
    first = start // DRAWN_AT_ONCE
    shape = (DRAWN_AT_ONCE, 2, NUM_DRAWS)
    blocks = []
    for block in range(first, -(-stop // DRAWN_AT_ONCE)):
        words = random_words(fold_in(seed, block), int(np.prod(shape)))
        bits = (words & np.uint32(0x7FFFFF)) | np.uint32(0x3F800000)
        blocks.append(bits.view(np.float32).reshape(shape) - np.float32(1))
    begun = first * DRAWN_AT_ONCE
    return np.concatenate(blocks)[start - begun : stop - begun]


def batches(seed: int, count: int, batch: int, step: int):
    """(indices, draws1, draws2) of each step from `step` on, without end."""
    steps = count // batch
    while True:
        epoch, first = divmod(step, steps)
        order_seed, view_seed = epoch_seeds(seed, epoch)
        order = shuffled(int(order_seed[0]), count)
        for place in range(first, steps):
            start, stop = place * batch, (place + 1) * batch
            drawn = draws(view_seed, start, stop)
            yield order[start:stop], drawn[:, 0].copy(), drawn[:, 1].copy()
        step = (epoch + 1) * steps
