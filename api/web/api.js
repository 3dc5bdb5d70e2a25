// The HTTP API: requests, errors in its own words (RFC 9457), and event streams that outlive a restart of the service.

const AWAY = "the API does not answer; it may be starting again";

/** What went wrong. `status` is 0 where nobody answered; `errors` name fields by pointer, as "#/budget/trials". */
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

/** Every item of a paged list, page by page: `for await (const items of pages("/models", {signal}))`. */
export async function* pages(path, options) {
  const mark = path.includes("?") ? "&" : "?";
  let cursor = "";
  do {
    const page = await get(`${path}${cursor && `${mark}cursor=${encodeURIComponent(cursor)}`}`, options);
    yield page.items;
    cursor = page.next_cursor;
  } while (cursor);
}

/** The answer as JSON, null where there is no body. Throws Problem, or AbortError once `signal` is aborted. */
async function json(method, path, { signal, headers, body } = {}) {
  const sent = body === undefined ? {} : { "content-type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await request(path, { method, signal, body: text, headers: { ...sent, ...headers } });
  return response.status === 204 ? null : response.json();
}

/** A response of whatever type, once its status is known to be good. */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    connection(false);
    throw new Problem(0, AWAY);
  }
  connection(true);
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
 * Follow a stream of server-sent events until it has nothing more, or `signal` is aborted.
 *
 * `onEvents` gets what came at once as an array of {id, event, data}, data parsed; `onState` hears "open", "waiting"
 * (the connection broke and is tried again, after the last id) and "ended". Browsers' own EventSource gives up for good
 * on an answer of 503, as a proxy gives while the service starts again. While the page is not seen there is no
 * connection: of HTTP/1.1 a browser has six to a host, for all its tabs together.
 */
export async function follow(path, { after = 0, signal, onEvents, onState = () => {} }) {
  let last = after;
  for (let wait = 500; !signal.aborted; wait = Math.min(wait * 2, 2000)) {
    const seen = await whileSeen(signal);
    try {
      const headers = { accept: "text/event-stream" };
      const response = await request(`${path}?after=${last}`, { signal: seen.signal, headers });
      if (response.status === 204) return onState("ended");
      onState("open");
      for await (const events of parsed(response.body)) {
        wait = 250;
        last = events.at(-1).id ?? last;
        onEvents(events);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500) throw error;
      if (!seen.signal.aborted) onState("waiting");
    } finally {
      seen.end();
    }
    await pause(wait, signal);
  }
}

/** Wait until the page is seen; a signal that is aborted when it is not any more, or with `signal`. */
async function whileSeen(signal) {
  const seen = new AbortController();
  const listening = new AbortController();
  await new Promise((resolve) => {
    const look = () => {
      if (!document.hidden || signal.aborted) resolve();
      if (signal.aborted) seen.abort();
    };
    document.addEventListener("visibilitychange", look, { signal: listening.signal });
    signal.addEventListener("abort", look, { signal: listening.signal });
    look();
  });
  document.addEventListener("visibilitychange", () => document.hidden && seen.abort(), { signal: listening.signal });
  return { signal: seen.signal, end: () => listening.abort() };
}

/** The events of a body, as many as came at once. */
async function* parsed(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    const events = blocks.map(eventOf).filter((event) => event.data !== undefined);
    if (events.length) yield events;
  }
}

function eventOf(block) {
  const fields = {};
  for (const line of block.split(/\r?\n/)) {
    const at = line.indexOf(":");
    if (at > 0) fields[line.slice(0, at)] = line.slice(at + 1).trimStart();
  }
  return { ...fields, data: fields.data === undefined ? undefined : JSON.parse(fields.data) };
}

/** Wait; resolves early when `signal` is aborted. */
export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const ended = () => (clearTimeout(timer), signal?.removeEventListener("abort", ended), resolve());
    const timer = setTimeout(ended, milliseconds);
    signal?.addEventListener("abort", ended);
  });
}

/** Call `look` again and again while the page is seen, `milliseconds` apart, until `signal` is aborted. */
export async function poll(look, milliseconds, signal) {
  while (!signal.aborted) {
    await pause(milliseconds, signal);
    if (signal.aborted || document.hidden) continue;
    try {
      await look();
    } catch (error) {
      if (!signal.aborted && error.status !== 0 && !(error.status >= 500)) throw error;
    }
  }
}

let hear = () => {};
let answered = true;

/** Tell `listener` when the API stops answering (true) and when it answers again (false). */
export function watchConnection(listener) {
  hear = listener;
}

function connection(now) {
  if (now !== answered) hear(!now);
  answered = now;
}
