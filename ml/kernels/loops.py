"""The inner loops of lanes on a CPU, compiled by Numba.

They measured several times faster than torch's operations (benchmarks/README.md), for two reasons. A network's first
layer sees images that are mostly dark, so these loops multiply lit pixels only: pixels that are not 0. And a row of a
gradient is computed, used by the optimizer and dropped while it is in the first-level cache, so that an optimizer's
state is read and written once.

Indices are unsigned, because Numba checks signed ones for wrap-around and then does not vectorise the loop. Arrays that
are read row by row are passed flat, because making a view of a narrow row takes longer than computing with it.
NaN and infinity keep their meaning: the fast-math flags of LLVM that assume their absence are off.
"""

import numpy as np
from numba import uint64

from ml.kernels.compiling import compiled
from ml.optimizers import ADAM_BETAS, ADAM_EPSILON

BETA1, BETA2 = ADAM_BETAS
EPSILON = ADAM_EPSILON
REST1, REST2 = 1 - BETA1, 1 - BETA2
BLOCK = 32  # rows of a first layer's weight that all images use before the next rows


@compiled
def lit_pixels(images, indices, scale, counts, pixels, values):
    """List the lit pixels of each image of a batch, in order.

    Args:
        images: uint8 [n, pixels].
        indices: of the batch, int64 [batch].
        scale: the value of each pixel level, [256].
        counts: filled with the number of lit pixels, int64 [batch].
        pixels: filled with their indices, int64 [batch, pixels].
        values: filled with their values, [batch, pixels].
    """
    for b in range(indices.shape[0]):
        image, count = images[indices[b]], 0
        for p in range(image.shape[0]):
            if image[p]:
                pixels[b, count], values[b, count] = p, scale[image[p]]
                count += 1
        counts[b] = count


@compiled
def by_pixel(counts, pixels, values, lit_counts, rows, lit_values):
    """Invert the lists of `lit_pixels`: for each pixel, list the images of the batch in which it is lit.

    Args:
        counts: as `lit_pixels` fills it, as the next two.
        pixels: see counts.
        values: see counts.
        lit_counts: filled with the number of images, int64 [pixels + 1]; the last pixel is the bias, always 1.
        rows: filled with their indices in the batch, int64 [pixels + 1, batch].
        lit_values: filled with the values of the pixel, [pixels + 1, batch].
    """
    bias = lit_counts.shape[0] - 1
    lit_counts[:] = 0
    for b in range(counts.shape[0]):
        for c in range(counts[b]):
            p = pixels[b, c]
            place = lit_counts[p]
            rows[p, place], lit_values[p, place] = b, values[b, c]
            lit_counts[p] = place + 1
        rows[bias, b], lit_values[bias, b] = b, 1
    lit_counts[bias] = counts.shape[0]


@compiled
def _add_listed(out, o, n, x, rows, values, first, last):
    """Add values × the listed rows of x [rows × n], from first to last of the list, to out[o : o + n].

    Four rows are added at a time, to load and store `out` less often.
    """
    c = first
    while c + 4 <= last:
        x0, x1, x2, x3 = values[c], values[c + 1], values[c + 2], values[c + 3]
        r0, r1 = uint64(rows[c]) * n, uint64(rows[c + 1]) * n
        r2, r3 = uint64(rows[c + 2]) * n, uint64(rows[c + 3]) * n
        for j in range(n):
            out[o + j] += (x0 * x[r0 + j] + x1 * x[r1 + j]) + (x2 * x[r2 + j] + x3 * x[r3 + j])
        c += 4
    while c < last:
        x0 = values[c]
        r0 = uint64(rows[c]) * n
        for j in range(n):
            out[o + j] += x0 * x[r0 + j]
        c += 1


@compiled
def wide_forward(weight, counts, pixels, values, out):
    """Multiply the images of `lit_pixels` by a weight.

    All images use a few rows of the weight before the next few rows, so that these stay in the second-level cache.

    Args:
        weight: [pixels + 1, columns]; its last row is the bias.
        counts: as `lit_pixels` fills it, as the next two.
        pixels: see counts.
        values: see counts.
        out: filled with the product, [batch, columns].
    """
    bias, n = weight.shape[0] - 1, uint64(weight.shape[1])
    flat, result = weight.reshape(-1), out.reshape(-1)
    done = np.zeros_like(counts)
    for b in range(out.shape[0]):
        out[b] = weight[bias]
    for block in range(BLOCK, bias + BLOCK, BLOCK):
        for b in range(out.shape[0]):
            first = done[b]
            while done[b] < counts[b] and pixels[b, done[b]] < block:
                done[b] += 1
            _add_listed(result, uint64(b) * n, n, flat, pixels[b], values[b], first, done[b])


@compiled
def _decay(row, w, o, n, decay):
    """Add weight decay to the gradient of the row of n weights at o."""
    for j in range(n):
        row[j] += decay[j] * w[o + j]


@compiled
def _adam(w, m, v, o, g, first, last, rate, root):
    """Take Adam's step for columns first..last of the row at o, by torch's formula with coefficients per column."""
    b1, a1, b2, a2 = w.dtype.type(BETA1), w.dtype.type(REST1), w.dtype.type(BETA2), w.dtype.type(REST2)
    eps = w.dtype.type(EPSILON)
    for j in range(first, last):
        mean = b1 * m[o + j] + a1 * g[j]
        square = b2 * v[o + j] + a2 * g[j] * g[j]
        m[o + j] = mean
        v[o + j] = square
        w[o + j] -= rate[j] * mean / (np.sqrt(square) * root[j] + eps)


@compiled
def _momentum(w, m, o, g, first, last, rate, momentum):
    """Take SGD's step with momentum."""
    for j in range(first, last):
        velocity = momentum[j] * m[o + j] + g[j]
        m[o + j] = velocity
        w[o + j] -= rate[j] * velocity


@compiled
def _sgd(w, o, g, first, last, rate):
    """Take SGD's step without momentum."""
    for j in range(first, last):
        w[o + j] -= rate[j] * g[j]


@compiled
def _adam_dark(w, m, v, o, first, last, rate, root):
    """Take the step of `_adam` for a gradient of 0."""
    b1, b2, eps = w.dtype.type(BETA1), w.dtype.type(BETA2), w.dtype.type(EPSILON)
    for j in range(first, last):
        mean = b1 * m[o + j]
        square = b2 * v[o + j]
        m[o + j] = mean
        v[o + j] = square
        w[o + j] -= rate[j] * mean / (np.sqrt(square) * root[j] + eps)


@compiled
def _momentum_dark(w, m, o, first, last, rate, momentum):
    """Take the step of `_momentum` for a gradient of 0."""
    for j in range(first, last):
        velocity = momentum[j] * m[o + j]
        m[o + j] = velocity
        w[o + j] -= rate[j] * velocity


@compiled
def _clear(row, n):
    """Set a row to 0; assigning to a slice takes several times as long."""
    for j in range(n):
        row[j] = 0


@compiled
def wide_update(
    weight, m, v, asleep, delta, counts, rows, values, ends, bounds, still, rate, root, decay, momentum
):  # fmt: skip
    """Take an optimizer step of a first layer, with its gradient computed row by row.

    Args:
        weight: [pixels + 1, columns], as the moments m and v.
        m: see weight.
        v: see weight.
        asleep: bool [pixels + 1]; rows whose moments are all 0, which do not change without a gradient.
        delta: the derivative of the loss by the layer's output, [batch, columns].
        counts: as `by_pixel` fills it, as the next two.
        rows: see counts.
        values: see counts.
        ends: of the lanes' columns, int64 [lanes + 1].
        bounds: of the lanes with Adam and with momentum, as in `lanes.coefficients.Hyper`.
        still: True if no lane has weight decay; a row without a lit pixel then has no gradient.
        rate: [lanes], as in `Hyper`, as the next three.
        root: see rate.
        decay: see rate.
        momentum: see rate.
    """
    n = uint64(weight.shape[1])
    nothing, adam, heavy = uint64(0), uint64(ends[bounds[0]]), uint64(ends[bounds[1]])
    row = np.empty(n, weight.dtype)
    rates, roots, decays, kept = np.empty_like(row), np.empty_like(row), np.empty_like(row), np.empty_like(row)
    for k in range(len(rate)):
        for j in range(ends[k], ends[k + 1]):
            rates[j], roots[j], decays[j], kept[j] = rate[k], root[k], decay[k], momentum[k]
    w, mean, square, d = weight.reshape(-1), m.reshape(-1), v.reshape(-1), delta.reshape(-1)
    for p in range(weight.shape[0]):
        o = uint64(p) * n
        if counts[p] == 0 and still:
            if not asleep[p]:
                _adam_dark(w, mean, square, o, nothing, adam, rates, roots)
                _momentum_dark(w, mean, o, adam, heavy, rates, kept)
            continue
        asleep[p] = heavy == 0
        _clear(row, n)
        _add_listed(row, nothing, n, d, rows[p], values[p], 0, counts[p])
        if not still:
            _decay(row, w, o, n, decays)
        _adam(w, mean, square, o, row, nothing, adam, rates, roots)
        _momentum(w, mean, o, row, adam, heavy, rates, kept)
        _sgd(w, o, row, heavy, n, rates)


@compiled
def lane_update(weight, gradient, m, v, bounds, rate, root, decay, momentum):
    """Take an optimizer step of weight [lanes, n], given its gradient; coefficients are [lanes]."""
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


@compiled
def _add_rows(out, o, o_step, factor, x, i, i_step, n, rows):
    """Add factor × n numbers of x at i to out at o, for several rows, each one step further on."""
    for _ in range(rows):
        for j in range(n):
            out[o + j] += factor * x[i + j]
        o += o_step
        i += i_step


@compiled
def _touched(b, c, py, px, size, high, wide, n):
    """Return the outputs that a pixel reaches, and the kernels that it is multiplied with there.

    Outputs are [batch, high, wide, n]. Kernels are [channels, size, size, n], with both kernel axes reversed.

    Returns:
        The index of the first number of each, the length of a row on both sides, and the number of rows.
    """
    top, first = max(0, py - size + 1), max(0, px - size + 1)
    o = uint64((b * high + top) * wide + first) * n
    i = uint64((c * size + top - (py - size + 1)) * size + first - (px - size + 1)) * n
    return o, i, uint64(min(wide, px + 1) - first) * n, min(high, py + 1) - top


@compiled
def image_convolution(images, indices, scale, weight, out, backward):
    """Convolve a batch of images with the kernels of all lanes at once, lit pixels only; or compute their gradient.

    Args:
        images: uint8 [n, channels, height, width].
        indices: of the batch, int64 [batch].
        scale: the value of each pixel level, [256].
        weight: [channels, size, size, columns], with both kernel axes reversed, so that a pixel adds one contiguous
            run of numbers to a row of out. Backward, this is the gradient, which is added to.
        out: [batch, height, width, columns], which is added to. Backward, this is the derivative of the loss by it.
        backward: True for the gradient.
    """
    channels, size, n = weight.shape[0], weight.shape[1], uint64(weight.shape[3])
    high, wide = out.shape[1], out.shape[2]
    kernel_step, out_step = uint64(size) * n, uint64(wide) * n
    w, result = weight.reshape(-1), out.reshape(-1)
    for b in range(indices.shape[0]):
        for c in range(channels):
            image = images[indices[b], c]
            for py in range(image.shape[0]):
                for px in range(image.shape[1]):
                    if image[py, px] == 0:
                        continue
                    x = scale[image[py, px]]
                    o, i, run, rows = _touched(b, c, py, px, size, high, wide, n)
                    if backward:
                        _add_rows(w, i, kernel_step, x, result, o, out_step, run, rows)
                    else:
                        _add_rows(result, o, out_step, x, w, i, kernel_step, run, rows)


@compiled
def cross_entropy(outputs, labels, smoothing, losses, delta):
    """Compute each lane's mean cross entropy.

    Args:
        outputs: [lanes, batch, classes].
        labels: int64 [batch].
        smoothing: [lanes], the share of a target that is spread evenly over all classes.
        losses: filled with the mean losses, [lanes].
        delta: filled with the derivative of each by outputs, [lanes, batch, classes].
    """
    batch, classes = outputs.shape[1], outputs.shape[2]
    share = outputs.dtype.type(1 / batch)
    for k in range(outputs.shape[0]):
        losses[k] = 0
        common = smoothing[k] / outputs.dtype.type(classes)
        for b in range(batch):
            row, gradient = outputs[k, b], delta[k, b]
            largest, total = row[0], outputs.dtype.type(0)
            for c in range(classes):
                largest = max(largest, row[c])
            for c in range(classes):
                gradient[c] = np.exp(row[c] - largest)  # a NaN, or infinity minus infinity, makes the whole image NaN
                total += gradient[c]
            for c in range(classes):
                gradient[c] *= share / total
            gradient[labels[b]] -= share
            losses[k] += (np.log(total) + largest - row[labels[b]]) * share
            if common:
                gradient[labels[b]] += share * smoothing[k]
                for c in range(classes):
                    gradient[c] -= share * common
                    losses[k] += (row[labels[b]] - row[c]) * share * common


@compiled
def column_sums(x, sums):
    """Fill sums [columns] with the sum of each column of x [rows × columns]."""
    flat, n = x.reshape(-1), uint64(sums.shape[0])
    sums[:] = 0
    o = uint64(0)
    for _ in range(flat.shape[0] // sums.shape[0]):
        for j in range(n):
            sums[j] += flat[o + j]
        o += n


@compiled
def _pool_row(out, place, o, x, i, n, size, line, blocks):
    """Find the largest of each block in a row of blocks, and its place; NaN counts as the largest."""
    for _ in range(blocks):
        for j in range(n):
            out[o + j] = x[i + j]
            place[o + j] = 0
        for ky in range(size):
            for kx in range(size):
                q, number = i + ky * line + kx * n, x.dtype.type(ky * size + kx)
                for j in range(n):
                    larger = x.dtype.type(x[q + j] > out[o + j])
                    place[o + j] += larger * (number - place[o + j])
                    out[o + j] = np.maximum(out[o + j], x[q + j])
        o += n
        i += size * n


@compiled
def pool(x, size, out, place):
    """Find the largest of each block of size × size, and its first place in the block.

    Args:
        x: [batch, height, width, columns].
        size: of a block.
        out: filled with the largest, [batch, height // size, width // size, columns].
        place: filled with its place, in the same shape, counted by rows from 0.
    """
    n, line, square = uint64(x.shape[3]), uint64(x.shape[2]) * uint64(x.shape[3]), uint64(size)
    flat, result, places = x.reshape(-1), out.reshape(-1), place.reshape(-1)
    blocks = uint64(out.shape[2])
    for b in range(out.shape[0]):
        for y in range(out.shape[1]):
            o = uint64(b * out.shape[1] + y) * blocks * n
            i = uint64(b * x.shape[1] + y * size) * line
            _pool_row(result, places, o, flat, i, n, square, line, blocks)


@compiled
def _give_row(out, i, delta, place, o, n, size, line, blocks):
    """Write each block's delta to its place, in a row of blocks."""
    for _ in range(blocks):
        for ky in range(size):
            for kx in range(size):
                q, number = i + ky * line + kx * n, out.dtype.type(ky * size + kx)
                for j in range(n):
                    out[q + j] = delta[o + j] * out.dtype.type(place[o + j] == number)
        o += n
        i += size * n


@compiled
def pool_gradient(delta, place, size, out):
    """Write each block's delta to its place from `pool`; the rest of out, in the shape of the pooled input, is 0."""
    n, line, square = uint64(out.shape[3]), uint64(out.shape[2]) * uint64(out.shape[3]), uint64(size)
    d, places, result, blocks = delta.reshape(-1), place.reshape(-1), out.reshape(-1), uint64(delta.shape[2])
    if out.shape[1] % size or out.shape[2] % size:  # a remainder at the edge belongs to no block
        result[:] = 0
    for b in range(delta.shape[0]):
        for y in range(delta.shape[1]):
            o = uint64(b * delta.shape[1] + y) * blocks * n
            i = uint64(b * out.shape[1] + y * size) * line
            _give_row(result, i, d, places, o, n, square, line, blocks)


@compiled
def _move(out, o, o_step, x, i, i_step, n, times):
    """Copy n numbers of x at i to out at o, several times, each one step further on."""
    for _ in range(times):
        for j in range(n):
            out[o + j] = x[i + j]
        o += o_step
        i += i_step


@compiled
def _patch_gradients(v, image_gradient, image, i, weight, gradient, q, run, size, line):
    """Add to the gradients of a patch, at i, and of a kernel, at q, for an output whose derivative is v."""
    for _ in range(size):
        for j in range(run):
            image_gradient[i + j] += v * weight[q + j]
        for j in range(run):
            gradient[q + j] += v * image[i + j]
        i += line
        q += run


@compiled
def convolution_gradients(delta, place, pool, x, weight, dx, gradient, bias):
    """Compute the derivatives of the loss by a convolution's input, kernels and bias.

    Args:
        delta: the derivative by the pooled outputs, [batch, height, width, lanes, outputs].
        place: of each output in its block, in the same shape.
        pool: the side of a block; 1 means no pooling.
        x: the input, [batch, tall, wide, lanes, inputs].
        weight: [lanes, outputs, size, run]; a run is size × inputs numbers, then zeros as padding.
        dx: filled with the derivative by x, in its shape.
        gradient: filled with the derivative by weight, in its shape; its padding is meaningless.
        bias: filled with the derivative by the bias, [lanes, outputs].
    """
    lanes, outputs = uint64(weight.shape[0]), uint64(weight.shape[1])
    size, run = uint64(weight.shape[2]), uint64(weight.shape[3])
    rows, columns, block = uint64(delta.shape[1]), uint64(delta.shape[2]), uint64(pool)
    pixels, inputs, line = uint64(x.shape[1] * x.shape[2]), uint64(x.shape[4]), uint64(x.shape[2] * x.shape[4])
    zero, step, patch = uint64(0), lanes * outputs, size * run
    d, places, flat, result = delta.reshape(-1), place.reshape(-1), x.reshape(-1), dx.reshape(-1)
    # A copy of one lane's image, which stays in the first-level cache; the padding of the last run fits in too.
    image, image_gradient = np.zeros(pixels * inputs + run, x.dtype), np.zeros(pixels * inputs + run, x.dtype)
    offsets = np.empty(pool * pool, np.uint64)
    for q in range(pool * pool):
        offsets[q] = uint64(q // pool) * line + uint64(q % pool) * inputs
    bias[:] = 0
    gradient[:] = 0
    for k in range(lanes):
        w, g = weight[k].reshape(-1), gradient[k].reshape(-1)
        for b in range(uint64(delta.shape[0])):
            pixel, cell = (b * pixels * lanes + k) * inputs, b * rows * columns * step + k * outputs
            _move(image, zero, inputs, flat, pixel, lanes * inputs, inputs, pixels)
            _clear(image_gradient, pixels * inputs + run)
            for y in range(rows):
                for i in range(y * block * line, y * block * line + columns * block * inputs, block * inputs):
                    for c in range(outputs):
                        v = d[cell + c]
                        if v != 0:
                            bias[k, c] += v
                            at = uint64(i) + offsets[np.int64(places[cell + c])]
                            _patch_gradients(v, image_gradient, image, at, w, g, c * patch, run, size, line)
                    cell += step
            _move(result, pixel, lanes * inputs, image_gradient, zero, inputs, inputs, pixels)


@compiled
def rank_update(x, delta, weight, m, v, rate, root, decay, momentum, bounds):
    """Take an optimizer step of a weight, with its gradient xᵀ delta computed row by row.

    After a ReLU many numbers of x are 0, and they are skipped.

    Args:
        x: the layer's input, [lanes, batch, features].
        delta: the derivative of the loss by the layer's output, [lanes, batch, outputs].
        weight: [lanes, features + 1, outputs], as the moments m and v; its last row is the bias.
        m: see weight.
        v: see weight.
        rate: [lanes], as in `lanes.coefficients.Hyper`, as the next three.
        root: see rate.
        decay: see rate.
        momentum: see rate.
        bounds: of the lanes with Adam and with momentum.
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
            o = uint64(p) * n
            _clear(row, n)
            _add_listed(row, nothing, n, d, rows, values, 0, count)
            if decay[k] != 0:
                _decay(row, w, o, n, decays)
            if k < bounds[0]:
                _adam(w, mean, square, o, row, nothing, everything, rates, roots)
            elif k < bounds[1]:
                _momentum(w, mean, o, row, nothing, everything, rates, kept)
            else:
                _sgd(w, o, row, nothing, everything, rates)
