/** What was typed and not sent, kept while the tab lives so that a reload does not lose it. */

const PREFIX = "avllm.draft.";

export function readDraft(conversationId: string): string {
  try {
    return sessionStorage.getItem(PREFIX + conversationId) ?? "";
  } catch {
    return "";
  }
}

export function writeDraft(conversationId: string, text: string): void {
  try {
    if (text) sessionStorage.setItem(PREFIX + conversationId, text);
    else sessionStorage.removeItem(PREFIX + conversationId);
  } catch {
    // Storage is full or blocked: the draft stays in memory.
  }
}
