// One tile of a grid: picture, badges, title; more on hover or focus.
import { formatBytes, formatNumber, html, icon } from "./core.js";
import { placeholderStyle, thumbImage } from "./dom.js";

export const TYPE_LABELS = {
  LORA: "LoRA",
  LYCORIS: "LyCORIS",
  CHECKPOINT: "Checkpoint",
  TEXTUAL_INVERSION: "Embedding",
  DREAMBOOTH: "DreamBooth",
};

const PATHS = { model: "/models", image: "/images", gallery: "/galleries" };
const SIZES = "(max-width: 560px) 46vw, (max-width: 900px) 31vw, (max-width: 1200px) 24vw, 340px";

/** Address of an asset's own page. */
export function addressOf(item) {
  return `${PATHS[item.kind]}?id=${encodeURIComponent(item.id)}`;
}

/** Badges that say who sees it and what it is. */
export function badges(item) {
  return [
    item.reported && html`<span class="tag-badge is-audit">In Audit</span>`,
    item.visibility === "private" && html`<span class="tag-badge is-private">Private</span>`,
    item.visibility === "unlisted" && html`<span class="tag-badge is-unlisted">Unlisted</span>`,
    item.adult && html`<span class="tag-badge is-adult">18+</span>`,
    item.kind === "model" && html`<span class="tag-badge">${TYPE_LABELS[item.type] ?? item.type}</span>`,
  ].filter(Boolean);
}

function subtitle(item) {
  const owner = item.owner?.name ?? "Unknown owner";
  if (item.kind === "gallery") {
    const counts = [count(item.image_count, "picture"), item.model_count ? count(item.model_count, "model") : null];
    return [counts.filter(Boolean).join(", "), owner].join(" · ");
  }
  if (item.kind === "model" && item.base_model) return `${owner} · ${item.base_model}`;
  return owner;
}

function count(number, noun) {
  return `${formatNumber(number ?? 0)} ${noun}${number === 1 ? "" : "s"}`;
}

/**
 * Few elements on purpose, signs come from the style sheet: a grid holds dozens of tiles.
 * @param {object} item model, image or gallery item of the REST lists
 */
export function tileTemplate(item) {
  const thumb = item.cover ?? item.thumb;
  const title = item.title || "Untitled";
  const marks = badges(item);
  return html`<div class="vs-tile ${thumb ? "" : "has-no-picture"}" data-kind="${item.kind}" style="${placeholderStyle(thumb)}">
    <a href="${addressOf(item)}" aria-label="${title}, ${subtitle(item)}">
      ${thumb && thumbImage(thumb, { sizes: SIZES })}
      ${marks.length > 0 && html`<span class="vs-tile-badges">${marks}</span>`}
      <span class="vs-tile-info"><b>${title}</b><small>${subtitle(item)}</small></span>
    </a>
  </div>`;
}

/** What hovering adds to the lower part of a tile; null when there is nothing to add. */
export function infoTemplate(item) {
  const facts = [
    item.kind === "model" && item.downloads > 0 && html`<span>${icon("download", { size: 14 })}${formatNumber(item.downloads)}</span>`,
    item.kind === "model" && item.size_bytes > 0 && html`<span>${formatBytes(item.size_bytes)}</span>`,
    item.kind === "image" && item.width > 0 && html`<span>${item.width} × ${item.height}</span>`,
  ].filter(Boolean);
  const tags = (item.tags ?? []).slice(0, 4);
  if (!facts.length && !tags.length && !item.trigger) return null;
  return html`<span class="vs-tile-more">
    ${item.trigger && html`<span class="vs-tile-trigger">${icon("zap", { size: 13 })}${item.trigger}</span>`}
    ${tags.length > 0 && html`<span class="vs-tile-tags">${tags.map((tag) => `#${tag}`).join("  ")}</span>`}
    ${facts.length > 0 && html`<span class="vs-tile-facts">${facts}</span>`}
  </span>`;
}
