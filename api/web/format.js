// Format values for people: numbers, durations, times and sizes.

const DASH = "–";

/** Format a share as a percentage: 0.98765 → "98.77 %". */
export const percent = (share, digits = 2) =>
  share === null || share === undefined ? DASH : `${(share * 100).toFixed(digits)} %`;

/** Format a number with at most `digits` significant digits: 0.000123456 → "0.0001235", 1234567 → "1,234,567". */
export function figure(value, digits = 4) {
  if (value === null || value === undefined) return DASH;
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** Format the value of a hyper-parameter, of any type. */
export function plain(value) {
  if (value === null || value === undefined) return DASH;
  if (typeof value === "number") return figure(value);
  return Array.isArray(value)
    ? value.map(plain).join(", ")
    : typeof value === "object"
      ? JSON.stringify(value)
      : String(value);
}

/** Format a duration in seconds: 4.2 → "4.2 s", 184 → "3 min 4 s", 7,300 → "2 h 2 min". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return DASH;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const SPANS = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** Format an instant relative to now: "3 minutes ago". */
export function ago(instant) {
  if (!instant) return DASH;
  const seconds = (new Date(instant) - Date.now()) / 1000;
  const [unit, size] = SPANS.find(([, length]) => Math.abs(seconds) >= length) ?? ["second", 1];
  return Math.abs(seconds) < 10 ? "just now" : relative.format(Math.round(seconds / size), unit);
}

/** Format an instant as a date and time in the time zone of this computer. */
export const instant = (at) =>
  at ? new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : DASH;

/** Turn a name of the API into text: "stopped_early" → "stopped early". */
export const readable = (name) => (name ?? DASH).replaceAll("_", " ");

/** Format a count with its noun: "1 trial", "3 trials". */
export const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

/** Format a size in bytes: 1,234,567 → "1.2 MB". */
export function bytes(n) {
  const power = n < 1000 ? 0 : Math.min(3, Math.floor(Math.log10(n) / 3));
  return `${power ? (n / 1000 ** power).toFixed(1) : n} ${["B", "kB", "MB", "GB"][power]}`;
}
