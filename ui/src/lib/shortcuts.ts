/** Keys that work everywhere on the page; the composer has its own. */

import { library } from "./library.svelte";
import { shell } from "./shell.svelte";

const IS_MAC = /Mac|iPhone|iPad/.test(navigator.userAgent);
const MODIFIER = IS_MAC ? "⌘" : "Ctrl";

/** What each key does, as the settings show it. */
export const SHORTCUTS = [
  { key: "keys.new", keys: [MODIFIER, "Shift", "O"] },
  { key: "keys.sidebar", keys: [MODIFIER, "B"] },
  { key: "keys.settings", keys: [MODIFIER, ","] },
  { key: "keys.stop", keys: ["Esc"] },
] as const;

export function onShortcut(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  if (act(event)) event.preventDefault();
}

function act(event: KeyboardEvent): boolean {
  if (event.key === "Escape") return escape();
  if (!(IS_MAC ? event.metaKey : event.ctrlKey) || event.altKey) return false;
  const key = event.key.toLowerCase();
  if (event.shiftKey && key === "o") library.start("chat");
  else if (!event.shiftKey && key === "b") shell.sidebarOpen = !shell.sidebarOpen;
  else if (!event.shiftKey && key === ",") shell.openSettings();
  else return false;
  return true;
}

// The nearest thing first: the drawer covers the reply.
function escape(): boolean {
  if (shell.isNarrow && shell.sidebarOpen) shell.closeDrawer();
  else if (library.current.isRunning) library.current.stop();
  else return false;
  return true;
}
