// Scales that map values to positions, and the ticks of an axis.

/** Return a function that maps `domain` [low, high] to `range` [from, to], on a log scale if `log` is true. */
export function scale(domain, range, log = false) {
  const turn = log ? Math.log : (x) => x;
  const [low, high] = domain.map(turn);
  const width = high - low || 1;
  const position = (value) => range[0] + ((turn(value) - low) / width) * (range[1] - range[0]);
  position.domain = domain;
  position.range = range;
  position.log = log;
  position.invert = (at) => {
    const value = low + ((at - range[0]) / (range[1] - range[0] || 1)) * width;
    return log ? Math.exp(value) : value;
  };
  return position;
}

/** Return about `count` round values inside a scale's domain; powers of ten on a log scale of a decade or more. */
export function ticks({ domain: [low, high], log }, count = 5) {
  if (log && high / low >= 10) return decades(low, high, count);
  const step = stepOf((high - low) / count);
  if (!step) return [low];
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function decades(low, high, count) {
  const first = Math.floor(Math.log10(low) + 1e-9);
  const powers = Math.ceil(Math.log10(high) - 1e-9) - first + 1;
  const every = Math.max(1, Math.ceil(powers / count));
  const factors = powers <= count / 2 + 1 ? [1, 2, 5] : [1];
  const all = Array.from({ length: Math.ceil(powers / every) }, (_, i) =>
    factors.map((factor) => Number(`${factor}e${first + i * every}`)),
  );
  return all.flat().filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
}

function stepOf(rough) {
  if (!(rough > 0)) return 0;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
}

/** Return the least and the greatest of some numbers, or null if there are none. */
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** Widen a domain a little, so that no mark lies on the frame. */
export function padded([low, high], share = 0.05) {
  const margin = (high - low) * share || Math.abs(high) * share || 1;
  return [low - margin, high + margin];
}
