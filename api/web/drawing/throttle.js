// When to ask while somebody draws: often enough to feel alive, never more than the service keeps up with.

const PACE = 80; // milliseconds between two questions, at least
const PATIENCE = 600; // after which a question that is not answered is given up for a newer one
const SETTLED = 250; // after the last change: what takes longer is asked for too

/**
 * A function to call at every change. It calls `ask(explain, signal)`, which resolves once all is answered; the signal
 * is aborted when a newer question takes its place, or with `signal`.
 */
export function asker(ask, signal) {
  let round = new AbortController();
  let [running, began, next, settled] = [0, -Infinity, null, null];

  const begin = async (explain) => {
    round.abort();
    round = new AbortController();
    began = performance.now();
    running += 1;
    try {
      await ask(explain, AbortSignal.any([signal, round.signal]));
    } finally {
      running -= 1;
    }
  };
  const look = () => {
    const since = performance.now() - began;
    if (signal.aborted) return;
    if (running && since < PATIENCE) next = setTimeout(look, 20);
    else begin(false);
  };

  return () => {
    if (signal.aborted) return;
    clearTimeout(next);
    clearTimeout(settled);
    next = setTimeout(look, Math.max(0, began + PACE - performance.now()));
    settled = setTimeout(() => signal.aborted || (clearTimeout(next), begin(true)), SETTLED);
  };
}
