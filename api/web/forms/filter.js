// Parse filters of trials: "> 0.98", "learning_rate <= 1e-3, optimizer = sgd", "pruned".

const COMPARE = {
  "<": (a, b) => a < b,
  "<=": (a, b) => a <= b,
  ">": (a, b) => a > b,
  ">=": (a, b) => a >= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};
const TERM = /^([A-Za-z_][\w.]*)?\s*(<=|>=|!=|<|>|=)\s*(\S.*)$/;

/**
 * Parse a filter into a predicate over trials. Terms are separated by commas, and all must hold. Throws an Error that a
 * reader understands if a term cannot be parsed.
 *
 * `columns` maps a name to (trial → value). A term that starts with its comparison is about the column `objective`.
 * A term without a comparison is a state, or a part of its name.
 */
export function predicate(filter, columns, objective) {
  const terms = filter
    .split(",")
    .map((term) => term.trim())
    .filter(Boolean);
  const tests = terms.map((term) => testOf(term, columns, objective));
  return (trial) => tests.every((test) => test(trial));
}

function testOf(term, columns, objective) {
  const parsed = TERM.exec(term);
  if (!parsed) return stateTest(term);
  const [, name = objective, sign, wanted] = parsed;
  const read = columns[name] ?? columns[Object.keys(columns).find((known) => known.startsWith(name))];
  if (!read) throw new Error(`There is no column “${name}”. Columns: ${Object.keys(columns).join(", ")}.`);
  const value = /%$/.test(wanted)
    ? Number(wanted.slice(0, -1)) / 100
    : isNaN(wanted)
      ? wanted.replaceAll(/["']/g, "").trim()
      : Number(wanted);
  return (trial) => {
    const actual = read(trial);
    return actual !== null && actual !== undefined && COMPARE[sign](typeof value === "string" ? String(actual) : actual, value);
  };
}

function stateTest(term) {
  const wanted = term.toLowerCase().replaceAll(" ", "_");
  if (!/^[a-z_]+$/.test(wanted))
    throw new Error(`“${term}” is not a comparison. Try “> 0.98”, “learning_rate < 0.01” or “pruned”.`);
  return (trial) => trial.state.includes(wanted);
}
