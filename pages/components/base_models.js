/** Administration: the base models that people render with, in their order, and their downloads while they run. */
import { api, emptyState, errorState, formatBytes, formatDuration, html, icon, raw, render, toast, toastError } from "./core.js";
import { addBaseModel, editBaseModel, removeBaseModel } from "./base_model_dialogs.js";
import { familyName, isFetching, optionLabel, roleWords, sourceOf } from "./base_model_words.js";

const BUSY_EVERY_MS = 1000;
const QUIET_EVERY_MS = 10000;

/** Lives as long as `signal`; asks the server again by itself, often while something is downloaded. */
export class BaseModelList {
  #panel;
  #signal;
  #items = null;
  #names = { samplers: [], schedules: [] };
  #trouble = "";
  #turn = 0;
  #timer = 0;
  #speeds = new Map();
  #stopping = new Set();

  constructor(panel, signal) {
    this.#panel = panel;
    this.#signal = signal;
  }

  start() {
    const signal = this.#signal;
    signal.addEventListener("abort", () => clearTimeout(this.#timer));
    document.addEventListener("visibilitychange", () => !document.hidden && this.#load(), { signal });
    this.#panel.addEventListener("click", (event) => this.#clicked(event), { signal });
    this.#panel.addEventListener("change", (event) => event.target.matches("[data-enable]") && this.#enable(event.target), { signal });
    this.#load();
  }

  async #load() {
    const turn = ++this.#turn;
    clearTimeout(this.#timer);
    try {
      const [list, offered] = await Promise.all([api("/api/base-models/all", { signal: this.#signal }), this.#names.samplers.length ? null : api("/api/base-models", { signal: this.#signal })]);
      if (offered) this.#names = { samplers: offered.samplers, schedules: offered.schedules };
      // What was changed meanwhile is newer than this answer.
      if (turn !== this.#turn) return;
      this.#trouble = "";
      this.#take(list.items);
    } catch (error) {
      if (error.name === "AbortError" || turn !== this.#turn) return;
      this.#trouble = error.message;
      this.#draw(error);
    }
    this.#again();
  }

  #again() {
    clearTimeout(this.#timer);
    if (this.#signal.aborted) return;
    const busy = this.#items?.some(isFetching);
    this.#timer = setTimeout(() => (document.hidden ? this.#again() : this.#load()), busy ? BUSY_EVERY_MS : QUIET_EVERY_MS);
  }

  #take(items) {
    for (const one of items) {
      this.#measure(one);
      if (!isFetching(one)) this.#stopping.delete(one.id);
    }
    this.#items = items;
    this.#draw();
  }

  /** One base model as the server just answered it. */
  #put(changed) {
    this.#turn++;
    this.#take(this.#items.map((one) => (one.id === changed.id ? changed : one)));
    this.#again();
  }

  /** Bytes a second since the download was first seen here; a cut starts anew. */
  #measure({ id, fetch }) {
    const now = performance.now() / 1000;
    const first = this.#speeds.get(id);
    if (fetch?.status !== "running" || !fetch.total_bytes) this.#speeds.delete(id);
    else if (!first || fetch.bytes < first.bytes) this.#speeds.set(id, { at: now, bytes: fetch.bytes, speed: 0 });
    else if (now - first.at >= 2) first.speed = (fetch.bytes - first.bytes) / (now - first.at);
  }

  /* ---- what may be done */

  async #clicked(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { do: what, id } = button.dataset;
    const one = this.#items?.find((item) => item.id === id);
    if (button.matches("[data-retry]")) await this.#load();
    else if (what === "add") this.#added(await addBaseModel());
    else if (what === "sync") await this.#busy(button, () => this.#sync());
    else if (!one) return;
    else if (what === "edit") this.#changed(await editBaseModel(one, this.#names));
    else if (what === "remove") await this.#removed(one);
    else if (what === "fetch") await this.#busy(button, async () => this.#put(await this.#call(one, "/fetch")));
    else if (what === "cancel") await this.#busy(button, () => this.#cancel(one));
    else if (what === "up" || what === "down") await this.#move(one, what);
  }

  async #busy(button, run) {
    button.setAttribute("aria-busy", "true");
    try {
      await run();
    } catch (error) {
      toastError(error);
    }
    button.removeAttribute("aria-busy");
  }

  #call(one, rest = "", json) {
    return api(`/api/base-models/${encodeURIComponent(one.id)}${rest}`, json ? { method: "PATCH", json } : { method: "POST" });
  }

  async #cancel(one) {
    this.#stopping.add(one.id);
    this.#put(await this.#call(one, "/cancel"));
  }

  #added(made) {
    if (!made) return;
    toast(made.repo_id ? `${made.label} is being downloaded.` : `${made.label} is in the list.`, "ok");
    this.#load();
  }

  #changed(changed) {
    if (!changed) return;
    toast("Saved", "ok");
    // Another one may have been the default.
    this.#load();
  }

  async #removed(one) {
    const done = await removeBaseModel(one);
    if (done === "removed") toast(`${one.label} left the list.`, "ok");
    if (done) await this.#load();
    if (done === "removed") this.#panel.querySelector('[data-do="add"]')?.focus();
  }

  async #sync() {
    const before = new Set((this.#items ?? []).map((one) => one.id));
    const { items } = await api("/api/base-models/sync", { method: "POST" });
    this.#turn++;
    this.#take(items);
    this.#again();
    const added = items.filter((one) => !before.has(one.id)).length;
    toast(added ? `${added} new ${added === 1 ? "base model" : "base models"}.` : "Nothing new in the models folder.", "ok");
  }

  async #enable(input) {
    const one = this.#items.find((item) => item.id === input.dataset.enable);
    try {
      this.#put(await this.#call(one, "", { is_enabled: input.checked }));
    } catch (error) {
      input.checked = one.is_enabled;
      toastError(error);
    }
  }

  /** Change places with the neighbour. */
  async #move(one, way) {
    const order = [...this.#items];
    const at = order.indexOf(one);
    const to = at + (way === "up" ? -1 : 1);
    if (to < 0 || to >= order.length) return;
    [order[at], order[to]] = [order[to], order[at]];
    this.#turn++;
    this.#take(order);
    const focus = () => {
      const keep = [way, way === "up" ? "down" : "up"].map((name) => this.#panel.querySelector(`[data-do="${name}"][data-id="${CSS.escape(one.id)}"]`));
      keep.find((button) => button && !button.disabled)?.focus();
    };
    focus();
    try {
      const { items } = await api("/api/base-models/order", { method: "PUT", json: { ids: order.map((item) => item.id) } });
      this.#turn++;
      this.#take(items);
    } catch (error) {
      toastError(error);
      await this.#load();
    }
    focus();
  }

  /* ---- how it looks */

  #draw(error) {
    const tools = html`<div class="row admin-tools"><p class="muted small bm-lead">What people may choose from, in this order. Weights are read as safetensors only.</p>
      <button type="button" class="btn" data-do="sync" data-key="sync">${icon("refresh")}Look for new ones</button><button type="button" class="btn primary" data-do="add" data-key="add">${icon("plus")}Add</button></div>`;
    if (!this.#items) {
      render(this.#panel, errorState(error));
      return;
    }
    render(
      this.#panel,
      html`${this.#trouble && html`<div class="notice err" role="alert" data-key="trouble">${icon("cloud-off")}${this.#trouble}</div>`}
      ${this.#items.length === 0
        ? emptyState({ icon: "cpu", title: "No base model yet", text: "Download one from a hub, name one on the server's disk, or put one into the models folder and look at it again.", actions: html`<button type="button" class="btn primary" data-do="add">${icon("plus")}Add</button><button type="button" class="btn" data-do="sync">${icon("refresh")}Look for new ones</button>` })
        : html`${tools}<ol class="bm-list">${this.#items.map((one, index) => this.#row(one, index))}</ol>`}`,
    );
  }

  #row(one, index) {
    const last = index === this.#items.length - 1;
    const { default: set } = one;
    const facts = [sourceOf(one), one.size_bytes !== null && formatBytes(one.size_bytes), one.dtype !== "auto" && one.dtype, roleWords(one.allowed_roles)];
    const fetching = isFetching(one);
    const again = ["hub", "storage"].includes(one.origin) && !one.on_disk && !fetching;
    const button = (what, name, look, extra = "") => html`<button type="button" class="btn ghost icon-only small" data-do="${what}" data-id="${one.id}" data-key="${what}" aria-label="${name}" title="${name}" ${raw(extra)}>${icon(look)}</button>`;
    return html`<li class="bm card ${one.is_enabled ? "" : "is-off"}" data-key="${one.id}">
      <div class="bm-order">${button("up", `Move ${one.label} up`, "chevron-up", index === 0 ? "disabled" : "")}${button("down", `Move ${one.label} down`, "chevron-down", last ? "disabled" : "")}</div>
      <div class="bm-main"><div class="bm-head"><h3>${one.label}</h3>${one.family && html`<span class="badge">${familyName(one.family)}</span>`}${one.is_default && html`<span class="badge accent">Default</span>`}</div>
        <p class="bm-facts faint small">${facts.filter(Boolean).map((fact) => html`<span>${fact}</span>`)}</p>
        ${set && html`<p class="bm-facts faint small"><span>${set.width} × ${set.height}</span><span>${set.steps} steps</span><span>guidance ${set.guidance}</span><span>${optionLabel(this.#names.samplers, set.sampler)}</span>${set.schedule !== "default" && html`<span>${optionLabel(this.#names.schedules, set.schedule)}</span>`}</p>`}
        ${this.#state(one)}</div>
      <div class="bm-do">${fetching && html`<button type="button" class="btn small" data-do="cancel" data-id="${one.id}" data-key="cancel" ${raw(this.#stopping.has(one.id) ? "disabled" : "")}>${icon("stop")}Cancel</button>`}
        ${again && html`<button type="button" class="btn small" data-do="fetch" data-id="${one.id}" data-key="fetch">${icon("download")}${one.fetch?.bytes ? "Go on" : one.fetch ? "Try again" : "Download"}</button>`}
        <label class="switch" data-key="enable" title="Whether people are offered it"><input type="checkbox" data-enable="${one.id}" aria-label="Offer ${one.label}" ${raw(one.is_enabled ? "checked" : "")} /></label>
        ${button("edit", `Edit ${one.label}`, "edit")}${button("remove", `Delete ${one.label}`, "trash")}</div></li>`;
  }

  #state(one) {
    const { fetch } = one;
    if (isFetching(one)) return this.#progress(one);
    if (fetch?.status === "failed" && !one.on_disk) return state("down", `Not downloaded: ${fetch.error.message}`, "err");
    if (fetch?.status === "cancelled" && !one.on_disk) return state("degraded", fetch.total_bytes ? `Stopped at ${formatBytes(fetch.bytes)} of ${formatBytes(fetch.total_bytes)}. What came is kept.` : "Stopped before anything came.", "warn");
    if (one.trouble) return one.origin === "storage" && !one.on_disk ? state("degraded", one.trouble, "") : state("down", one.trouble, "err");
    return one.is_enabled ? state("ok", "Ready") : state("", "Ready, but offered to nobody");
  }

  #progress(one) {
    const { bytes, total_bytes: total, percent, status } = one.fetch;
    const speed = this.#speeds.get(one.id)?.speed;
    const known = status === "running" && total > 0;
    const words = this.#stopping.has(one.id)
      ? ["Stopping"]
      : known
        ? [`${formatBytes(bytes)} of ${formatBytes(total)}`, `${Math.floor(percent)} %`, speed > 0 && `${formatBytes(speed)}/s`, speed > 0 && bytes < total && `${formatDuration((total - bytes) / speed)} left`]
        : [status === "running" ? (one.origin === "hub" ? "Asking the hub what there is" : "Looking what there is") : "Waits to be downloaded"];
    return html`<div class="bm-fetch" data-key="fetch"><div class="progress ${known ? "" : "is-waiting"}" role="progressbar" aria-label="Download of ${one.label}" aria-valuemin="0" aria-valuemax="100" ${known ? html`aria-valuenow="${Math.floor(percent)}"` : ""}><span style="--value:${known ? percent / 100 : 0}"></span></div>
      <p class="bm-facts small muted">${words.filter(Boolean).map((word) => html`<span>${word}</span>`)}</p></div>`;
  }
}

function state(led, words, kind = "") {
  return html`<p class="bm-state small ${kind}" data-key="state"><span class="led" data-state="${led}"></span><span>${words}</span></p>`;
}
