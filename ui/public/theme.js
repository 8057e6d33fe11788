// Runs before the first paint, so that a chosen theme never flashes. The key is that of settings.
try {
  const { theme } = JSON.parse(localStorage.getItem("avllm.settings") ?? "{}");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is blocked or holds something else: the system's theme stays.
}
