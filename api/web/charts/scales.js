// Scales: from a value to a place, and the ticks of an axis.

/** Places of numbers between `domain` [low, high] and `range` [from, to]; of their logarithms where `log`. */
export function scale(domain, range, log = false) {
  const turn = log ? Math.log : (x) => x;
  const [low, high] = domain.map(turn);
  const width = high - low || 1;
  const place = (value) => range[0] + ((turn(value) - low) / width) * (range[1] - range[0]);
  place.domain = domain;
  place.range = range;
  place.log = log;
  place.invert = (at) => {
    const value = low + ((at - range[0]) / (range[1] - range[0] || 1)) * width;
    return log ? Math.exp(value) : value;
  };
  return place;
}

/** Round values inside a scale's domain, about `count` of them; powers of ten where it is logarithmic over a decade. */
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

/** The least and greatest of some numbers, null where there are none. */
export function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

/** A domain a little wider than its values, so that no mark lies on the frame. */
export function padded([low, high], share = 0.05) {
  const margin = (high - low) * share || Math.abs(high) * share || 1;
  return [low - margin, high + margin];
}
