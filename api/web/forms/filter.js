// The words by which trials are filtered: "> 0.98", "learning_rate <= 1e-3, optimizer = sgd", "pruned".

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
 * A predicate over trials; terms are parted by commas, and all must hold. Throws an Error in words where one cannot be read.
 *
 * `columns` is name → (trial → value); `objective` names the one that is meant where a term begins with its comparison.
 * A term without a comparison is looked for in the state.
 */
export function predicate(words, columns, objective) {
  const terms = words
    .split(",")
    .map((term) => term.trim())
    .filter(Boolean);
  const tests = terms.map((term) => testOf(term, columns, objective));
  return (trial) => tests.every((test) => test(trial));
}

function testOf(term, columns, objective) {
  const found = TERM.exec(term);
  if (!found) return stateTest(term);
  const [, name = objective, sign, wanted] = found;
  const read = columns[name] ?? columns[Object.keys(columns).find((known) => known.startsWith(name))];
  if (!read) throw new Error(`there is no column “${name}”; there are: ${Object.keys(columns).join(", ")}`);
  const value = /%$/.test(wanted)
    ? Number(wanted.slice(0, -1)) / 100
    : isNaN(wanted)
      ? wanted.replaceAll(/["']/g, "").trim()
      : Number(wanted);
  return (trial) => {
    const has = read(trial);
    return has !== null && has !== undefined && COMPARE[sign](typeof value === "string" ? String(has) : has, value);
  };
}

function stateTest(term) {
  const wanted = term.toLowerCase().replaceAll(" ", "_");
  if (!/^[a-z_]+$/.test(wanted))
    throw new Error(`“${term}” is no comparison; try “> 0.98”, “learning_rate < 0.01” or “pruned”`);
  return (trial) => trial.state.includes(wanted);
}
