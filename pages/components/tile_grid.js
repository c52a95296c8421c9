// A grid of same-size tiles over a cursor-paged list. Only the rows near the viewport are in the document,
// so a list of thousands costs as much as one screen of it; padding stands in for the rows that are not.
import { View, define, errorState, fragment, html } from "./core.js";
import { ownClick } from "./dom.js";
import { infoTemplate, tileTemplate } from "./tile.js";

const PAGE_SIZE = 40;
const OVERSCAN_ROWS = 1;
const AHEAD_PX = 1400;

export class TileGrid extends View {
  items = [];
  #cursor = null;
  #done = false;
  #loading = null;
  #pending = Promise.resolve(false);
  #failed = null;
  #options = null;
  #live = new Map();
  #frame = 0;
  #metrics = null;

  /**
   * load(cursor, limit, signal) -> {items, next_cursor}; empty() -> template for a list with nothing in it;
   * tile(item) -> template (optional); open(item, index) for a plain click; label for screen readers.
   */
  configure(options) {
    this.#options = options;
    this.#build();
    return this;
  }

  start() {
    // Captured on the document: whichever ancestor scrolls, the event passes here.
    this.listen(document, "scroll", () => this.#schedule(), { capture: true, passive: true });
    this.#resize = new ResizeObserver(() => {
      this.#metrics = null;
      this.#schedule();
    });
    this.#resize.observe(this);
    this.#observer = new IntersectionObserver(
      (entries) => {
        // Several entries can queue up; only the newest tells where the end of the list is now.
        if (entries.at(-1).isIntersecting) this.loadMore();
      },
      { rootMargin: `${AHEAD_PX}px 0px` },
    );
    if (this.#sentinel) this.#observer.observe(this.#sentinel);
  }

  stop() {
    this.#loading?.abort();
    this.#loading = null;
    this.#resize.disconnect();
    this.#observer.disconnect();
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  #resize = null;
  #observer = null;
  #grid = null;
  #foot = null;
  #sentinel = null;

  #build() {
    if (this.#grid) return;
    this.#grid = fragment(html`<div class="vs-grid" role="list"></div>`);
    this.#grid.setAttribute("aria-label", this.#options.label ?? "Results");
    this.#foot = fragment(html`<div class="vs-grid-foot" aria-live="polite"></div>`);
    this.#sentinel = fragment(html`<div class="vs-grid-end" aria-hidden="true"></div>`);
    this.replaceChildren(this.#grid, this.#foot, this.#sentinel);
    this.#grid.addEventListener("click", (event) => this.#click(event));
    this.#grid.addEventListener("keydown", (event) => this.#key(event));
    this.#grid.addEventListener("pointerover", (event) => this.#enrich(event.target));
    this.#grid.addEventListener("focusin", (event) => this.#enrich(event.target));
    if (this.isConnected) this.#observer.observe(this.#sentinel);
  }

  /** Start over with the first page. What is shown stays, dimmed, until the answer is there. */
  async reload() {
    this.#loading?.abort();
    this.#loading = null;
    this.#cursor = null;
    this.#done = false;
    this.#failed = null;
    if (this.items.length) this.#grid.setAttribute("aria-busy", "true");
    else this.#skeletons(15);
    await this.loadMore(true);
  }

  /** Fetch the next page. Resolves to whether anything came; calls while one is under way share it. */
  loadMore(replace = false) {
    if (this.#loading) return this.#pending;
    if (this.#done || !this.#options || this.#failed) return Promise.resolve(false);
    this.#pending = this.#fetchPage(replace);
    return this.#pending;
  }

  async #fetchPage(replace) {
    const controller = new AbortController();
    this.#loading = controller;
    if (!replace && this.items.length) this.#foot.replaceChildren(fragment(html`<p class="vs-grid-wait">Loading more…</p>`));
    try {
      const page = await this.#options.load(this.#cursor, PAGE_SIZE, controller.signal);
      if (controller.signal.aborted) return false;
      if (replace) this.#clear();
      const known = new Set(this.items.map(keyOf));
      const fresh = page.items.filter((item) => !known.has(keyOf(item)));
      this.items.push(...fresh);
      this.#cursor = page.next_cursor;
      this.#done = !page.next_cursor;
      this.#loading = null;
      this.#settle();
      this.dispatchEvent(new CustomEvent("grid-loaded", { detail: { replace, done: this.#done } }));
      return fresh.length > 0;
    } catch (error) {
      if (controller.signal.aborted) return false;
      this.#loading = null;
      this.#failed = error;
      if (replace) this.#clear();
      this.#settle();
      return false;
    }
  }

  get done() {
    return this.#done;
  }

  /** Show `item` instead of the one with the same id. */
  replace(item) {
    const index = this.items.findIndex((other) => keyOf(other) === keyOf(item));
    if (index < 0) return;
    this.items[index] = { ...this.items[index], ...item };
    this.#live.get(index)?.remove();
    this.#live.delete(index);
    this.#draw();
  }

  remove(item) {
    this.setItems(this.items.filter((other) => keyOf(other) !== keyOf(item)));
  }

  setItems(items) {
    this.items = items;
    for (const tile of this.#live.values()) tile.remove();
    this.#live.clear();
    this.#settle();
  }

  focusTile(index) {
    if (index < 0 || index >= this.items.length) return;
    if (!this.#live.has(index)) {
      const { columns, step } = this.#measure();
      const top = this.#grid.getBoundingClientRect().top + Math.floor(index / columns) * step;
      (this.closest("dialog") ? this.closest(".dialog-body") : document.scrollingElement).scrollBy({ top: top - innerHeight / 3, behavior: "instant" });
      this.#draw();
    }
    const link = this.#live.get(index)?.querySelector("a");
    link?.focus({ preventScroll: true });
    link?.scrollIntoView({ block: "nearest", behavior: "instant" });
  }

  /** Ask for the message of an empty list again, when what it depends on has changed. */
  redrawEmpty() {
    if (this.items.length === 0 && this.#done) this.#settle();
  }

  #clear() {
    this.items = [];
    for (const tile of this.#live.values()) tile.remove();
    this.#live.clear();
    this.#grid.replaceChildren();
    this.#grid.style.paddingTop = this.#grid.style.paddingBottom = "";
  }

  #skeletons(count) {
    this.#foot.replaceChildren();
    const tile = () => fragment(html`<div class="vs-tile vs-tile-skeleton" aria-hidden="true"></div>`);
    this.#grid.replaceChildren(...Array.from({ length: count }, tile));
    this.#grid.setAttribute("aria-busy", "true");
  }

  #settle() {
    this.#grid.removeAttribute("aria-busy");
    if (this.#live.size === 0) this.#grid.replaceChildren();
    this.#draw();
    this.#foot.replaceChildren();
    if (this.#failed) this.#showFailure();
    else if (this.items.length === 0 && this.#done) {
      const empty = this.#options.empty?.();
      if (empty) this.#foot.replaceChildren(fragment(html`<div>${empty}</div>`));
    }
    if (!this.#done && !this.#failed) {
      // An observer reports changes only: without this, a page too short to push the end away ends the list.
      this.#observer?.unobserve(this.#sentinel);
      this.#observer?.observe(this.#sentinel);
    }
  }

  #showFailure() {
    const box = fragment(html`<div role="alert">${errorState(this.#failed)}</div>`);
    box.querySelector("[data-retry]").addEventListener("click", () => {
      this.#failed = null;
      if (this.items.length) this.loadMore();
      else this.reload();
    });
    this.#foot.replaceChildren(box);
  }

  #schedule() {
    if (!this.#frame) {
      this.#frame = requestAnimationFrame(() => {
        this.#frame = 0;
        this.#draw();
      });
    }
  }

  #measure() {
    if (!this.#metrics) {
      const style = getComputedStyle(this.#grid);
      const columns = Math.max(1, style.gridTemplateColumns.split(" ").length);
      const gap = parseFloat(style.rowGap) || 0;
      const width = (this.#grid.clientWidth - gap * (columns - 1)) / columns;
      const ratio = parseFloat(style.getPropertyValue("--vs-tile-ratio")) || 1;
      this.#metrics = { columns, gap, step: width / ratio + gap, known: width > 0 };
    }
    return this.#metrics;
  }

  /** Put the rows near the viewport into the document and take the others out. */
  #draw() {
    if (!this.#grid?.isConnected || this.items.length === 0) return;
    const { columns, gap, step, known } = this.#measure();
    if (!known) {
      this.#metrics = null; // hidden: measured again when shown
      return;
    }
    const rows = Math.ceil(this.items.length / columns);
    const top = -this.#grid.getBoundingClientRect().top;
    const first = Math.min(rows - 1, Math.max(0, Math.floor(top / step) - OVERSCAN_ROWS));
    const last = Math.max(first, Math.min(rows - 1, Math.ceil((top + innerHeight) / step) + OVERSCAN_ROWS - 1));
    const from = first * columns;
    const to = Math.min(this.items.length, (last + 1) * columns);
    for (const [index, tile] of this.#live) {
      if (index < from || index >= to) {
        tile.remove();
        this.#live.delete(index);
      }
    }
    let next = null;
    for (let index = to - 1; index >= from; index--) {
      let tile = this.#live.get(index);
      if (!tile) {
        tile = this.#make(index);
        this.#live.set(index, tile);
        this.#grid.insertBefore(tile, next);
      }
      next = tile;
    }
    this.#grid.style.paddingTop = `${first * step}px`;
    const below = rows - 1 - last;
    this.#grid.style.paddingBottom = below > 0 ? `${below * step}px` : "";
    this.#grid.style.setProperty("--vs-grid-gap", `${gap}px`);
  }

  #make(index) {
    const item = this.items[index];
    const tile = fragment((this.#options.tile ?? tileTemplate)(item));
    tile.dataset.index = index;
    tile.setAttribute("role", "listitem");
    tile.setAttribute("aria-posinset", index + 1);
    tile.setAttribute("aria-setsize", this.#done ? this.items.length : -1);
    const picture = tile.querySelector("img");
    if (picture) {
      const shown = () => tile.classList.add("is-loaded");
      if (picture.complete && picture.naturalWidth) shown();
      picture.addEventListener("load", shown, { once: true });
      picture.addEventListener("error", () => picture.remove(), { once: true });
    }
    this.#options.decorate?.(tile, item, index);
    return tile;
  }

  #indexOf(target) {
    const tile = target.closest?.(".vs-tile[data-index]");
    return tile ? Number(tile.dataset.index) : -1;
  }

  /** What a tile shows on hover is made when it is first needed: most tiles are never hovered. */
  #enrich(target) {
    const index = this.#indexOf(target);
    if (index < 0 || this.#options.tile) return;
    const info = this.#live.get(index)?.querySelector(".vs-tile-info");
    if (!info || info.childElementCount > 2) return;
    const more = infoTemplate(this.items[index]);
    if (more) info.append(fragment(more));
  }

  #click(event) {
    const index = this.#indexOf(event.target);
    if (index < 0 || !this.#options.open || !ownClick(event) || !event.target.closest("a")) return;
    event.preventDefault();
    this.#options.open(this.items[index], index);
  }

  #key(event) {
    const index = this.#indexOf(event.target);
    if (index < 0 || !event.target.matches("a")) return;
    const { columns } = this.#measure();
    const moves = {
      ArrowRight: index + 1,
      ArrowLeft: index - 1,
      ArrowDown: index + columns,
      ArrowUp: index - columns,
      Home: 0,
      End: this.items.length - 1,
    };
    const target = moves[event.key];
    if (target === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (target < 0 && event.key === "ArrowUp") this.dispatchEvent(new CustomEvent("grid-leave-top"));
    else this.focusTile(Math.min(target, this.items.length - 1));
  }
}

function keyOf(item) {
  return `${item.kind ?? ""}:${item.id}`;
}

define("vs-tile-grid", TileGrid);
