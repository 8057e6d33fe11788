/** Which view the address names: `#/` a new chat, `#/chat/ID` a conversation. */

export interface Route {
  view: "chat";
  /** null: a conversation that does not exist yet. */
  conversationId: string | null;
}

export function parseRoute(hash: string): Route {
  const [, id] = /^#\/chat\/([\w-]+)$/.exec(hash) ?? [];
  return { view: "chat", conversationId: id ?? null };
}

export function chatLink(conversationId: string | null): string {
  return conversationId === null ? "#/" : `#/chat/${conversationId}`;
}

export const route: Route = $state(parseRoute(location.hash));

addEventListener("hashchange", () => Object.assign(route, parseRoute(location.hash)));

/** Goes to a conversation. `replace` leaves no entry in the history. */
export function goTo(conversationId: string | null, { replace = false } = {}): void {
  const link = chatLink(conversationId);
  if (replace) history.replaceState(null, "", link);
  else if (location.hash !== link) history.pushState(null, "", link);
  Object.assign(route, parseRoute(link));
}
