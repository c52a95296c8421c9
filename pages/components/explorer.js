// Models, Images and Galleries: a searchable grid, and the page of one thing when the address names it.
import { View, api, define, emptyState, html, icon, loginUrl, may, navigate, render, session } from "./core.js";
import { createGallery } from "./edit_dialog.js";
import { RELEVANCE, SORTS, filtersOf, listQuery, readState, sameList, withTag, without, writeState } from "./explorer_state.js";
import { openLightbox } from "./lightbox.js";
import { TYPE_LABELS } from "./tile.js";
import "./gallery_detail.js";
import "./image_detail.js";
import "./model_detail.js";
import "./search_bar.js";
import "./tile_grid.js";

const KINDS = {
  models: { title: "Models", singular: "model", search: "Search models, triggers, tags", detail: "vs-model-detail" },
  images: { title: "Images", singular: "image", search: "Search prompts, titles, tags", detail: "vs-image-detail" },
  galleries: { title: "Galleries", singular: "gallery", search: "Search galleries", detail: "vs-gallery-detail" },
};
const BASE_MODELS = ["SD 1.5", "SD 2.1", "SDXL", "Pony", "Illustrious", "SD 3", "Flux"];

export class Explorer extends View {
  #kind = KINDS.models;
  #name = "models";
  #state = readState("");
  #listed = null;
  #owners = new Map();
  #baseModels = BASE_MODELS;
  #typing = false;
  #scroll = 0;
  #session = null;

  start() {
    this.#name = this.getAttribute("kind") ?? "models";
    this.#kind = KINDS[this.#name];
    if (!this.grid) this.#build();
    this.listen(window, "vs:navigate", () => this.#apply());
    this.on("search-text", "vs-search-bar", (event) => this.#search(event.detail));
    this.on("search-commit", "vs-search-bar", (event) => {
      this.#search(event.detail);
      this.#typing = false;
    });
    this.on("search-tag", "vs-search-bar", (event) => this.#go({ ...withTag(this.#state, event.detail.name), q: event.detail.text }));
    this.on("search-down", "vs-search-bar", () => this.grid.focusTile(0));
    this.listen(this.bar, "focusout", () => (this.#typing = false));
    this.listen(this.grid, "grid-leave-top", () => this.bar.focusField());
    this.listen(this.grid, "grid-loaded", () => this.#drawControls());
    this.on("change", "select[data-filter]", (event, select) => this.#go({ ...this.#state, [select.dataset.filter]: select.value }));
    this.on("click", "[data-unfilter]", (event, chip) => this.#go(without(this.#state, chip.dataset.unfilter, chip.value)));
    this.on("click", "[data-mine]", () => this.#go({ ...this.#state, owner: this.#state.owner === "me" ? "" : "me" }));
    this.on("click", "[data-clear-all]", () => this.#go(readState("")));
    this.on("click", "[data-new-gallery]", () => this.#newGallery());
    this.on("asset-changed", this.#kind.detail, (event) => this.grid.replace(event.detail));
    this.on("asset-deleted", this.#kind.detail, (event) => {
      this.grid.remove(event.detail);
      this.#go({ ...this.#state, id: "" }, { replace: true });
    });
    this.#apply();
    this.#learn();
  }

  #build() {
    render(
      this,
      html`<div class="vs-explorer-list">
          <header class="vs-explorer-head"><h1>${this.#kind.title}</h1><div class="vs-explorer-actions" data-actions></div></header>
          <div class="vs-explorer-tools">
            <vs-search-bar placeholder="${this.#kind.search}"></vs-search-bar>
            <div class="vs-explorer-filters" data-filters></div>
          </div>
          <div class="vs-explorer-chips" data-chips aria-label="Active filters"></div>
          <p class="vs-explorer-notes" data-notes role="status" hidden></p>
          <vs-tile-grid></vs-tile-grid>
        </div>
        <div class="vs-explorer-detail" data-detail hidden></div>`,
    );
    this.list = this.querySelector(".vs-explorer-list");
    this.detail = this.querySelector("[data-detail]");
    this.bar = this.querySelector("vs-search-bar");
    this.bar.kind = this.#kind.singular;
    this.grid = this.querySelector("vs-tile-grid");
    this.grid.configure({
      label: this.#kind.title,
      load: (cursor, limit, signal) => this.#load(cursor, limit, signal),
      empty: () => this.#empty(),
      open: (item, index) => this.#open(item, index),
    });
  }

  /** Who is looking decides the buttons; the known base models fill a filter. Neither holds up the first tiles. */
  async #learn() {
    this.#session = await session();
    this.#drawControls();
    this.grid.redrawEmpty();
    if (this.#name !== "models") return;
    try {
      const known = await api("/api/base-models", { signal: this.signal });
      this.#baseModels = [...new Set([...known.items.map((model) => model.label), ...BASE_MODELS])];
      this.#drawControls();
    } catch {
      // The usual names stay on offer.
    }
  }

  async #load(cursor, limit, signal) {
    const page = await api(`/api/${this.#name}`, { query: { ...listQuery(this.#listed), cursor, limit }, signal });
    if (!cursor) this.#tellNotes(page.notes ?? []);
    for (const item of page.items) if (item.owner) this.#owners.set(item.owner.id, item.owner.name);
    return page;
  }

  /** What of the search was not understood; the rest was searched for. */
  #tellNotes(notes) {
    const place = this.querySelector("[data-notes]");
    place.textContent = notes.join(" ");
    place.hidden = notes.length === 0;
  }

  #search(text) {
    if (text === this.#state.q) return;
    const sort = !text && this.#state.sort === "relevance" ? "" : this.#state.sort;
    this.#go({ ...this.#state, q: text, sort }, { replace: this.#typing });
    this.#typing = true;
  }

  #go(state, options = {}) {
    navigate(location.pathname + writeState(state), { scroll: false, ...options });
  }

  /** Show what the address says. */
  #apply() {
    if (!this.isConnected || location.pathname !== `/${this.#name}`) return;
    const before = this.#state;
    this.#state = readState(location.search);
    if (this.#state.id) {
      if (!before.id) this.#scroll = scrollY;
      this.#showDetail(Boolean(this.#listed) && !before.id);
      return;
    }
    const returns = !this.detail.hidden;
    this.#showList();
    if (!this.#listed || !sameList(this.#listed, this.#state)) {
      this.#listed = this.#state;
      this.bar.value = this.#state.q;
      this.#drawControls();
      this.grid.reload();
      if (returns || !sameList(before, this.#state)) scrollTo({ top: 0, behavior: "instant" });
    } else if (returns) {
      const top = this.#scroll;
      requestAnimationFrame(() => scrollTo({ top, behavior: "instant" }));
    }
  }

  #showList() {
    this.list.hidden = false;
    this.detail.hidden = true;
    this.detail.replaceChildren();
    document.title = `${this.#kind.title} · ${this.#session?.site_title ?? "VisionSuit"}`;
  }

  #showDetail(fromList) {
    const { id, image } = this.#state;
    this.list.hidden = true;
    this.detail.hidden = false;
    let view = this.detail.firstElementChild;
    if (view?.assetId !== id) {
      view = document.createElement(this.#kind.detail);
      view.assetId = id;
      view.backUrl = `/${this.#name}${writeState({ ...this.#state, id: "", image: "" })}`;
      view.cameFromList = fromList;
      this.detail.replaceChildren(view);
      scrollTo({ top: 0, behavior: "instant" });
    }
    view.showImage?.(image);
  }

  #open(item, index) {
    if (this.#name !== "images") {
      this.#go({ ...this.#state, id: item.id });
      return;
    }
    openLightbox({
      items: () => this.grid.items,
      index,
      more: () => (this.grid.done ? Promise.resolve(false) : this.grid.loadMore()),
      address: (shown) => location.pathname + writeState({ ...this.#state, id: shown.id }),
    }).closed.then((last) => {
      if (!this.list.hidden) this.grid.focusTile(last);
    });
  }

  async #newGallery() {
    const gallery = await createGallery();
    if (gallery) this.#go({ ...readState(""), id: gallery.id });
  }

  #drawControls() {
    this.#drawActions();
    const { type, base_model, owner, sort, q } = this.#state;
    const sorts = q ? [RELEVANCE, ...SORTS[this.#name]] : SORTS[this.#name];
    const types = this.#name === "models";
    render(
      this.querySelector("[data-filters]"),
      html`${types && choice("type", "Type", type, [["", "All types"], ...Object.entries(TYPE_LABELS)])}
        ${types && choice("base_model", "Base model", base_model, [["", "All base models"], ...[...new Set([...this.#baseModels, base_model].filter(Boolean))].map((name) => [name, name])])}
        ${this.#session?.user && html`<button type="button" class="vs-toggle" data-mine aria-pressed="${owner === "me" ? "true" : "false"}">${icon("user", { size: 16 })}Mine</button>`}
        ${choice("sort", "Sort", sort || (q ? "relevance" : "newest"), sorts)}`,
    );
    for (const select of this.querySelectorAll("select[data-filter]")) select.value = select.dataset.value;
    const chips = filtersOf(this.#state, { ownerName: (id) => this.#ownerName(id), typeLabel: (name) => TYPE_LABELS[name] ?? name });
    render(
      this.querySelector("[data-chips]"),
      html`${chips.map(
        (chip) => html`<button type="button" class="vs-chip" data-key="${chip.name}:${chip.value}" data-unfilter="${chip.name}" value="${chip.value}" aria-label="Remove filter ${chip.label}">${chip.label}${icon("x", { size: 14 })}</button>`,
      )}${chips.length > 0 && html`<button type="button" class="vs-chip is-clear" data-key="clear" data-clear-all>Clear all</button>`}`,
    );
  }

  #drawActions() {
    const now = this.#session;
    const actions = {
      models: now && may(now, "assets:upload") && html`<a class="btn" href="/upload">${icon("upload", { size: 18 })}Upload</a>`,
      images: now?.may_generate && html`<a class="btn" href="/generate">${icon("sparkles", { size: 18 })}Render a picture</a>`,
      galleries: now?.user && html`<button type="button" class="btn" data-new-gallery>${icon("plus", { size: 18 })}New gallery</button>`,
    };
    render(this.querySelector("[data-actions]"), html`${actions[this.#name]}`);
  }

  #ownerName(id) {
    if (!this.#owners.has(id)) {
      this.#owners.set(id, "…");
      api(`/api/users/${encodeURIComponent(id)}`, { signal: this.signal })
        .then((user) => {
          this.#owners.set(id, user.name);
          this.#drawControls();
        })
        .catch(() => this.#owners.set(id, "someone"));
    }
    return this.#owners.get(id);
  }

  #empty() {
    const filtered = this.#state.q || filtersOf(this.#state, { ownerName: () => "", typeLabel: (name) => name }).length > 0;
    if (filtered) {
      return emptyState({
        icon: "search",
        title: "Nothing matches",
        text: this.#state.q ? `No ${this.#name} found for “${this.#state.q}” with these filters.` : `No ${this.#name} carry all of these filters.`,
        actions: html`<button type="button" class="btn primary" data-clear-all>Clear search and filters</button>`,
      });
    }
    return this.#firstSteps();
  }

  #firstSteps() {
    const now = this.#session;
    const signIn = html`<a class="btn primary" href="${loginUrl()}">Sign in</a>`;
    if (this.#name === "models") {
      const uploads = now && may(now, "assets:upload");
      return emptyState({
        icon: "model",
        title: "No models yet",
        text: uploads ? "Upload the first LoRA: its facts are read from the file, and it can be mixed in the generator at once." : "Curators fill this library with LoRAs and checkpoints. Have a look again soon.",
        actions: uploads ? html`<a class="btn primary" href="/upload">${icon("upload", { size: 18 })}Upload the first model</a>` : !now?.user && signIn,
      });
    }
    if (this.#name === "images") {
      return emptyState({
        icon: "images",
        title: "No pictures yet",
        text: now?.may_generate ? "Render one and save it to a gallery: it appears here." : "Sign in to render the first one, or come back later.",
        actions: now?.may_generate ? html`<a class="btn primary" href="/generate">${icon("sparkles", { size: 18 })}Render a picture</a>` : !now?.user && signIn,
      });
    }
    return emptyState({
      icon: "gallery",
      title: "No galleries yet",
      text: "A gallery is an ordered collection of pictures and models.",
      actions: now?.user ? html`<button type="button" class="btn primary" data-new-gallery>${icon("plus", { size: 18 })}Create the first gallery</button>` : signIn,
    });
  }
}

function choice(name, label, value, options) {
  return html`<label class="vs-choice ${value && name !== "sort" ? "is-set" : ""}" data-key="${name}"><span class="vs-hidden">${label}</span>
    <select data-filter="${name}" data-value="${value}" aria-label="${label}">${options.map(([key, text]) => html`<option value="${key}">${text}</option>`)}</select>${icon("chevron-down", { size: 16 })}</label>`;
}

define("vs-explorer", Explorer);
for (const name of Object.keys(KINDS)) {
  define(
    `vs-page-${name}`,
    class extends Explorer {
      start() {
        this.setAttribute("kind", name);
        super.start();
      }
    },
  );
}
