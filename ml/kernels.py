"""The inner loops of lanes on a CPU, compiled by Numba.

They exist because they measured several times faster than torch's operations (benchmarks/README.md): a network's first
layer sees images that are mostly dark, so it multiplies lit pixels only; and a gradient row is made, used by the
optimizer and forgotten while it is in the first-level cache, so that an optimizer's state is read and written once.

Indices are unsigned, because Numba checks signed ones for wrap-around and then does not vectorise the loop. Arrays that
are walked row by row come flattened, because a view of a row costs more than a narrow row takes.
NaN and infinity keep their meaning: of LLVM's fast-math flags those that assume their absence are left out.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit, uint64

from ml.optimizers import ADAM_BETAS, ADAM_EPSILON

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(function: F) -> F:
    """Compile at the first call, or take what an earlier process compiled from the cache."""
    flags = {"contract", "reassoc", "nsz"}
    compiled: F = njit(nogil=True, cache=True, fastmath=flags, error_model="numpy")(function)
    return compiled


BETA1, BETA2 = ADAM_BETAS
EPSILON = ADAM_EPSILON
REST1, REST2 = 1 - BETA1, 1 - BETA2


@_compiled
def _add(out, o, factor, x, i, n):  # type: ignore[no-untyped-def]
    """out[o : o + n] += factor × x[i : i + n]."""
    for j in range(n):
        out[o + j] += factor * x[i + j]


@_compiled
def lit_pixels(images, indices, scale, counts, rows, values):  # type: ignore[no-untyped-def]
    """List, pixel by pixel, which images of a batch are not dark there.

    images uint8 [n, pixels] and indices int64 [batch] name the batch; scale [256] turns a pixel into its value.
    Fills counts int64 [pixels + 1], rows int64 and values [pixels + 1, batch]; the last pixel is the bias: 1 everywhere.
    """
    pixels = images.shape[1]
    counts[:] = 0
    for b in range(indices.shape[0]):
        image = images[indices[b]]
        for p in range(pixels):
            v = image[p]
            if v:
                c = counts[p]
                rows[p, c] = b
                values[p, c] = scale[v]
                counts[p] = c + 1
        rows[pixels, b] = b
        values[pixels, b] = 1
    counts[pixels] = indices.shape[0]


@_compiled
def wide_forward(weight, counts, rows, values, out):  # type: ignore[no-untyped-def]
    """out [batch, columns] = lit pixels × weight [pixels + 1, columns], whose last row is the bias."""
    bias = weight[-1]
    for b in range(out.shape[0]):
        out[b] = bias
    n = uint64(weight.shape[1])
    flat, result = weight.reshape(-1), out.reshape(-1)
    for p in range(weight.shape[0] - 1):
        w = uint64(p) * n
        for c in range(counts[p]):
            x = values[p, c]
            _add(result, uint64(rows[p, c]) * n, x, flat, w, n)


@_compiled
def _gradient_row(delta, n, count, rows, values, row):  # type: ignore[no-untyped-def]
    """row [n] = Σ over the listed images of value × delta [batch × n]; four at a time, to load and store `row` less."""
    for j in range(n):
        row[j] = 0
    c = 0
    while c + 4 <= count:
        x0, x1, x2, x3 = values[c], values[c + 1], values[c + 2], values[c + 3]
        r0, r1 = uint64(rows[c]) * n, uint64(rows[c + 1]) * n
        r2, r3 = uint64(rows[c + 2]) * n, uint64(rows[c + 3]) * n
        for j in range(n):
            row[j] += (x0 * delta[r0 + j] + x1 * delta[r1 + j]) + (x2 * delta[r2 + j] + x3 * delta[r3 + j])
        c += 4
    while c < count:
        x0 = values[c]
        r0 = uint64(rows[c]) * n
        for j in range(n):
            row[j] += x0 * delta[r0 + j]
        c += 1


@_compiled
def _adam(w, m, v, o, g, first, last, rate, root, decay):  # type: ignore[no-untyped-def]
    """Adam's step for columns first..last of the row at o, by torch's formula with per-column coefficients."""
    b1, a1, b2, a2 = w.dtype.type(BETA1), w.dtype.type(REST1), w.dtype.type(BETA2), w.dtype.type(REST2)
    eps = w.dtype.type(EPSILON)
    for j in range(first, last):
        gradient = g[j] + decay[j] * w[o + j]
        mean = b1 * m[o + j] + a1 * gradient
        square = b2 * v[o + j] + a2 * gradient * gradient
        m[o + j] = mean
        v[o + j] = square
        w[o + j] -= rate[j] * mean / (np.sqrt(square) * root[j] + eps)


@_compiled
def _momentum(w, m, o, g, first, last, rate, decay, momentum):  # type: ignore[no-untyped-def]
    """SGD's step with momentum."""
    for j in range(first, last):
        velocity = momentum[j] * m[o + j] + g[j] + decay[j] * w[o + j]
        m[o + j] = velocity
        w[o + j] -= rate[j] * velocity


@_compiled
def _sgd(w, o, g, first, last, rate, decay):  # type: ignore[no-untyped-def]
    """SGD's step without momentum."""
    for j in range(first, last):
        w[o + j] -= rate[j] * (g[j] + decay[j] * w[o + j])


@_compiled
def wide_update(weight, m, v, delta, counts, rows, values, bounds, still, rate, root, decay, momentum, row):  # type: ignore[no-untyped-def]
    """One optimizer step of a first layer, each gradient row made from delta [batch, columns] where it is needed.

    Columns up to bounds[0] follow Adam, up to bounds[1] SGD with momentum, the others plain SGD; rate, root, decay and
    momentum hold a number a column (`hyper.py`). `still`: no decay, so plain SGD has nothing to do where no pixel is lit.
    """
    n = uint64(weight.shape[1])
    adam, heavy = uint64(bounds[0]), uint64(bounds[1])
    w, mean, square, d = weight.reshape(-1), m.reshape(-1), v.reshape(-1), delta.reshape(-1)
    for p in range(weight.shape[0]):
        o = uint64(p) * n
        if counts[p] == 0 and still and heavy == 0:
            continue
        _gradient_row(d, n, counts[p], rows[p], values[p], row)
        _adam(w, mean, square, o, row, uint64(0), adam, rate, root, decay)
        _momentum(w, mean, o, row, adam, heavy, rate, decay, momentum)
        _sgd(w, o, row, heavy, n, rate, decay)


@_compiled
def lane_update(weight, gradient, m, v, bounds, rate, root, decay, momentum):  # type: ignore[no-untyped-def]
    """One optimizer step of weight [lanes, n], given its gradient; coefficients are a number a lane."""
    b1, a1 = weight.dtype.type(BETA1), weight.dtype.type(REST1)
    b2, a2 = weight.dtype.type(BETA2), weight.dtype.type(REST2)
    eps = weight.dtype.type(EPSILON)
    for k in range(weight.shape[0]):
        s, q, decayed, kept = rate[k], root[k], decay[k], momentum[k]
        w, g, mean, square = weight[k], gradient[k], m[k], v[k]
        if k < bounds[0]:
            for j in range(w.shape[0]):
                step = g[j] + decayed * w[j]
                mean[j] = b1 * mean[j] + a1 * step
                square[j] = b2 * square[j] + a2 * step * step
                w[j] -= s * mean[j] / (np.sqrt(square[j]) * q + eps)
        elif k < bounds[1]:
            for j in range(w.shape[0]):
                mean[j] = kept * mean[j] + g[j] + decayed * w[j]
                w[j] -= s * mean[j]
        else:
            for j in range(w.shape[0]):
                w[j] -= s * (g[j] + decayed * w[j])


@_compiled
def image_convolution(images, indices, scale, weight, out):  # type: ignore[no-untyped-def]
    """Convolve a batch of images with every lane's kernels at once, lit pixels only.

    images uint8 [n, channels, height, width]; weight [channels, size, size, columns], its last kernel axis reversed, so
    that what one pixel adds to a row of out [batch, height, width, columns] is one run of numbers on both sides.
    Adds to out.
    """
    channels, size, n = weight.shape[0], weight.shape[1], uint64(weight.shape[3])
    high, wide = out.shape[1], out.shape[2]
    w, result = weight.reshape(-1), out.reshape(-1)
    for b in range(indices.shape[0]):
        for c in range(channels):
            image = images[indices[b], c]
            for py in range(image.shape[0]):
                for px in range(image.shape[1]):
                    if image[py, px] == 0:
                        continue
                    x = scale[image[py, px]]
                    first, last = max(0, px - size + 1), min(wide - 1, px)
                    run = uint64(last - first + 1) * n
                    for ky in range(max(0, py - high + 1), min(size, py + 1)):
                        o = uint64((b * high + py - ky) * wide + first) * n
                        i = uint64((c * size + ky) * size + first - (px - size + 1)) * n
                        _add(result, o, x, w, i, run)


@_compiled
def image_convolution_gradient(images, indices, scale, delta, gradient):  # type: ignore[no-untyped-def]
    """Add to gradient, in the layout of `image_convolution`, what delta [batch, height, width, columns] asks for."""
    channels, size, n = gradient.shape[0], gradient.shape[1], uint64(gradient.shape[3])
    high, wide = delta.shape[1], delta.shape[2]
    g, d = gradient.reshape(-1), delta.reshape(-1)
    for b in range(indices.shape[0]):
        for c in range(channels):
            image = images[indices[b], c]
            for py in range(image.shape[0]):
                for px in range(image.shape[1]):
                    if image[py, px] == 0:
                        continue
                    x = scale[image[py, px]]
                    first, last = max(0, px - size + 1), min(wide - 1, px)
                    run = uint64(last - first + 1) * n
                    for ky in range(max(0, py - high + 1), min(size, py + 1)):
                        o = uint64((b * high + py - ky) * wide + first) * n
                        i = uint64((c * size + ky) * size + first - (px - size + 1)) * n
                        _add(g, i, x, d, o, run)


@_compiled
def _copy(out, o, x, i, n):  # type: ignore[no-untyped-def]
    """out[o : o + n] = x[i : i + n]."""
    for j in range(n):
        out[o + j] = x[i + j]


@_compiled
def _maximum(out, o, x, i, n):  # type: ignore[no-untyped-def]
    """out[o : o + n] = the larger of itself and x[i : i + n]; NaN is largest."""
    for j in range(n):
        out[o + j] = np.maximum(out[o + j], x[i + j])


@_compiled
def pool(x, size, out):  # type: ignore[no-untyped-def]
    """The largest of each block of x [batch, height, width, columns]; out [batch, height // size, width // size, columns]."""
    n, wide = uint64(x.shape[3]), uint64(x.shape[2])
    flat, result = x.reshape(-1), out.reshape(-1)
    o = uint64(0)
    for b in range(out.shape[0]):
        for py in range(out.shape[1]):
            for px in range(out.shape[2]):
                corner = (uint64(b * x.shape[1] + py * size) * wide + uint64(px * size)) * n
                _copy(result, o, flat, corner, n)
                for k in range(1, size * size):
                    _maximum(result, o, flat, corner + (uint64(k // size) * wide + uint64(k % size)) * n, n)
                o += n


@_compiled
def _give(out, x, i, delta, largest, o, left, n):  # type: ignore[no-untyped-def]
    """Where x[i : i + n] is the largest and nothing was given yet, give it delta[o : o + n]; elsewhere 0."""
    for j in range(n):
        given = left[j] * out.dtype.type(x[i + j] == largest[o + j])
        out[i + j] = given * delta[o + j]
        left[j] -= given


@_compiled
def pool_gradient(delta, x, largest, size, out):  # type: ignore[no-untyped-def]
    """Give each block's delta to the first of its places that is largest; the rest of out, of x's shape, is 0."""
    n, wide = uint64(x.shape[3]), uint64(x.shape[2])
    flat, d, best, result = x.reshape(-1), delta.reshape(-1), largest.reshape(-1), out.reshape(-1)
    left = np.empty(n, out.dtype)
    if x.shape[1] % size or x.shape[2] % size:  # a remainder at the edge belongs to no block
        result[:] = 0
    o = uint64(0)
    for b in range(delta.shape[0]):
        for py in range(delta.shape[1]):
            for px in range(delta.shape[2]):
                corner = (uint64(b * x.shape[1] + py * size) * wide + uint64(px * size)) * n
                left[:] = 1
                for k in range(size * size):
                    i = corner + (uint64(k // size) * wide + uint64(k % size)) * n
                    _give(result, flat, i, d, best, o, left, n)
                o += n


@_compiled
def _add_rows(out, o, o_step, factor, x, i, i_step, n, rows):  # type: ignore[no-untyped-def]
    """`_add` for several rows, each one step further on: a call costs as much as a short row."""
    for _ in range(rows):
        for j in range(n):
            out[o + j] += factor * x[i + j]
        o += o_step
        i += i_step


@_compiled
def convolution_gradients(delta, x, weight, dx, gradient, bias):  # type: ignore[no-untyped-def]
    """What delta asks of a convolution's input, kernels and bias; only where delta is not 0, which after pooling is rare.

    delta [batch, height, width, lanes, outputs]; x and dx [batch, height + size - 1, width + size - 1, lanes, inputs];
    weight and gradient [lanes, outputs, size, run], a run being size × inputs numbers and padding: 0 in weight,
    meaningless in gradient; bias [lanes, outputs]. dx, gradient and bias are overwritten.
    """
    batch, high, across, lanes, outputs = delta.shape
    tall, wide, inputs = x.shape[1], x.shape[2], uint64(x.shape[4])
    size, run = weight.shape[2], uint64(weight.shape[3])
    line, pixels = uint64(wide) * inputs, uint64(tall * wide)
    w, g, d, flat, result = weight.reshape(-1), gradient.reshape(-1), delta.reshape(-1), x.reshape(-1), dx.reshape(-1)
    # One lane's image and what it is asked for: they stay in the first-level cache.
    image = np.zeros(pixels * inputs + run, x.dtype)
    asked = np.zeros(pixels * inputs + run, x.dtype)
    g[:] = 0
    bias[:] = 0
    for k in range(lanes):
        for b in range(batch):
            for pixel in range(pixels):
                i = (uint64(b) * pixels + pixel) * uint64(lanes) * inputs + uint64(k) * inputs
                for c in range(inputs):
                    image[pixel * inputs + c] = flat[i + c]
            asked[:] = 0
            for y in range(high):
                for xx in range(across):
                    i = uint64(((b * high + y) * across + xx) * lanes + k) * uint64(outputs)
                    p = uint64(y * wide + xx) * inputs
                    for c in range(outputs):
                        value = d[i + uint64(c)]
                        if value == 0:
                            continue
                        bias[k, c] += value
                        q = uint64(k * outputs + c) * uint64(size) * run
                        _add_rows(asked, p, line, value, w, q, run, run, size)
                        _add_rows(g, q, run, value, image, p, line, run, size)
            for pixel in range(pixels):
                i = (uint64(b) * pixels + pixel) * uint64(lanes) * inputs + uint64(k) * inputs
                for c in range(inputs):
                    result[i + c] = asked[pixel * inputs + c]


@_compiled
def rank_update(x, delta, weight, m, v, rate, root, decay, momentum, bounds):  # type: ignore[no-untyped-def]
    """One optimizer step of weight [lanes, features + 1, outputs], its gradient xᵀ delta made row by row.

    x [lanes, batch, features], delta [lanes, batch, outputs]; the last row of weight is the bias; coefficients are a
    number a lane. After a ReLU many numbers of x are 0 and are left out.
    """
    lanes, batch, features = x.shape
    n = uint64(weight.shape[2])
    nothing, everything = uint64(0), n
    row, rows, values = np.empty(n, x.dtype), np.empty(batch, np.int64), np.empty(batch, x.dtype)
    rates, roots, decays, kept = np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype), np.empty(n, x.dtype)
    for k in range(lanes):
        rates[:], roots[:], decays[:], kept[:] = rate[k], root[k], decay[k], momentum[k]
        w, mean, square, d = weight[k].reshape(-1), m[k].reshape(-1), v[k].reshape(-1), delta[k].reshape(-1)
        for p in range(features + 1):
            count = 0
            for b in range(batch):
                value = x[k, b, p] if p < features else x.dtype.type(1)
                if value != 0:
                    rows[count], values[count] = b, value
                    count += 1
            if count == 0 and k >= bounds[1] and decay[k] == 0:
                continue
            _gradient_row(d, n, count, rows, values, row)
            o = uint64(p) * n
            if k < bounds[0]:
                _adam(w, mean, square, o, row, nothing, everything, rates, roots, decays)
            elif k < bounds[1]:
                _momentum(w, mean, o, row, nothing, everything, rates, decays, kept)
            else:
                _sgd(w, o, row, nothing, everything, rates, decays)
