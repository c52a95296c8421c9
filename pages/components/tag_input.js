/** `<vs-tag-input>`: tags as chips; Enter or comma adds, Backspace in the empty field takes the last. `value` is a list. */
import { View, api, debounce, define, html, icon, render } from "./core.js";

const MAX_TAGS = 30;
let serial = 0;

class TagInput extends View {
  #tags = [];

  start() {
    const id = `tags-${++serial}`;
    render(this, html`<div class="tag-input"><span class="tag-input-chips" data-chips></span><input id="${this.getAttribute("input-id") || id}" type="text" list="${id}-list" autocomplete="off" maxlength="60" aria-label="Add a tag" /><datalist id="${id}-list"></datalist></div>`);
    this.input = this.querySelector("input");
    this.on("keydown", "input", (event) => {
      if ((event.key === "Enter" || event.key === ",") && this.input.value.trim()) {
        event.preventDefault();
        this.#add(this.input.value);
      } else if (event.key === "Enter") event.preventDefault();
      else if (event.key === "Backspace" && !this.input.value && this.#tags.length) this.#set(this.#tags.slice(0, -1));
    });
    this.on("input", "input", (event) => {
      event.stopPropagation();
      // A picked suggestion arrives whole, without a key.
      if (event.inputType === "insertReplacementText" || this.input.value.includes(",")) this.#add(this.input.value);
      else this.#suggest();
    });
    this.listen(this, "focusout", () => this.input.value.trim() && this.#add(this.input.value));
    this.on("click", "[data-tag]", (event, button) => this.#set(this.#tags.filter((tag) => tag !== button.dataset.tag)));
    this.listen(this, "click", (event) => event.target.closest("button") || this.input.focus());
    this.#draw();
  }

  get value() {
    return [...this.#tags];
  }
  set value(tags) {
    this.#tags = [...new Set(tags)];
    if (this.input) this.#draw();
  }

  #add(text) {
    const found = text.split(",").map((tag) => tag.trim().replace(/^#/, "").replace(/\s+/g, " ")).filter(Boolean);
    this.input.value = "";
    this.#set([...new Set([...this.#tags, ...found])].slice(0, MAX_TAGS));
  }

  #set(tags) {
    this.#tags = tags;
    this.#draw();
    this.dispatchEvent(new Event("change", { bubbles: true }));
  }

  #draw() {
    render(this.querySelector("[data-chips]"), html`${this.#tags.map((tag) => html`<button type="button" class="chip" data-key="${tag}" data-tag="${tag}" aria-label="Remove tag ${tag}">${tag}${icon("x")}</button>`)}`);
    this.input.placeholder = this.#tags.length ? "" : "portrait, watercolour";
  }

  #suggest = debounce(async () => {
    const q = this.input.value.trim();
    if (!q) return;
    const answer = await api("/api/tags", { query: { q, limit: 8 }, signal: this.signal }).catch(() => ({ items: [] }));
    if (this.isConnected) render(this.querySelector("datalist"), html`${answer.items.map((tag) => html`<option value="${tag.name}"></option>`)}`);
  }, 180);
}

define("vs-tag-input", TagInput);
