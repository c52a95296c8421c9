// A small, safe part of Markdown for descriptions. Everything goes through `html`, so no text can become markup,
// and links lead to http(s) or this site only.
import { html } from "./core.js";

const INLINE = /(`[^`\n]+`)|\*\*([^*\n]+)\*\*|__([^_\n]+)__|\*([^*\s][^*\n]*)\*|\b_([^_\s][^_\n]*)_\b|\[([^\]\n]{1,200})\]\(([^)\s]{1,500})\)|(https?:\/\/[^\s<>"')\]]{1,500})/g;

/** @param {string} text @returns {Markup} */
export function markdown(text) {
  return html`${blocks(text).map(block)}`;
}

function blocks(text) {
  const found = [];
  let lines = null;
  const end = () => (lines = null);
  let fence = null;
  for (const line of String(text ?? "").replace(/\r\n?/g, "\n").split("\n")) {
    if (fence) {
      if (/^\s*```/.test(line)) fence = null;
      else fence.push(line);
      continue;
    }
    if (/^\s*```/.test(line)) {
      fence = [];
      found.push({ kind: "code", lines: fence });
      end();
      continue;
    }
    if (!line.trim()) {
      end();
      continue;
    }
    const [, heading] = line.match(/^#{1,6}\s+(.+)$/) ?? [];
    const [, bullet] = line.match(/^\s*[-*+]\s+(.+)$/) ?? [];
    const [, numbered] = line.match(/^\s*\d{1,3}[.)]\s+(.+)$/) ?? [];
    const [, quote] = line.match(/^\s*>\s?(.*)$/) ?? [];
    const [kind, content] = heading
      ? ["heading", heading]
      : bullet
        ? ["bullets", bullet]
        : numbered
          ? ["numbers", numbered]
          : quote !== undefined
            ? ["quote", quote]
            : ["text", line];
    if (lines?.kind !== kind || kind === "heading") {
      lines = { kind, lines: [] };
      found.push(lines);
    }
    lines.lines.push(content);
  }
  return found;
}

function block({ kind, lines }) {
  if (kind === "code") return html`<pre><code>${lines.join("\n")}</code></pre>`;
  if (kind === "heading") return html`<h3>${inline(lines[0])}</h3>`;
  if (kind === "bullets") return html`<ul>${lines.map((line) => html`<li>${inline(line)}</li>`)}</ul>`;
  if (kind === "numbers") return html`<ol>${lines.map((line) => html`<li>${inline(line)}</li>`)}</ol>`;
  const text = lines.map((line, index) => html`${index > 0 && html`<br />`}${inline(line)}`);
  return kind === "quote" ? html`<blockquote>${text}</blockquote>` : html`<p>${text}</p>`;
}

function inline(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(from, match.index));
    from = match.index + match[0].length;
    const [all, code, bold, bold2, italic, italic2, label, target, url] = match;
    if (code) parts.push(html`<code>${code.slice(1, -1)}</code>`);
    else if (bold ?? bold2) parts.push(html`<strong>${bold ?? bold2}</strong>`);
    else if (italic ?? italic2) parts.push(html`<em>${italic ?? italic2}</em>`);
    else if (label) parts.push(link(target, label, all));
    else parts.push(link(url, url, all));
  }
  parts.push(text.slice(from));
  return parts;
}

function link(target, label, source) {
  if (/^\/(?!\/)/.test(target)) return html`<a href="${target}">${label}</a>`;
  if (/^https?:\/\//i.test(target)) return html`<a href="${target}" target="_blank" rel="noopener noreferrer nofollow ugc">${label}</a>`;
  return source;
}
