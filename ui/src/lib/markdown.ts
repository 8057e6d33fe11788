/** Markdown to HTML that is safe to insert: whatever a model writes, nothing runs or is fetched. */

import createDOMPurify from "dompurify";
import { Marked, type Token, type Tokens } from "marked";

import { t } from "./i18n.svelte";

/** One top-level block of a text and its HTML. */
export interface Block {
  raw: string;
  html: string;
}

// What Markdown gives, and below it the tags that a text may write itself, without attributes.
const MARKDOWN_TAGS = (
  "a blockquote button code del div em h1 h2 h3 h4 h5 h6 hr input li ol p pre span strong table " +
  "tbody td th thead tr ul"
).split(" ");
const PLAIN_TAGS = "b br details i kbd mark s small sub summary sup u".split(" ");
const PLAIN_TAG = new RegExp(`</?(${PLAIN_TAGS.join("|")}) */?>|[<>"']`, "gi");
const ATTRIBUTES = ["align", "checked", "class", "disabled", "href", "start", "title", "type"];
const CLASSES = new Set(["code", "code-bar", "code-copy", "table"]);
const SAFE_LINK = /^(https?:|mailto:)/i;

const purify = createDOMPurify(window);
purify.addHook("afterSanitizeAttributes", (element) => {
  limitClasses(element);
  // What scrolls sideways must be reachable by keyboard.
  if (element.matches("pre, .table")) element.setAttribute("tabindex", "0");
  if (element.nodeName === "A") hardenLink(element);
  if (element.nodeName === "INPUT" && element.getAttribute("type") !== "checkbox") element.remove();
});

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    code: ({ text, lang }) => codeBlock(text, lang ?? ""),
    // Shown as text: that is what a person who asked for HTML wants to see, and nothing is parsed.
    html: ({ text }) => text.replace(PLAIN_TAG, (match, tag) => (tag ? match : escapeHtml(match))),
    // An image would be fetched from wherever the text says, and tell that place who reads it.
    image: ({ href, text }) => `<a href="${escapeHtml(href)}">${escapeHtml(text || href)}</a>`,
    table(token: Tokens.Table) {
      const row = (cells: Tokens.TableCell[]): string =>
        `<tr>${cells.map((cell) => this.tablecell(cell)).join("")}</tr>`;
      const body = token.rows.map(row).join("");
      return `<div class="table"><table><thead>${row(token.header)}</thead><tbody>${body}</tbody></table></div>`;
    },
  },
});

/**
 * Renders a text block by block. `previous` is what an earlier, shorter version of the same text
 * gave: blocks that can no longer change are taken from it, so a stream costs one block a paint.
 */
export function renderBlocks(text: string, previous: Block[] = []): Block[] {
  const source = text.replace(/\r\n?/g, "\n");
  const kept = settledBlocks(source, previous);
  const length = kept.reduce((sum, block) => sum + block.raw.length, 0);
  return [...kept, ...marked.lexer(source.slice(length)).map(toBlock)];
}

// The last block with content may still grow, and so may the blank lines after it.
function settledBlocks(source: string, previous: Block[]): Block[] {
  const kept = previous.slice(0, previous.findLastIndex((block) => block.raw.trim() !== ""));
  return source.startsWith(kept.map((block) => block.raw).join("")) ? kept : [];
}

function toBlock(token: Token): Block {
  return { raw: token.raw, html: sanitize(marked.parser([token])) };
}

/** Removes everything from HTML that is not plain text markup. */
export function sanitize(html: string): string {
  return purify.sanitize(html, {
    ALLOWED_TAGS: [...MARKDOWN_TAGS, ...PLAIN_TAGS],
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: SAFE_LINK,
  });
}

function limitClasses(element: Element): void {
  const classes = [...element.classList].filter((name) => CLASSES.has(name));
  if (classes.length) element.setAttribute("class", classes.join(" "));
  else element.removeAttribute("class");
}

function hardenLink(element: Element): void {
  element.setAttribute("rel", "noopener noreferrer nofollow");
  element.setAttribute("target", "_blank");
}

function codeBlock(text: string, info: string): string {
  const language = escapeHtml(info.split(/\s/, 1)[0] ?? "");
  return (
    `<div class="code"><div class="code-bar"><span>${language}</span>` +
    `<button type="button" class="code-copy">${escapeHtml(t("chat.copyCode"))}</button></div>` +
    `<pre><code>${escapeHtml(text)}\n</code></pre></div>`
  );
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
