// Page of a gallery: its items as a grid; its owner orders them and takes them out here.
import { api, define, emptyState, html, icon, navigate, toast, toastError } from "./core.js";
import { AssetDetail } from "./detail.js";
import { openLightbox } from "./lightbox.js";
import { markdown } from "./markdown.js";
import { addressOf, badges } from "./tile.js";
import "./tile_grid.js";

class GalleryDetail extends AssetDetail {
  path = "/api/galleries";
  noun = "gallery";
  listName = "Galleries";
  listKind = "galleries";
  #arranging = false;
  #wanted = "";
  #dragged = -1;

  start() {
    super.start();
    this.on("click", "[data-arrange]", () => this.#arrange());
    this.on("click", "[data-arranged]", () => this.#saveOrder());
    this.on("click", "[data-remove]", (event, button) => this.#remove(Number(button.closest(".vs-tile").dataset.index)));
    this.on("click", "[data-move]", (event, button) => this.#move(Number(button.closest(".vs-tile").dataset.index), Number(button.dataset.move)));
    this.on("dragstart", ".vs-tile", (event, tile) => {
      if (!this.#arranging) return;
      this.#dragged = Number(tile.dataset.index);
      event.dataTransfer.effectAllowed = "move";
    });
    this.on("dragover", ".vs-tile", (event) => {
      if (this.#arranging && this.#dragged >= 0) event.preventDefault();
    });
    this.on("drop", ".vs-tile", (event, tile) => {
      if (!this.#arranging || this.#dragged < 0) return;
      event.preventDefault();
      this.#place(this.#dragged, Number(tile.dataset.index));
      this.#dragged = -1;
    });
  }

  /** Open the lightbox on the item that the address names. */
  showImage(id) {
    this.#wanted = id ?? "";
    this.#openWanted();
  }

  skeleton() {
    return html`${this.back()}<div class="vs-gallery-head" aria-busy="true" aria-label="Loading"><div class="vs-line is-wide"></div><div class="vs-line"></div></div>`;
  }

  template(item) {
    const count = [
      `${item.image_count ?? 0} picture${item.image_count === 1 ? "" : "s"}`,
      item.model_count > 0 && `${item.model_count} model${item.model_count === 1 ? "" : "s"}`,
    ];
    const many = (item.image_count ?? 0) + (item.model_count ?? 0) > 0;
    return html`<article class="vs-detail">
      ${this.audit(item)}
      <header class="vs-gallery-head">
        <p class="vs-badges">${badges(item)}</p>
        <h1>${item.title || "Untitled"}</h1>
        ${this.byline(item, count)}
        ${item.description && html`<div class="vs-prose">${markdown(item.description)}</div>`}
        ${this.tags(item)}
        <div class="vs-gallery-tools">
          ${item.can_edit && many && (this.#arranging
            ? html`<button type="button" class="btn primary small" data-key="arranged" data-arranged>${icon("check", { size: 17 })}Done</button>`
            : html`<button type="button" class="btn small" data-key="arrange" data-arrange>${icon("grip", { size: 17 })}Arrange</button>`)}
          ${item.can_edit && html`<a class="btn small" href="/upload?gallery=${encodeURIComponent(item.id)}">${icon("upload", { size: 17 })}Add pictures</a>`}
          ${this.tools(item)}
        </div>
        ${this.#arranging && html`<p class="muted">Drag pictures to order them, or use the arrows. The cross takes one out of the gallery; it stays in the library.</p>`}
      </header>
      <vs-tile-grid class="${this.#arranging ? "is-arranging" : ""}"></vs-tile-grid>
    </article>`;
  }

  loaded() {
    this.grid = this.querySelector("vs-tile-grid");
    this.grid.configure({
      label: `Items of ${this.item.title}`,
      load: (cursor, limit, signal) => api(`${this.path}/${encodeURIComponent(this.assetId)}/items`, { query: { cursor, limit }, signal }),
      empty: () => this.#empty(),
      open: (item) => this.#open(item),
      decorate: (tile, item) => this.#decorate(tile, item),
    });
    this.grid.reload().then(() => this.#openWanted());
  }

  #empty() {
    return emptyState({
      icon: "images",
      title: "This gallery is empty",
      text: this.item.can_edit ? "Render a picture and save it here, or upload some." : "Its owner has not put anything into it yet.",
      actions: this.item.can_edit && html`<a class="btn primary" href="/generate">${icon("sparkles", { size: 18 })}Render a picture</a>`,
    });
  }

  #pictures() {
    return this.grid.items.filter((item) => item.kind === "image");
  }

  #open(item) {
    if (this.#arranging) return;
    if (item.kind !== "image") navigate(addressOf(item));
    else this.#lightbox(this.#pictures().findIndex((other) => other.id === item.id), true);
  }

  #lightbox(index, addressed) {
    openLightbox({
      items: () => this.#pictures(),
      index,
      more: () => (this.grid.done ? Promise.resolve(false) : this.grid.loadMore()),
      address: addressed ? (shown) => `/galleries?id=${encodeURIComponent(this.assetId)}&image=${encodeURIComponent(shown.id)}` : undefined,
    });
  }

  #openWanted() {
    if (!this.#wanted || !this.grid?.items.length || document.querySelector(".vs-lightbox")) return;
    const index = this.#pictures().findIndex((item) => item.id === this.#wanted);
    this.#wanted = "";
    if (index >= 0) this.#lightbox(index, false);
  }

  async #arrange() {
    // The order is saved whole, so everything has to be here first.
    while (!this.grid.done && (await this.grid.loadMore()));
    this.#arranging = true;
    this.draw();
    this.grid.setItems(this.grid.items);
  }

  #decorate(tile, item) {
    if (!this.#arranging) return;
    tile.draggable = true;
    tile.querySelector("a").draggable = false;
    const tools = document.createElement("div");
    tools.className = "vs-arrange-tools";
    const button = (name, value, label, sign) => {
      const made = document.createElement("button");
      made.type = "button";
      made.dataset[name] = value;
      made.setAttribute("aria-label", `${label} ${item.title || "item"}`);
      made.innerHTML = String(icon(sign, { size: 18 }));
      return made;
    };
    tools.append(
      button("move", -1, "Move forward:", "arrow-left"),
      button("move", 1, "Move back:", "arrow-right"),
      button("remove", "", "Take out of the gallery:", "x"),
    );
    tile.append(tools);
  }

  #move(index, by) {
    this.#place(index, index + by);
    this.grid.querySelector(`[data-index="${index + by}"] [data-move="${by}"]`)?.focus();
  }

  #place(from, to) {
    if (from === to || to < 0 || to >= this.grid.items.length) return;
    const items = [...this.grid.items];
    items.splice(to, 0, ...items.splice(from, 1));
    this.grid.setItems(items);
  }

  async #saveOrder() {
    const items = this.grid.items.map(({ kind, id }) => ({ kind, id }));
    try {
      if (items.length) await api(`${this.path}/${encodeURIComponent(this.assetId)}/order`, { method: "PUT", json: { items } });
      this.#arranging = false;
      this.draw();
      this.grid.setItems(this.grid.items);
      toast("Order saved", "ok");
    } catch (error) {
      toastError(error);
    }
  }

  async #remove(index) {
    const item = this.grid.items[index];
    try {
      await api(`${this.path}/${encodeURIComponent(this.assetId)}/items/${item.kind}/${encodeURIComponent(item.id)}`, { method: "DELETE" });
    } catch (error) {
      toastError(error);
      return;
    }
    const counter = `${item.kind}_count`;
    this.item = { ...this.item, [counter]: Math.max(0, (this.item[counter] ?? 1) - 1) };
    this.grid.remove(item);
    this.draw();
    toast(`“${item.title || "Untitled"}” is no longer in this gallery`, "ok", {
      action: { label: "Undo", run: () => this.#putBack(item, index) },
    });
  }

  async #putBack(item, index) {
    try {
      await api(`${this.path}/${encodeURIComponent(this.assetId)}/items`, { json: { [`${item.kind}_ids`]: [item.id] } });
      const items = [...this.grid.items];
      items.splice(index, 0, item);
      const counter = `${item.kind}_count`;
      this.item = { ...this.item, [counter]: (this.item[counter] ?? 0) + 1 };
      this.grid.setItems(items);
      this.draw();
      await api(`${this.path}/${encodeURIComponent(this.assetId)}/order`, { method: "PUT", json: { items: items.map(({ kind, id }) => ({ kind, id })) } });
    } catch (error) {
      toastError(error);
    }
  }
}

define("vs-gallery-detail", GalleryDetail);
