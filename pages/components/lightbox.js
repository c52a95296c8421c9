// A picture over the page it was opened from: arrows, swipe, Esc; the recipe in a rail that folds away.
import { api, fragment, html, icon, render, store } from "./core.js";
import { isTyping, placeholderStyle, soften } from "./dom.js";
import { bindCopy, recipeTemplate } from "./recipe.js";

const SWIPE_PX = 48;
/** Comes when it is first asked for. */
let compareBox = null;

/**
 * Open over the page.
 * @param {object} options
 *   items: () => pictures ({id, url, thumb, title, width, height}), asked again after `more`;
 *   index: which one first; more: () => Promise<boolean> fetches further pictures (optional);
 *   address: (item) => address to show while it is open (optional, the address before comes back afterwards);
 *   detail: (item, signal) => Promise<{title, owner, recipe}> (optional, GET /api/images/{id} without it);
 *   actions: (item, detail) => template of buttons under the title; run: (name, item, detail) for `[data-run]` ones;
 *   shown: (index) after each change.
 * @returns {{close: () => void, closed: Promise<number>}} `closed` gives the index last shown
 */
export function openLightbox(options) {
  const lightbox = new Lightbox(options);
  return { close: () => lightbox.close(), closed: lightbox.closed };
}

function downloadName(item) {
  return (item.title || item.id || "picture").replace(/[^\p{L}\p{N} _-]+/gu, "").trim().slice(0, 80) || "picture";
}

/** Buttons for a library picture. */
export function imageActions(item) {
  return html`<a class="btn primary small" href="/generate?image=${encodeURIComponent(item.id)}">${icon("sparkles", { size: 16 })}Open in generator</a>
    <a class="btn small" href="/generate?start=${encodeURIComponent(item.id)}">${icon("image", { size: 16 })}Use as input</a>
    <a class="btn small" href="${item.url}" download="${downloadName(item)}">${icon("download", { size: 16 })}Download</a>
    <a class="btn ghost small" href="/images?id=${encodeURIComponent(item.id)}" data-page>${icon("info", { size: 16 })}Page</a>`;
}

class Lightbox {
  #options;
  #index;
  #details = new Map();
  #controller = new AbortController();
  #dialog;
  #stage;
  #rail;
  #origin = document.activeElement;
  #addressed = false;
  #compared = null;
  #resolve;

  constructor(options) {
    this.#options = options;
    this.#index = options.index ?? 0;
    this.closed = new Promise((resolve) => (this.#resolve = resolve));
    this.#dialog = fragment(html`<dialog class="vs-lightbox" data-theme="dark" aria-label="Picture viewer" tabindex="-1" autofocus>
      <div class="vs-lightbox-stage">
        <div class="vs-lightbox-frame" data-keep></div>
        <button type="button" class="vs-lightbox-nav is-previous" data-step="-1" aria-label="Previous picture">${icon("chevron-left", { size: 28 })}</button>
        <button type="button" class="vs-lightbox-nav is-next" data-step="1" aria-label="Next picture">${icon("chevron-right", { size: 28 })}</button>
        <div class="vs-lightbox-bar">
          <span class="vs-lightbox-count" aria-live="polite"></span>
          <button type="button" class="vs-lightbox-button" data-compare aria-pressed="false" aria-label="Compare with another picture" title="Compare with another picture (c)" hidden>${icon("columns", { size: 21 })}</button>
          <button type="button" class="vs-lightbox-button" data-rail aria-label="Recipe" title="Recipe (i)">${icon("info", { size: 22 })}</button>
          <button type="button" class="vs-lightbox-button" data-shut aria-label="Close" title="Close (Esc)">${icon("x", { size: 22 })}</button>
        </div>
      </div>
      <aside class="vs-lightbox-rail" aria-label="Recipe"></aside>
    </dialog>`);
    this.#stage = this.#dialog.querySelector(".vs-lightbox-frame");
    this.#rail = this.#dialog.querySelector(".vs-lightbox-rail");
    this.#setRail(store.get("lightbox-rail", innerWidth > 900));
    this.#listen();
    document.body.append(this.#dialog);
    this.#dialog.showModal();
    this.#dialog.focus();
    this.#show(this.#index, true);
  }

  #listen() {
    const { signal } = this.#controller;
    this.#dialog.addEventListener("close", () => this.#closed(), { signal });
    // On the document: a click on the picture leaves the focus on nothing.
    document.addEventListener("keydown", (event) => this.#key(event), { signal });
    this.#dialog.addEventListener("click", (event) => this.#click(event), { signal });
    bindCopy(this.#dialog, { signal });
    // Back and any link inside: the page below changes, so this has to go.
    const leave = () => this.#leave();
    addEventListener("popstate", leave, { signal });
    addEventListener("vs:navigate", leave, { signal });
    this.#listenSwipe(signal);
  }

  #listenSwipe(signal) {
    let from = null;
    const stage = this.#dialog.querySelector(".vs-lightbox-stage");
    stage.addEventListener("pointerdown", (event) => (from = event.pointerType === "mouse" || event.target.matches("[data-compare-at]") ? null : event), { signal });
    stage.addEventListener(
      "pointermove",
      (event) => {
        if (from) this.#stage.style.translate = `${event.clientX - from.clientX}px 0`;
      },
      { signal },
    );
    const end = (event) => {
      if (!from) return;
      const moved = event.clientX - from.clientX;
      const fell = event.clientY - from.clientY;
      from = null;
      this.#stage.style.translate = "";
      if (event.type === "pointercancel") return;
      if (Math.abs(moved) > SWIPE_PX && Math.abs(moved) > Math.abs(fell)) this.step(moved < 0 ? 1 : -1);
      else if (fell > 2 * SWIPE_PX && fell > Math.abs(moved)) this.close();
    };
    stage.addEventListener("pointerup", end, { signal });
    stage.addEventListener("pointercancel", end, { signal });
  }

  #key(event) {
    const other = [...document.querySelectorAll("dialog[open]")].at(-1) !== this.#dialog;
    if (other || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const run = {
      ArrowRight: () => this.step(1),
      ArrowLeft: () => this.step(-1),
      Home: () => this.#show(0),
      End: () => this.#show(this.#options.items().length - 1),
      c: () => this.#compare(),
      i: () => this.#setRail(!this.#dialog.classList.contains("has-rail")),
    }[event.key];
    if (!run) return;
    event.preventDefault();
    run();
  }

  #click(event) {
    const hit = event.target.closest("[data-step], [data-rail], [data-shut], [data-run], [data-page], [data-compare]");
    if (hit?.dataset.step) this.step(Number(hit.dataset.step));
    else if (hit?.hasAttribute("data-rail")) this.#setRail(!this.#dialog.classList.contains("has-rail"));
    else if (hit?.hasAttribute("data-compare")) this.#compare();
    else if (hit?.hasAttribute("data-shut")) this.close();
    else if (hit?.dataset.run) {
      const item = this.#options.items()[this.#index];
      this.#options.run?.(hit.dataset.run, item, this.#details.get(item.id));
    } else if (event.target.matches(".vs-lightbox-stage, .vs-lightbox-frame")) this.close();
  }

  #setRail(open) {
    this.#dialog.classList.toggle("has-rail", open);
    this.#dialog.querySelector("[data-rail]").setAttribute("aria-expanded", String(open));
    store.set("lightbox-rail", open);
  }

  /** The picture shown becomes the left one; the right one is the next, or whichever one goes to. */
  async #compare() {
    const items = this.#options.items();
    if (items.length < 2) return;
    const begins = this.#compared === null;
    compareBox ??= (await import("./compare.js")).compareBox;
    this.#compared = begins ? items[this.#index] : null;
    const button = this.#dialog.querySelector("[data-compare]");
    button.setAttribute("aria-pressed", String(begins));
    if (begins) await this.step(this.#index + 1 < items.length ? 1 : -1);
    else this.#show(this.#index);
    this.#dialog.querySelector("[data-compare-at]")?.focus({ preventScroll: true });
  }

  async step(by) {
    const target = this.#index + by;
    if (target < 0) return;
    if (target >= this.#options.items().length && !(await this.#options.more?.())) return;
    this.#show(target);
  }

  #show(index, first = false) {
    const items = this.#options.items();
    if (index < 0 || index >= items.length || !this.#dialog.open) return;
    this.#index = index;
    const item = items[index];
    this.#dialog.querySelector("[data-compare]").hidden = items.length < 2;
    const picture = this.#compared && this.#compared.id !== item.id ? compareBox(this.#compared, item) : this.#picture(item);
    this.#stage.replaceChildren(picture);
    this.#dialog.querySelector(".vs-lightbox-count").textContent = items.length > 1 ? `${index + 1} / ${items.length}${this.#options.more ? "+" : ""}` : "";
    // Not `disabled`: that would throw the focus out of the dialog.
    this.#dialog.querySelector(".is-previous").setAttribute("aria-disabled", String(index === 0));
    this.#dialog.querySelector(".is-next").setAttribute("aria-disabled", String(index >= items.length - 1 && !this.#options.more));
    this.#setAddress(item, first);
    this.#fillRail(item);
    for (const near of [items[index + 1], items[index - 1]]) if (near) new Image().src = near.url;
    if (index >= items.length - 3) this.#options.more?.();
    this.#options.shown?.(index);
  }

  #picture(item) {
    const picture = fragment(html`<div class="vs-lightbox-picture" style="${placeholderStyle(item.thumb)}"><img src="${item.url}" alt="${item.title || "Picture"}" draggable="false" /></div>`);
    // A small picture is enlarged to fill the stage; the box has its final size before the file arrives.
    picture.style.setProperty("--ratio", String((item.width || 1) / (item.height || 1)));
    const image = picture.firstElementChild;
    const shown = () => {
      picture.classList.add("is-loaded");
      soften(image);
    };
    image.addEventListener("load", shown, { once: true });
    image.addEventListener("error", () => picture.classList.add("is-missing"), { once: true });
    return picture;
  }

  #setAddress(item, first) {
    const url = this.#options.address?.(item);
    if (!url) return;
    if (first) history.pushState({ vsLightbox: true }, "", url);
    else history.replaceState({ vsLightbox: true }, "", url);
    this.#addressed = true;
  }

  async #fillRail(item) {
    const known = this.#details.get(item.id);
    this.#drawRail(item, known);
    if (known) return;
    try {
      const { signal } = this.#controller;
      const detail = await (this.#options.detail ? this.#options.detail(item, signal) : api(`/api/images/${encodeURIComponent(item.id)}`, { signal }));
      this.#details.set(item.id, detail);
      if (this.#options.items()[this.#index]?.id === item.id) this.#drawRail(item, detail);
    } catch (error) {
      if (error.name !== "AbortError" && this.#options.items()[this.#index]?.id === item.id) this.#drawRail(item, { failed: error.message });
    }
  }

  #drawRail(item, detail) {
    const shown = { ...item, ...detail };
    render(
      this.#rail,
      html`<header><h2>${shown.title || "Untitled"}</h2>${shown.owner && html`<p class="muted">by ${shown.owner.name}</p>`}</header>
        <div class="vs-lightbox-actions">${(this.#options.actions ?? imageActions)(item, detail)}</div>
        ${shown.tags?.length > 0 && html`<p class="vs-lightbox-tags">${shown.tags.map((tag) => html`<a href="/images?tag=${encodeURIComponent(tag)}">#${tag}</a> `)}</p>`}
        ${!detail ? html`<div class="vs-lightbox-wait" aria-hidden="true"></div>` : detail.failed ? html`<p class="muted">${detail.failed}</p>` : recipeTemplate(detail.recipe)}`,
    );
  }

  /** Close, and take back the address that opening added. */
  close() {
    if (this.#addressed && history.state?.vsLightbox) history.back();
    this.#leave();
  }

  #leave() {
    this.#addressed = false;
    if (this.#dialog.open) this.#dialog.close();
  }

  #closed() {
    const back = this.#addressed && history.state?.vsLightbox;
    this.#addressed = false;
    this.#controller.abort();
    this.#dialog.remove();
    if (back) history.back();
    if (this.#origin?.isConnected) this.#origin.focus({ preventScroll: true });
    this.#resolve(this.#index);
  }
}
