// The LoRA mix of a render: one row each with weight, mute and solo, order and trigger.
import { View, api, define, html, icon, render, toastError } from "./core.js";
import { placeholderStyle } from "./dom.js";
import { askFits, knownFit } from "./lora_fits.js";
import "./lora_meter.js";

export const MOST_LORAS = 12;
const LIMIT = 2;
const STEP = 0.05;
const DEFAULT_WEIGHT = 0.8;

/** Weight as the sliders have it: within -2..2, in steps of 0.05. */
export function cleanWeight(value, fallback = DEFAULT_WEIGHT) {
  const number = Number.parseFloat(value);
  if (!Number.isFinite(number)) return fallback;
  const steps = Math.round(Math.min(LIMIT, Math.max(-LIMIT, number)) / STEP);
  return Math.round(steps * STEP * 100) / 100;
}

/** A row of the mix for a model card. */
export function rowOf(card, values = {}) {
  return {
    model_id: card.id,
    version_id: values.version_id ?? null,
    title: card.title,
    trigger: card.trigger ?? "",
    cover: card.cover ?? null,
    family: card.family ?? null,
    base_model: card.base_model ?? null,
    weight: cleanWeight(values.weight),
    text_encoder_weight: values.text_encoder_weight ?? null,
    muted: false,
    solo: false,
  };
}

/** The rows that count: the soloed ones if there are any, else all that are not muted. */
export function heard(rows) {
  const solo = rows.filter((row) => row.solo);
  return solo.length ? solo : rows.filter((row) => !row.muted);
}

/** The mix as POST /api/generations takes it. */
export function mixRequest(rows) {
  return heard(rows).map((row) => ({
    model_id: row.model_id,
    ...(row.version_id ? { version_id: row.version_id } : {}),
    weight: row.weight,
    ...(row.text_encoder_weight !== null ? { text_encoder_weight: row.text_encoder_weight } : {}),
  }));
}

/**
 * `<vs-lora-mixer>`: `rows`, `baseModel`, `prompt`, `advanced` (text-encoder weights shown) are set from outside.
 * Events: `mix-changed` after each change, `mix-trigger` (detail: the words) to put a trigger into the prompt.
 */
export class LoraMixer extends View {
  #rows = [];
  #baseModel = null;
  #prompt = "";
  #advanced = false;
  #error = "";
  #dragged = -1;

  start() {
    this.on("click", "[data-add]", () => this.#pick().catch(toastError));
    this.on("click", "[data-remove]", (event, button) => this.#change(indexOf(button), null));
    this.on("click", "[data-mute]", (event, button) => this.#toggle(indexOf(button), "muted"));
    this.on("click", "[data-solo]", (event, button) => this.#toggle(indexOf(button), "solo"));
    this.on("click", "[data-move]", (event, button) => this.#move(indexOf(button), indexOf(button) + Number(button.dataset.move)));
    this.on("click", "[data-trigger]", (event, button) => this.dispatchEvent(new CustomEvent("mix-trigger", { detail: button.dataset.trigger, bubbles: true })));
    this.on("input", "input[data-weight]", (event, field) => this.#weigh(field));
    this.on("change", "input[data-weight]", (event, field) => this.#weigh(field, true));
    this.on("dblclick", "input[type=range]", (event, field) => this.#change(indexOf(field), { [field.dataset.weight]: 1 }));
    this.on("dragstart", "[data-grip]", (event, grip) => {
      this.#dragged = indexOf(grip);
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setDragImage(grip.closest("li"), 20, 20);
    });
    this.on("dragover", "li", (event) => this.#dragged >= 0 && event.preventDefault());
    this.on("drop", "li", (event, row) => {
      event.preventDefault();
      this.#move(this.#dragged, Number(row.dataset.index));
      this.#dragged = -1;
    });
    this.#draw();
  }

  get rows() {
    return this.#rows;
  }
  set rows(rows) {
    this.#rows = rows.slice(0, MOST_LORAS);
    this.#draw();
  }
  set baseModel(model) {
    this.#baseModel = model;
    this.#draw();
  }
  set prompt(text) {
    const before = this.#rows.map((row) => this.#isIn(row));
    this.#prompt = text.toLowerCase();
    if (this.#rows.some((row, index) => this.#isIn(row) !== before[index])) this.#draw();
  }
  set advanced(open) {
    this.#advanced = open;
    this.#draw();
  }
  set error(text) {
    this.#error = text;
    this.#draw();
  }

  /** Put the card with this id into the mix, unless it is there. @throws what the card's call throws */
  async addById(id, values = {}) {
    if (this.#rows.some((row) => row.model_id === id) || this.#rows.length >= MOST_LORAS) return;
    const card = await api(`/api/models/${encodeURIComponent(id)}`, { signal: this.signal });
    this.#add(card, values);
  }

  #add(card, values) {
    if (this.#rows.some((row) => row.model_id === card.id) || this.#rows.length >= MOST_LORAS) return;
    this.#set([...this.#rows, rowOf(card, values)]);
  }

  #isIn(row) {
    return Boolean(row.trigger) && this.#prompt.includes(row.trigger.toLowerCase());
  }

  #set(rows) {
    this.#rows = rows;
    this.#error = "";
    this.#draw();
    this.dispatchEvent(new CustomEvent("mix-changed", { bubbles: true }));
  }

  #change(index, values) {
    this.#set(this.#rows.flatMap((row, other) => (other === index ? (values ? [{ ...row, ...values }] : []) : [row])));
  }

  #toggle(index, name) {
    const row = this.#rows[index];
    this.#change(index, { muted: false, solo: false, [name]: !row[name] });
  }

  #move(from, to) {
    if (from < 0 || to < 0 || to >= this.#rows.length || from === to) return;
    const rows = [...this.#rows];
    rows.splice(to, 0, ...rows.splice(from, 1));
    this.#set(rows);
    this.querySelector(`li[data-index="${to}"] [data-move="${to > from ? 1 : -1}"]`)?.focus();
  }

  /** While a slider moves, only the number beside it follows; the row is drawn anew at the end. */
  #weigh(field, done = false) {
    const index = indexOf(field);
    const name = field.dataset.weight;
    if (field.type === "number" && !done) return;
    const weight = cleanWeight(field.value, this.#rows[index][name] ?? DEFAULT_WEIGHT);
    this.#rows[index] = { ...this.#rows[index], [name]: weight };
    for (const other of field.closest(".vs-mix-weight").querySelectorAll("input")) {
      if (other !== field || done) other.value = weight;
      if (other.type === "range") other.style.setProperty("--at", rangeAt(weight));
    }
    this.#measure();
    this.dispatchEvent(new CustomEvent("mix-changed", { bubbles: true }));
  }

  async #pick() {
    const { pickLoras } = await import("./lora_picker.js");
    await pickLoras({
      baseModel: this.#baseModel,
      chosen: this.#rows.map((row) => row.model_id),
      most: MOST_LORAS,
      add: (card) => this.#add(card, {}),
      remove: (id) => this.#set(this.#rows.filter((row) => row.model_id !== id)),
    });
  }

  #draw() {
    if (!this.isConnected) return;
    const rows = this.#rows;
    const solo = rows.some((row) => row.solo);
    render(
      this,
      html`<div class="vs-mix-head"><span class="label" id="mix-label">LoRAs</span>${rows.length > 0 && html`<small class="faint">${heard(rows).length} of ${rows.length} active</small>`}<span class="grow"></span>
          <button type="button" class="btn small" data-add ${rows.length >= MOST_LORAS ? html`disabled` : ""}>${icon("plus", { size: 16 })}Add LoRA</button></div>
        ${rows.length === 0 && html`<button type="button" class="vs-mix-empty" data-add>${icon("mix", { size: 22 })}<span>Mix in styles and subjects from the library, up to ${MOST_LORAS} at once.</span></button>`}
        <ul class="vs-mix" aria-labelledby="mix-label">${rows.map((row, index) => this.#row(row, index, solo))}</ul>
        <vs-lora-meter></vs-lora-meter>
        <p class="error-text" role="alert" ${this.#error ? "" : html`hidden`}>${this.#error}</p>`,
    );
    // The attribute alone does not move a slider that somebody has moved.
    for (const field of this.querySelectorAll("input[data-weight]")) {
      if (field !== document.activeElement || field.type === "range") field.value = this.#rows[indexOf(field)][field.dataset.weight] ?? this.#rows[indexOf(field)].weight;
    }
    this.#measure();
  }

  /** What the files say: whether each LoRA fits, and how they get on with each other. */
  #measure() {
    const active = heard(this.#rows);
    const titles = new Map(active.map((row) => [row.model_id, row.title]));
    this.querySelector("vs-lora-meter")?.show(this.#baseModel, mixRequest(this.#rows).map((lora) => ({ ...lora, title: titles.get(lora.model_id) })));
    askFits(this.#baseModel, this.#rows.map((row) => row.model_id), this.signal)
      .then((news) => news && this.#draw())
      .catch(() => {}); // the next change asks again, and sending the request tells for sure
  }

  #row(row, index, solo) {
    const silent = solo ? !row.solo : row.muted;
    const fit = knownFit(this.#baseModel, row.model_id);
    return html`<li data-key="${row.model_id}" data-index="${index}" class="${silent ? "is-silent" : ""}">
      <div class="vs-mix-top">
        <span class="vs-mix-grip" data-grip draggable="true" title="Drag to reorder">${icon("grip", { size: 16 })}</span>
        <a class="vs-mix-thumb" href="/models?id=${encodeURIComponent(row.model_id)}" style="${placeholderStyle(row.cover)}" tabindex="-1" aria-hidden="true">${row.cover ? html`<img src="${row.cover.small}" alt="" draggable="false" />` : icon("model", { size: 20 })}</a>
        <span class="vs-mix-title"><a class="ellipsis" href="/models?id=${encodeURIComponent(row.model_id)}" title="${row.title}">${row.title}</a>
          ${fit?.fits === false ? html`<small class="is-warning" title="${fit.reason}">Does not fit ${this.#baseModel.label}</small>` : row.trigger
            ? html`<button type="button" class="vs-mix-trigger" data-trigger="${row.trigger}" aria-pressed="${this.#isIn(row) ? "true" : "false"}" title="${this.#isIn(row) ? "Already in the prompt" : "Put the trigger into the prompt"}">${icon(this.#isIn(row) ? "check" : "plus", { size: 13 })}<span class="ellipsis">${row.trigger}</span></button>`
            : html`<small>No trigger needed</small>`}</span>
        <span class="vs-mix-buttons">
          <button type="button" class="vs-mini" data-move="-1" aria-label="Move ${row.title} up" ${index === 0 ? html`disabled` : ""}>${icon("chevron-up", { size: 16 })}</button>
          <button type="button" class="vs-mini" data-move="1" aria-label="Move ${row.title} down" ${index === this.#rows.length - 1 ? html`disabled` : ""}>${icon("chevron-down", { size: 16 })}</button>
          <button type="button" class="vs-mini is-letter" data-mute aria-label="Mute ${row.title}" title="Mute" aria-pressed="${row.muted ? "true" : "false"}">M</button>
          <button type="button" class="vs-mini is-letter" data-solo aria-label="Solo ${row.title}" title="Solo" aria-pressed="${row.solo ? "true" : "false"}">S</button>
          <button type="button" class="vs-mini" data-remove aria-label="Remove ${row.title}" title="Remove">${icon("x", { size: 16 })}</button>
        </span>
      </div>
      ${weight(row, "weight", this.#advanced ? "Image" : "", `Weight of ${row.title}`)}
      ${this.#advanced && weight(row, "text_encoder_weight", "Text", `Text-encoder weight of ${row.title}`)}
    </li>`;
  }
}

function weight(row, name, label, name_) {
  const value = row[name] ?? row.weight;
  return html`<div class="vs-mix-weight" data-key="${name}">${label && html`<small>${label}</small>`}
    <input type="range" class="vs-range is-signed" min="${-LIMIT}" max="${LIMIT}" step="${STEP}" value="${value}" data-weight="${name}" aria-label="${name_}" style="--at:${rangeAt(value)}" />
    <input type="number" class="vs-number" min="${-LIMIT}" max="${LIMIT}" step="${STEP}" value="${value}" data-weight="${name}" aria-label="${name_}, number" inputmode="decimal" /></div>`;
}

function rangeAt(value) {
  return `${((value + LIMIT) / (2 * LIMIT)) * 100}%`;
}

function indexOf(node) {
  return Number(node.closest("li").dataset.index);
}

define("vs-lora-mixer", LoraMixer);
