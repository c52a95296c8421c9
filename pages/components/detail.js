// What the pages of a model, a picture and a gallery share: loading, failing, owner's actions, the line of facts.
import { View, api, avatar, errorState, html, icon, render, session, timeAgo } from "./core.js";
import { fadeIn, ownClick } from "./dom.js";
import { addToGallery, deleteAsset, editAsset } from "./edit_dialog.js";
import { bindCopy } from "./recipe.js";

/**
 * Base of a detail view. A subclass gives `path` ("/api/models"), `noun`, `listName` and `template(item, session)`.
 * Set `assetId` and `backUrl` before it enters the page. Events: `asset-changed`, `asset-deleted` (detail: the item).
 */
export class AssetDetail extends View {
  assetId = "";
  backUrl = "";
  /** Whether the list lies right behind in the history, so that going back restores it. */
  cameFromList = false;
  item = null;
  session = null;

  start() {
    bindCopy(this, { signal: this.signal });
    this.on("click", "[data-retry]", () => this.load());
    this.on("click", "[data-edit]", () => this.edit());
    this.on("click", "[data-delete]", () => this.delete());
    this.on("click", "[data-collect]", () => addToGallery(this.item));
    this.on("click", "[data-back]", (event) => {
      // Back to the list as it was, with its scroll position, when that is where the person came from.
      if (!ownClick(event) || !this.cameFromList) return;
      event.preventDefault();
      history.back();
    });
    if (!this.item) this.load();
  }

  async load() {
    render(this, this.skeleton());
    try {
      const [item, now] = await Promise.all([api(`${this.path}/${encodeURIComponent(this.assetId)}`, { signal: this.signal }), session()]);
      this.item = item;
      this.session = now;
      this.draw();
      this.loaded?.();
    } catch (error) {
      if (error.name === "AbortError") return;
      render(this, html`${this.back()}<div role="alert">${errorState(error, `This ${this.noun} could not be loaded`)}</div>`);
    }
  }

  draw() {
    render(this, html`${this.back()}${this.template(this.item, this.session)}`);
    fadeIn(this);
    document.title = `${this.item.title || "Untitled"} · ${this.session?.site_title ?? "VisionSuit"}`;
  }

  back() {
    return html`<nav class="vs-detail-back"><a href="${this.backUrl}" data-back>${icon("arrow-left", { size: 18 })}${this.listName}</a></nav>`;
  }

  skeleton() {
    return html`${this.back()}<div class="vs-detail-main" aria-busy="true" aria-label="Loading">
      <div class="vs-detail-picture vs-tile-skeleton"></div>
      <div class="vs-detail-side"><div class="vs-line is-wide"></div><div class="vs-line"></div><div class="vs-line is-block"></div></div>
    </div>`;
  }

  async edit() {
    const changed = await editAsset(this.item);
    if (!changed) return;
    this.item = changed;
    this.draw();
    this.#tell("asset-changed");
  }

  async delete() {
    if (await deleteAsset(this.item)) this.#tell("asset-deleted");
  }

  #tell(type) {
    this.dispatchEvent(new CustomEvent(type, { detail: this.item, bubbles: true }));
  }

  /** Owner, age and what else is worth a word, under the title. */
  byline(item, extra = []) {
    const owner = item.owner
      ? html`<a class="vs-owner" href="/${this.listKind}?owner=${encodeURIComponent(item.owner.id)}">${avatar(item.owner, 26)}${item.owner.name}</a>`
      : html`<span class="vs-owner">Unknown owner</span>`;
    return html`<p class="vs-byline">${owner}<span title="${item.created_at}">${timeAgo(item.created_at)}</span>${extra.filter(Boolean).map((text) => html`<span>${text}</span>`)}</p>`;
  }

  tags(item) {
    if (!item.tags?.length) return null;
    return html`<p class="vs-detail-tags">${item.tags.map((tag) => html`<a href="/${this.listKind}?tag=${encodeURIComponent(tag)}">#${tag}</a>`)}</p>`;
  }

  galleries(item) {
    if (!item.galleries?.length) return null;
    return html`<section class="vs-detail-section"><h2>In galleries</h2><ul class="vs-links">${item.galleries.map(
      (gallery) => html`<li><a href="/galleries?id=${encodeURIComponent(gallery.id)}">${icon("gallery", { size: 17 })}${gallery.title}</a></li>`,
    )}</ul></section>`;
  }

  /** Buttons for whoever may change it, and for everyone signed in. */
  tools(item) {
    return html`<div class="vs-detail-tools">
      ${this.session?.user && item.kind !== "gallery" && html`<button type="button" class="btn ghost small" data-collect>${icon("folder-plus", { size: 17 })}Add to gallery</button>`}
      <button type="button" class="btn ghost small" data-copy="${location.origin}/${this.listKind}?id=${encodeURIComponent(item.id)}" data-what="Link copied">${icon("link", { size: 17 })}Copy link</button>
      ${item.can_edit && html`<button type="button" class="btn ghost small" data-edit>${icon("edit", { size: 17 })}Edit</button>
        <button type="button" class="btn ghost small is-danger" data-delete>${icon("trash", { size: 17 })}Delete</button>`}
    </div>`;
  }

  audit(item) {
    return item.reported && html`<p class="vs-audit">${icon("flag", { size: 18 })}In Audit: this ${this.noun} was reported and is hidden from others until a moderator has looked at it.</p>`;
  }
}
