// Dialog to choose LoRAs: the whole library, searched on the server, narrowed to what fits the base model.
import { api, emptyState, fragment, html, icon, openDialog, render } from "./core.js";
import { placeholderStyle, thumbImage } from "./dom.js";
import { askFits, knownFit } from "./lora_fits.js";
import "./search_bar.js";
import { TYPE_LABELS, addressOf } from "./tile.js";
import "./tile_grid.js";

const MIXABLE = new Set(["LORA", "LYCORIS"]);
/** Pages read in one go when filtering leaves little of each. */
const PAGES_AT_ONCE = 6;

/**
 * @param {object} options baseModel: item of /api/base-models; chosen: ids in the mix; most: how many it may hold;
 *   add(card), remove(id): called at each choice
 * @returns {Promise<void>} when closed
 */
export function pickLoras({ baseModel, chosen, most, add, remove }) {
  const picked = new Set(chosen);
  const state = { q: "", tag: [], fitting: true };
  const dialog = openDialog({
    title: "Add LoRAs",
    size: "large",
    className: "vs-picker",
    body: fragment(html`<div class="vs-picker-body">
      <div class="vs-picker-tools"><vs-search-bar placeholder="Search LoRAs, triggers, tags"></vs-search-bar>
        ${baseModel && html`<button type="button" class="vs-toggle" data-fitting aria-pressed="true">${icon("check", { size: 16 })}Fits ${baseModel.label}</button>`}</div>
      <div class="vs-explorer-chips" data-chips></div>
      <vs-tile-grid class="vs-picker-grid"></vs-tile-grid>
    </div>`),
    footer: html`<span class="muted grow" data-count aria-live="polite"></span><button type="button" class="btn primary" data-close>Done</button>`,
  });
  const root = dialog.el;
  const grid = root.querySelector("vs-tile-grid");
  const bar = root.querySelector("vs-search-bar");
  bar.kind = "model";

  const showCount = () => render(root.querySelector("[data-count]"), html`${picked.size} of ${most} chosen`);
  const mark = (tile, item) => {
    tile.classList.toggle("is-chosen", picked.has(item.id));
    tile.querySelector("a").setAttribute("aria-pressed", String(picked.has(item.id)));
  };
  const drawChips = () =>
    render(
      root.querySelector("[data-chips]"),
      html`${state.tag.map((tag) => html`<button type="button" class="vs-chip" data-key="${tag}" data-untag="${tag}" aria-label="Remove filter #${tag}">#${tag}${icon("x", { size: 14 })}</button>`)}`,
    );

  grid.configure({
    label: "LoRAs",
    tile: (item) => pickTile(item, knownFit(baseModel, item.id)),
    decorate: mark,
    load: async (cursor, limit, signal) => {
      const items = [];
      let next = cursor;
      for (let page = 0; page < PAGES_AT_ONCE; page++) {
        const found = await api("/api/models", { query: { q: state.q, tag: state.tag, sort: state.q ? "relevance" : "newest", cursor: next, limit }, signal });
        const loras = found.items.filter((item) => MIXABLE.has(item.type));
        await askFits(baseModel, loras.map((item) => item.id), signal);
        items.push(...loras.filter((item) => !state.fitting || knownFit(baseModel, item.id)?.fits !== false));
        next = found.next_cursor;
        if (!next || items.length >= 12) break;
      }
      return { items, next_cursor: next };
    },
    empty: () =>
      emptyState({
        icon: "model",
        title: state.q || state.tag.length ? "Nothing matches" : "No LoRAs here yet",
        text: state.fitting && baseModel ? `Only LoRAs that fit ${baseModel.label} are shown. Switch that off to see all.` : "Try other words, or upload one.",
      }),
    open: (item) => {
      if (picked.has(item.id)) {
        picked.delete(item.id);
        remove(item.id);
      } else if (picked.size < most) {
        picked.add(item.id);
        add(item);
      } else return;
      showCount();
      for (const tile of grid.querySelectorAll(".vs-tile[data-index]")) mark(tile, grid.items[Number(tile.dataset.index)]);
    },
  });

  const again = () => {
    drawChips();
    grid.reload();
  };
  bar.addEventListener("search-text", (event) => {
    if (event.detail === state.q) return;
    state.q = event.detail;
    again();
  });
  bar.addEventListener("search-tag", (event) => {
    state.tag = [...new Set([...state.tag, event.detail.name])];
    state.q = event.detail.text;
    again();
  });
  bar.addEventListener("search-down", () => grid.focusTile(0));
  grid.addEventListener("grid-leave-top", () => bar.focusField());
  root.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-untag]");
    const toggle = event.target.closest("[data-fitting]");
    if (chip) state.tag = state.tag.filter((tag) => tag !== chip.dataset.untag);
    if (toggle) {
      state.fitting = !state.fitting;
      toggle.setAttribute("aria-pressed", String(state.fitting));
    }
    if (chip || toggle) again();
  });
  showCount();
  grid.reload();
  if (matchMedia("(hover: hover)").matches) bar.focusField();
  return dialog.closed;
}

function pickTile(item, fit) {
  const other = fit?.fits === false;
  return html`<div class="vs-tile vs-pick ${item.cover ? "" : "has-no-picture"} ${other ? "is-other" : ""}" title="${other ? fit.reason : ""}" style="${placeholderStyle(item.cover)}">
    <a href="${addressOf(item)}" role="button" aria-label="${item.title}">
      ${item.cover ? thumbImage(item.cover, { sizes: "(max-width: 560px) 46vw, 200px" }) : icon("model", { size: 36 })}
      <span class="vs-pick-mark">${icon("check", { size: 18 })}</span>
      <span class="vs-tile-info"><b>${item.title || "Untitled"}</b><small>${[item.base_model, item.type !== "LORA" && TYPE_LABELS[item.type]].filter(Boolean).join(" · ") || item.owner?.name}</small></span>
    </a>
  </div>`;
}
