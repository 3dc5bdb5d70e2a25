"""The inner loops of lanes on a CPU, compiled by Numba.

They exist because they measured several times faster than torch's operations (benchmarks/README.md): a network's first
layer sees images that are mostly dark, so it multiplies lit pixels only; and a gradient row is made, used by the
optimizer and forgotten while it is in the first-level cache, so that an optimizer's state is read and written once.

Indices are unsigned, because Numba checks signed ones for wrap-around and then does not vectorise the loop. Arrays that
are walked row by row come flattened, because a view of a row costs more than a narrow row takes.
NaN and infinity keep their meaning: of LLVM's fast-math flags those that assume their absence are left out.
"""

import numpy as np
from numba import uint64

from ml.kernels.compiling import compiled
from ml.optimizers import ADAM_BETAS, ADAM_EPSILON

BETA1, BETA2 = ADAM_BETAS
EPSILON = ADAM_EPSILON
REST1, REST2 = 1 - BETA1, 1 - BETA2
BLOCK = 32  # rows of a first layer that a batch meets together


@compiled
def lit_pixels(images, indices, scale, counts, pixels, values):
    """List which pixels of each image of a batch are not dark, in their order.

    images uint8 [n, pixels] and indices int64 [batch] name the batch; scale [256] turns a pixel into its value.
    Fills counts int64 [batch], pixels int64 and values [batch, pixels].
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
    """Turn the lists of `lit_pixels` round: at each pixel, which images of the batch are not dark.

    Fills lit_counts int64 [pixels + 1], rows int64 and lit_values [pixels + 1, batch]; the last pixel is the bias:
    always 1.
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

    Four at a time, to load and store `out` less.
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
    """Multiply the images of `lit_pixels` by weight [pixels + 1, columns], whose last row is the bias.

    out is [batch, columns]. All images meet a few rows of the weight before any meets the next few, so that those stay
    in the second-level cache.
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
    """Add weight decay to the gradient of the row at o."""
    for j in range(n):
        row[j] += decay[j] * w[o + j]


@compiled
def _adam(w, m, v, o, g, first, last, rate, root):
    """Adam's step for columns first..last of the row at o, by torch's formula with per-column coefficients."""
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
    """SGD's step with momentum."""
    for j in range(first, last):
        velocity = momentum[j] * m[o + j] + g[j]
        m[o + j] = velocity
        w[o + j] -= rate[j] * velocity


@compiled
def _sgd(w, o, g, first, last, rate):
    """SGD's step without momentum."""
    for j in range(first, last):
        w[o + j] -= rate[j] * g[j]


@compiled
def _adam_dark(w, m, v, o, first, last, rate, root):
    """`_adam` where the gradient is 0."""
    b1, b2, eps = w.dtype.type(BETA1), w.dtype.type(BETA2), w.dtype.type(EPSILON)
    for j in range(first, last):
        mean = b1 * m[o + j]
        square = b2 * v[o + j]
        m[o + j] = mean
        v[o + j] = square
        w[o + j] -= rate[j] * mean / (np.sqrt(square) * root[j] + eps)


@compiled
def _momentum_dark(w, m, o, first, last, rate, momentum):
    """`_momentum` where the gradient is 0."""
    for j in range(first, last):
        velocity = momentum[j] * m[o + j]
        m[o + j] = velocity
        w[o + j] -= rate[j] * velocity


@compiled
def _clear(row, n):
    """Set a row to 0; a slice's assignment takes several times as long."""
    for j in range(n):
        row[j] = 0


@compiled
def wide_update(
    weight, m, v, asleep, delta, counts, rows, values, ends, bounds, still, rate, root, decay, momentum
):  # fmt: skip
    """One optimizer step of a first layer, each gradient row made from delta [batch, columns] where it is needed.

    ends int64 [lanes + 1] says where each lane's columns end. The coefficients, a number a lane, and bounds are those
    of `hyper.py`. `still`: no lane decays, so that a row without a lit pixel has no gradient. asleep [pixels + 1]: a
    row whose moments are all 0, so that without a gradient it stays as it is.
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


@compiled
def _add_rows(out, o, o_step, factor, x, i, i_step, n, rows):
    """`_add` for several rows, each a step further on."""
    for _ in range(rows):
        for j in range(n):
            out[o + j] += factor * x[i + j]
        o += o_step
        i += i_step


@compiled
def _touched(b, c, py, px, size, high, wide, n):
    """Where one pixel meets outputs [batch, high, wide, n] and kernels [channels, size, size, n], both axes reversed.

    The first number of each, the numbers a row on both sides, and how many rows.
    """
    top, first = max(0, py - size + 1), max(0, px - size + 1)
    o = uint64((b * high + top) * wide + first) * n
    i = uint64((c * size + top - (py - size + 1)) * size + first - (px - size + 1)) * n
    return o, i, uint64(min(wide, px + 1) - first) * n, min(high, py + 1) - top


@compiled
def image_convolution(images, indices, scale, weight, out, backward):
    """Convolve a batch of images with every lane's kernels at once, lit pixels only; or backward, for their gradient.

    images uint8 [n, channels, height, width]; weight [channels, size, size, columns], both kernel axes reversed, so
    that what one pixel adds to a row of out [batch, height, width, columns] is one run of numbers on both sides.
    Adds to out; backward, out is what the loss asks of it, and adds to weight, which is then the gradient.
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
    """Each lane's mean cross entropy over outputs [lanes, batch, classes] for labels int64 [batch].

    smoothing [lanes] is the share of a target that all classes have in common. Fills losses [lanes] and delta, shaped
    as outputs, the derivative of each.
    """
    batch, classes = outputs.shape[1], outputs.shape[2]
    share = outputs.dtype.type(1 / batch)
    for k in range(outputs.shape[0]):
        losses[k] = 0
        common = smoothing[k] / outputs.dtype.type(classes)
        for b in range(batch):
            row, asked = outputs[k, b], delta[k, b]
            largest, total = row[0], outputs.dtype.type(0)
            for c in range(classes):
                largest = max(largest, row[c])
            for c in range(classes):
                asked[c] = np.exp(row[c] - largest)  # NaN, and infinity less itself, become NaN for the whole image
                total += asked[c]
            for c in range(classes):
                asked[c] *= share / total
            asked[labels[b]] -= share
            losses[k] += (np.log(total) + largest - row[labels[b]]) * share
            if common:
                asked[labels[b]] += share * smoothing[k]
                for c in range(classes):
                    asked[c] -= share * common
                    losses[k] += (row[labels[b]] - row[c]) * share * common


@compiled
def column_sums(x, sums):
    """Add up each column of x [rows × columns] into sums [columns]."""
    flat, n = x.reshape(-1), uint64(sums.shape[0])
    sums[:] = 0
    o = uint64(0)
    for _ in range(flat.shape[0] // sums.shape[0]):
        for j in range(n):
            sums[j] += flat[o + j]
        o += n


@compiled
def _pool_row(out, place, o, x, i, n, size, line, blocks):
    """The largest of each block of a row of blocks, and where it stands; NaN is largest."""
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
    """The largest of each block of x [batch, height, width, columns], and where in its block it stands first.

    out and place are [batch, height // size, width // size, columns]; places are counted by rows, from 0.
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
    """Give each block's delta, in a row of blocks, to its place."""
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
    """Give each block's delta to its place, as `pool` found it; the rest of out, shaped as what was pooled, is 0."""
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
    """Copy n numbers, several times, each a step further on."""
    for _ in range(times):
        for j in range(n):
            out[o + j] = x[i + j]
        o += o_step
        i += i_step


@compiled
def _ask_and_give(v, asked, image, i, weight, gradient, q, run, size, line):
    """What an output whose derivative is v asks of its patch, at i, and what the patch gives to its kernel, at q."""
    for _ in range(size):
        for j in range(run):
            asked[i + j] += v * weight[q + j]
        for j in range(run):
            gradient[q + j] += v * image[i + j]
        i += line
        q += run


@compiled
def convolution_gradients(delta, place, pool, x, weight, dx, gradient, bias):
    """What the loss asks of a convolution's input, kernels and bias, given what it asks of the pooled outputs.

    delta and place [batch, height, width, lanes, outputs]: an output stands at its place in a block of pool × pool; 1
    is no pooling. x and dx [batch, tall, wide, lanes, inputs]; weight and gradient [lanes, outputs, size, run], a run
    being size × inputs numbers and padding: 0 in weight, meaningless in gradient; bias [lanes, outputs]. dx, gradient
    and bias are overwritten.
    """
    lanes, outputs = uint64(weight.shape[0]), uint64(weight.shape[1])
    size, run = uint64(weight.shape[2]), uint64(weight.shape[3])
    rows, columns, block = uint64(delta.shape[1]), uint64(delta.shape[2]), uint64(pool)
    pixels, inputs, line = uint64(x.shape[1] * x.shape[2]), uint64(x.shape[4]), uint64(x.shape[2] * x.shape[4])
    zero, step, patch = uint64(0), lanes * outputs, size * run
    d, places, flat, result = delta.reshape(-1), place.reshape(-1), x.reshape(-1), dx.reshape(-1)
    # All of one lane's image, so that it stays in the nearest cache; with room for the padding of the last run.
    image, asked = np.zeros(pixels * inputs + run, x.dtype), np.zeros(pixels * inputs + run, x.dtype)
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
            _clear(asked, pixels * inputs + run)
            for y in range(rows):
                for i in range(y * block * line, y * block * line + columns * block * inputs, block * inputs):
                    for c in range(outputs):
                        v = d[cell + c]
                        if v != 0:
                            bias[k, c] += v
                            at = uint64(i) + offsets[np.int64(places[cell + c])]
                            _ask_and_give(v, asked, image, at, w, g, c * patch, run, size, line)
                    cell += step
            _move(result, pixel, lanes * inputs, asked, zero, inputs, inputs, pixels)


@compiled
def rank_update(x, delta, weight, m, v, rate, root, decay, momentum, bounds):
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
