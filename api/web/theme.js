// Runs before the first paint, so that a page in a chosen theme does not flash in the other.
const kept = localStorage.getItem("theme");
if (kept) document.documentElement.dataset.theme = kept;
