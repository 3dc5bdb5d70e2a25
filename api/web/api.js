// Client of the HTTP API: requests, errors as problem details (RFC 9457), and event streams that reconnect after a restart.

const UNREACHABLE = "the API does not answer; it may be restarting";

/** An error of the API. `status` is 0 if there was no answer; `errors` name fields by JSON pointer: "#/budget/trials". */
class Problem extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.name = "Problem";
    this.status = status;
    this.errors = errors;
  }
}

export const get = (path, options) => json("GET", path, options);
export const post = (path, body, options) => json("POST", path, { ...options, body });
export const put = (path, body, options) => json("PUT", path, { ...options, body });
export const patch = (path, body, options) => json("PATCH", path, { ...options, body });

/** Yield the items of a paged list, one page at a time: `for await (const items of pages("/models", {signal}))`. */
export async function* pages(path, options) {
  const separator = path.includes("?") ? "&" : "?";
  let cursor = "";
  do {
    const page = await get(`${path}${cursor && `${separator}cursor=${encodeURIComponent(cursor)}`}`, options);
    yield page.items;
    cursor = page.next_cursor;
  } while (cursor);
}

/** Return the response as JSON, or null if it has no body. Throws Problem, or AbortError after `signal` is aborted. */
async function json(method, path, { signal, headers, body } = {}) {
  const bodyHeaders = body === undefined ? {} : { "content-type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await request(path, { method, signal, body: text, headers: { ...bodyHeaders, ...headers } });
  return response.status === 204 ? null : response.json();
}

/** Return a response of any type. Throws Problem if its status is an error. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    setReachable(false);
    throw new Problem(0, UNREACHABLE);
  }
  setReachable(true);
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("application/problem+json")) return new Problem(response.status, response.statusText);
  const { detail, errors } = await response.json();
  return new Problem(response.status, detail, errors);
}

/**
 * Follow a stream of server-sent events until it ends or `signal` is aborted.
 *
 * `onEvents` gets the events that arrived together as an array of {id, event, data}, with data parsed. `onState` gets
 * "open", "waiting" (the connection broke and reconnects after the last id) and "ended". The browser's EventSource is not
 * used: it gives up for good on a status of 503, which a proxy sends while the service restarts. A hidden page keeps no
 * connection, because HTTP/1.1 allows a browser six per host for all its tabs together.
 */
export async function follow(path, { after = 0, signal, onEvents, onState = () => {} }) {
  let last = after;
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 2000)) {
    const visible = await whileVisible(signal);
    try {
      const headers = { accept: "text/event-stream" };
      const response = await request(`${path}?after=${last}`, { signal: visible.signal, headers });
      if (response.status === 204) return onState("ended");
      onState("open");
      for await (const events of parseEvents(response.body)) {
        wait = 250;
        last = events.at(-1).id ?? last;
        onEvents(events);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500) throw error;
      if (!visible.signal.aborted) onState("waiting");
    } finally {
      visible.end();
    }
    await pause(wait, signal);
  }
}

/** Wait until the page is visible. Returns a signal that is aborted when the page is hidden, or with `signal`. */
async function whileVisible(signal) {
  const visible = new AbortController();
  const listening = new AbortController();
  await new Promise((resolve) => {
    const check = () => {
      if (!document.hidden || signal.aborted) resolve();
      if (signal.aborted) visible.abort();
    };
    document.addEventListener("visibilitychange", check, { signal: listening.signal });
    signal.addEventListener("abort", check, { signal: listening.signal });
    check();
  });
  document.addEventListener("visibilitychange", () => document.hidden && visible.abort(), { signal: listening.signal });
  return { signal: visible.signal, end: () => listening.abort() };
}

/** Yield the events of a body in batches, one for each chunk that arrives. */
async function* parseEvents(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    const events = blocks.map(parseEvent).filter((event) => event.data !== undefined);
    if (events.length) yield events;
  }
}

function parseEvent(block) {
  const fields = {};
  for (const line of block.split(/\r?\n/)) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return { ...fields, data: fields.data === undefined ? undefined : JSON.parse(fields.data) };
}

/** Wait for some milliseconds; resolves early if `signal` is aborted. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const ended = () => (clearTimeout(timer), signal?.removeEventListener("abort", ended), resolve());
    const timer = setTimeout(ended, milliseconds);
    signal?.addEventListener("abort", ended);
  });
}

/** Call `refresh` every `milliseconds` while the page is visible, until `signal` is aborted. */
export async function poll(refresh, milliseconds, signal) {
  while (!signal.aborted) {
    await pause(milliseconds, signal);
    if (signal.aborted || document.hidden) continue;
    try {
      await refresh();
    } catch (error) {
      if (!signal.aborted && error.status !== 0 && !(error.status >= 500)) throw error;
    }
  }
}

let onConnection = () => {};
let reachable = true;

/** Call `listener` with true when the API stops answering, and with false when it answers again. */
export function watchConnection(listener) {
  onConnection = listener;
}

function setReachable(now) {
  if (now !== reachable) onConnection(!now);
  reachable = now;
}
