// Limit the rate of requests while the reader draws: often enough to feel live, and no more than the service can answer.

const INTERVAL = 80; // milliseconds between two requests, at least
const TIMEOUT = 600; // milliseconds after which a request without a response is replaced by a newer one
const IDLE = 250; // milliseconds after the last change until the slower explanation is requested too

/**
 * Return a function to call at every change. It calls `send(explain, signal)`, which resolves when all responses are there.
 * That signal is aborted when a newer request replaces this one, or with `signal`.
 */
export function throttled(send, signal) {
  let current = new AbortController();
  let [running, began, next, idle] = [0, -Infinity, null, null];

  const begin = async (explain) => {
    current.abort();
    current = new AbortController();
    began = performance.now();
    running += 1;
    try {
      await send(explain, AbortSignal.any([signal, current.signal]));
    } finally {
      running -= 1;
    }
  };
  const sendNext = () => {
    const elapsed = performance.now() - began;
    if (signal.aborted) return;
    if (running && elapsed < TIMEOUT) next = setTimeout(sendNext, 20);
    else begin(false);
  };

  return () => {
    if (signal.aborted) return;
    clearTimeout(next);
    clearTimeout(idle);
    next = setTimeout(sendNext, Math.max(0, began + INTERVAL - performance.now()));
    idle = setTimeout(() => signal.aborted || (clearTimeout(next), begin(true)), IDLE);
  };
}
