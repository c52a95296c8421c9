// Search field that answers while one types, with tags offered below it.
import { View, api, debounce, define, html, icon, render } from "./core.js";
import { isTyping } from "./dom.js";

const WAIT_MS = 180;
const OFFERED = 7;

/**
 * `<vs-search-bar>`: set `placeholder`, `kind` and `value`. Events: `search-text` (detail: text) while typing,
 * `search-commit` (detail: text) on Enter, `search-tag` (detail: tag name), `search-down` when Arrow Down leaves it.
 */
export class SearchBar extends View {
  kind = "";
  #tags = [];
  #active = -1;
  #asking = null;
  #wants = false;
  // Both ask for what is in the field then: it may have been picked, committed or cleared since the last key.
  #announce = debounce(() => this.#send("search-text", this.input.value.trim()), WAIT_MS);
  #suggest = debounce(() => this.#wants && this.#fetchTags(), WAIT_MS);

  start() {
    if (!this.input) this.#build();
    this.listen(document, "keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (!this.offsetParent || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.input.focus();
      this.input.select();
      // While capturing: this field is nearer than the search over everything, which listens for the same key.
    }, { capture: true });
    this.on("input", "input", () => this.#typed());
    this.on("keydown", "input", (event) => this.#key(event));
    this.on("click", "[data-clear]", () => this.#clear());
    this.on("pointerdown", "[role=option]", (event, option) => {
      event.preventDefault(); // keeps the field focused
      this.#pick(Number(option.dataset.index));
    });
    this.listen(this, "focusout", (event) => {
      if (!this.contains(event.relatedTarget)) this.#fold();
    });
    this.on("focusin", "input", () => this.#ask());
  }

  get value() {
    return this.input?.value ?? this.#initial;
  }

  /** Set from the address; what the person is typing right now stays. */
  set value(text) {
    this.#initial = text;
    if (this.input && (document.activeElement !== this.input || text === "")) this.input.value = text;
    this.#mark();
  }

  focusField() {
    this.input.focus();
  }

  #initial = "";

  #build() {
    const list = `${this.kind || "all"}-search-tags`;
    render(
      this,
      html`<div class="vs-search" role="search">
        ${icon("search")}
        <input type="search" class="vs-search-input" placeholder="${this.getAttribute("placeholder") ?? "Search"}" aria-label="${this.getAttribute("placeholder") ?? "Search"}"
          value="${this.#initial}" autocomplete="off" spellcheck="false" enterkeyhint="search" maxlength="300"
          role="combobox" aria-expanded="false" aria-controls="${list}" aria-autocomplete="list" />
        <kbd class="vs-search-key" aria-hidden="true">/</kbd>
        <button type="button" class="vs-search-clear" data-clear aria-label="Clear search">${icon("x", { size: 18 })}</button>
        <div class="vs-search-list" id="${list}" role="listbox" aria-label="Tags" hidden></div>
      </div>`,
    );
    this.input = this.querySelector("input");
    this.list = this.querySelector("[role=listbox]");
    this.#mark();
  }

  #mark() {
    this.classList.toggle("has-text", Boolean(this.input?.value));
  }

  #send(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true }));
  }

  #typed() {
    this.#mark();
    this.#announce();
    this.#ask();
  }

  #ask() {
    this.#wants = true;
    this.#suggest();
  }

  /** Take the offer back, and what is being asked for it. */
  #fold() {
    this.#wants = false;
    this.#asking?.abort();
    this.#offer([]);
  }

  #clear() {
    this.input.value = "";
    this.#mark();
    this.#fold();
    this.#send("search-text", "");
    this.input.focus();
  }

  /** The word being typed, without the # that people put before tags. */
  #word() {
    return this.input.value.split(/\s+/).at(-1).replace(/^#/, "");
  }

  async #fetchTags() {
    const word = this.#word();
    this.#asking?.abort();
    if (document.activeElement !== this.input || (!word && !this.input.value.endsWith("#"))) {
      this.#offer([]);
      return;
    }
    this.#asking = new AbortController();
    try {
      const found = await api("/api/tags", { query: { q: word, kind: this.kind, limit: OFFERED }, signal: this.#asking.signal });
      if (document.activeElement === this.input) this.#offer(found.items);
    } catch (error) {
      // Tags are an offer: without them the search still works.
      if (error.name !== "AbortError") this.#offer([]);
    }
  }

  #offer(tags) {
    this.#tags = tags;
    this.#active = -1;
    this.#drawList();
  }

  #drawList() {
    const open = this.#tags.length > 0;
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    if (this.#active >= 0) this.input.setAttribute("aria-activedescendant", `${this.list.id}-${this.#active}`);
    else this.input.removeAttribute("aria-activedescendant");
    render(
      this.list,
      html`<p class="vs-search-label">Filter by tag</p>${this.#tags.map(
        (tag, index) => html`<div role="option" id="${this.list.id}-${index}" data-index="${index}" aria-selected="${index === this.#active ? "true" : "false"}"><span>#${tag.name}</span><small>${tag.count ?? ""}</small></div>`,
      )}`,
    );
  }

  #pick(index) {
    const tag = this.#tags[index];
    if (!tag) return;
    this.input.value = this.input.value.replace(/\S*$/, "").trim();
    this.#mark();
    this.#fold();
    this.#send("search-tag", { name: tag.name, text: this.input.value });
  }

  #key(event) {
    const open = this.#tags.length > 0;
    if (event.key === "ArrowDown" && open) {
      event.preventDefault();
      this.#active = (this.#active + 1) % this.#tags.length;
      this.#drawList();
    } else if (event.key === "ArrowUp" && open) {
      event.preventDefault();
      this.#active = (this.#active - 1 + this.#tags.length) % this.#tags.length;
      this.#drawList();
    } else if (event.key === "ArrowDown") {
      event.preventDefault();
      this.#send("search-down");
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && this.#active >= 0) this.#pick(this.#active);
      else {
        this.#fold();
        this.#send("search-commit", this.input.value.trim());
      }
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (open) this.#fold();
      else if (this.input.value) this.#clear();
      else this.input.blur();
    }
  }
}

define("vs-search-bar", SearchBar);
