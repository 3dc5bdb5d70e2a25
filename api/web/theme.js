// Runs before the first paint, so that the page does not flash in the wrong theme.
try {
  const stored = localStorage.getItem("theme");
  if (stored) document.documentElement.dataset.theme = stored;
} catch {
  // The browser blocks storage, so the page uses the system's theme.
}
