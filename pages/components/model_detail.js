// Page of a model card: cover, trigger, versions, facts from the file's header, training tags.
import { api, define, formatBytes, formatNumber, html, icon, loginUrl, toast, toastError } from "./core.js";
import { AssetDetail } from "./detail.js";
import { placeholderStyle } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { markdown } from "./markdown.js";
import { badges } from "./tile.js";

const MIXABLE = new Set(["LORA", "LYCORIS"]);
const TAG_ROWS = 24;
/** What its owner reads of a sheet that is not there yet. */
const SHEET_WORDS = {
  pending: "It is rendered when nobody waits.",
  queued: "It is rendered when nobody waits.",
  running: "It is being rendered just now.",
  failed: "It could not be rendered.",
  cancelled: "It was cancelled.",
};

class ModelDetail extends AssetDetail {
  path = "/api/models";
  noun = "model card";
  listName = "Models";
  listKind = "models";
  #version = null;
  #tagSearch = "";
  #allTags = false;
  #sheets = [];

  start() {
    super.start();
    this.on("click", "[data-version]", (event, button) => {
      this.#version = button.dataset.version;
      this.#allTags = false;
      this.draw();
    });
    this.on("input", "[data-tag-search]", (event, field) => {
      this.#tagSearch = field.value;
      this.draw();
    });
    this.on("click", "[data-test-sheet]", (event, button) => this.#testSheet(button));
    this.on("click", "[data-sheet]", (event) => {
      event.preventDefault();
      this.#enlargeSheet();
    });
    this.on("click", "[data-all-tags]", () => {
      this.#allTags = true;
      this.draw();
    });
  }

  template(item) {
    const versions = item.versions ?? [];
    const version = versions.find((one) => one.id === this.#version) ?? versions.find((one) => one.primary) ?? versions[0];
    const facts = version?.facts ?? {};
    return html`<article class="vs-detail">
      ${this.audit(item)}
      <div class="vs-detail-main">
        <figure class="vs-detail-picture" style="${placeholderStyle(item.cover)}">${
          item.cover ? html`<img src="${item.cover.large}" alt="Cover of ${item.title}" />` : html`<span>${icon("model", { size: 56 })}<small>No cover</small></span>`
        }</figure>
        <div class="vs-detail-side">
          <p class="vs-badges">${badges(item)}${item.base_model && html`<span class="tag-badge">${item.base_model}</span>`}</p>
          <h1>${item.title || "Untitled"}</h1>
          ${this.byline(item, [item.downloads > 0 && `${formatNumber(item.downloads)} download${item.downloads === 1 ? "" : "s"}`])}
          ${item.trigger && html`<button type="button" class="vs-trigger" data-copy="${item.trigger}" data-what="Trigger copied" title="Copy the trigger">
            ${icon("zap", { size: 18 })}<span><small>Trigger</small><b>${item.trigger}</b></span>${icon("copy", { size: 17 })}</button>`}
          <div class="vs-detail-actions">
            <a class="btn primary" href="/generate?lora=${encodeURIComponent(item.id)}">${icon("sparkles", { size: 18 })}Open in generator</a>
            ${version && this.#download(version)}
            ${version && this.session?.may_generate && MIXABLE.has(item.type) && html`<button type="button" class="btn" data-test-sheet="${version.id}" title="The same picture at four weights, with and without the trigger">${icon("grid", { size: 18 })}Test sheet</button>`}
          </div>
          ${versions.length > 1 && html`<div class="vs-versions" role="group" aria-label="Versions">${versions.map(
            (one) => html`<button type="button" data-version="${one.id}" aria-pressed="${one === version ? "true" : "false"}">${one.label}${one.primary && html`<small>primary</small>`}</button>`,
          )}</div>`}
          ${this.tools(item)}
          ${item.description && html`<section class="vs-prose" aria-label="Description">${markdown(item.description)}</section>`}
          ${this.tags(item)}
        </div>
      </div>
      ${version && this.#sheet(version)}
      ${version && this.#file(version, facts)}
      ${this.#tagTable(facts)}
      ${this.galleries(item)}
    </article>`;
  }

  async loaded() {
    if (!MIXABLE.has(this.item.type)) return;
    const { items } = await api(`${this.path}/${encodeURIComponent(this.item.id)}/test-sheets`, { signal: this.signal }).catch(() => ({ items: [] }));
    if (this.signal.aborted || items.length === 0) return;
    this.#sheets = items;
    this.draw();
  }

  /** How the file acts, as far as that was rendered. */
  #sheet(version) {
    const sheet = this.#sheets.find((one) => one.version_id === version.id);
    if (!sheet) return null;
    const { picture } = sheet;
    const watch = sheet.generation_id && `/generate?watch=${encodeURIComponent(sheet.generation_id)}`;
    return html`<section class="vs-detail-section" aria-labelledby="vs-test-sheet"><header class="vs-section-head"><h2 id="vs-test-sheet">Test sheet</h2>${watch && html`<a class="btn ghost small" href="${watch}">${icon("grid", { size: 16 })}Open the render</a>`}</header>
      ${picture
        ? html`<a class="vs-test-sheet" href="${picture.url}" data-sheet data-native style="--ratio:${picture.width / picture.height};${placeholderStyle(picture.thumb)}"><img src="${picture.thumb.large}" alt="The same picture at the weights 0, 0.4, 0.7 and 1, without and with the trigger" loading="lazy" decoding="async" width="${picture.width}" height="${picture.height}" /></a>
          <p class="muted small">${sheet.base_model_label} · seed ${sheet.seed} · “${sheet.prompt}”</p>`
        : html`<p class="muted">${SHEET_WORDS[sheet.status] ?? sheet.status}${sheet.error && html` ${sheet.error}`}</p>`}
    </section>`;
  }

  #enlargeSheet() {
    const version = this.querySelector("[data-version][aria-pressed=true]")?.dataset.version;
    const sheet = this.#sheets.find((one) => one.picture && (!version || one.version_id === version));
    if (!sheet) return;
    const { prompt, seed, base_model_label: base, picture } = sheet;
    const item = { ...picture, id: sheet.version_id, title: `Test sheet of ${this.item.title}` };
    openLightbox({ items: () => [item], index: 0, detail: async () => ({ ...item, recipe: { prompt, seed, base_model: base } }), actions: () => null });
  }

  async #testSheet(button) {
    button.setAttribute("aria-busy", "true");
    try {
      const job = await api(`${this.path}/${encodeURIComponent(this.item.id)}/versions/${encodeURIComponent(button.dataset.testSheet)}/test-sheet`, { json: {}, signal: this.signal });
      toast("The test sheet renders when nobody else waits", "ok", { action: { label: "Watch", href: `/generate?watch=${encodeURIComponent(job.id)}` } });
    } catch (error) {
      toastError(error);
    } finally {
      button.setAttribute("aria-busy", "false");
    }
  }

  #download(version) {
    const size = formatBytes(version.size_bytes);
    if (!this.session?.user) return html`<a class="btn" href="${loginUrl()}">${icon("lock", { size: 18 })}Sign in to download</a>`;
    return html`<a class="btn" href="${version.download_url}" download="${version.file_name}" data-native>${icon("download", { size: 18 })}Download <span class="muted">${size}</span></a>`;
  }

  #file(version, facts) {
    return html`<section class="vs-detail-section"><h2>File</h2>
      <dl class="vs-facts">
        ${factRows(version, facts).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
        ${version.sha256 && html`<div class="is-wide"><dt>SHA-256</dt><dd><button type="button" class="vs-copy vs-hash" data-copy="${version.sha256}" data-what="Hash copied" aria-label="Copy SHA-256">${version.sha256}${icon("copy", { size: 14 })}</button></dd></div>`}
      </dl>
    </section>`;
  }

  #tagTable(facts) {
    const all = tagCounts(facts);
    if (all.length === 0) return null;
    const search = this.#tagSearch.trim().toLowerCase();
    const found = search ? all.filter(([tag]) => tag.toLowerCase().includes(search)) : all;
    const shown = this.#allTags || search ? found.slice(0, 400) : found.slice(0, TAG_ROWS);
    const most = all[0][1] || 1;
    return html`<section class="vs-detail-section"><header class="vs-section-head"><h2>Training tags</h2>
        ${all.length > 8 && html`<label class="vs-small-search">${icon("search", { size: 16 })}<input type="search" data-tag-search placeholder="Find a tag" aria-label="Find a training tag" /></label>`}</header>
      ${found.length === 0 && html`<p class="muted">No training tag contains “${this.#tagSearch}”.</p>`}
      <ol class="vs-tag-table">${shown.map(
        ([tag, count]) => html`<li><button type="button" data-copy="${tag}" data-what="Tag copied" title="Copy"><span>${tag}</span>${count !== null && html`<small>${formatNumber(count)}</small><i style="--share:${Math.max(2, Math.round((100 * count) / most))}%"></i>`}</button></li>`,
      )}</ol>
      ${shown.length < found.length && !search && html`<button type="button" class="btn ghost small" data-all-tags>Show all ${found.length}</button>`}
    </section>`;
  }
}

/** [name, value] of what a card tells about a file, in the order people ask. */
function factRows(version, facts) {
  const training = facts.training ?? {};
  const targets = facts.targets ?? facts.target_modules ?? [];
  const parts = Object.entries(facts.modules ?? {}).map(([part, count]) => `${part.replaceAll("_", " ")}: ${count}`);
  const rows = [
    ["Name", version.file_name],
    ["Size", formatBytes(version.size_bytes)],
    ["Base", facts.base_model],
    ["Kind", facts.kind],
    ["Format", facts.format],
    ["Rank", facts.ranks?.length > 1 ? facts.ranks.join(", ") : facts.rank],
    ["Alpha", facts.alpha],
    ["Precision", facts.dtype],
    ["Parameters", facts.parameters ? formatNumber(facts.parameters) : null],
    ["Adapted layers", parts.join(", ")],
    ["Targets", targets.join(", ")],
    ["Trained on", training.trained_on],
    ["Resolution", sizeText(training.resolution ?? facts.resolution)],
    ["Pictures", training.images ?? facts.dataset_size],
    ["Epochs", training.epochs ?? facts.epoch],
    ["Steps", training.steps],
    ["Licence", training.license],
    ["Author", training.author],
  ];
  return rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [name, String(value)]);
}

/** A trainer's "(512, 768)" or "512,768" as "512 × 768"; anything else as it is. */
export function sizeText(value) {
  const sides = /^\(?\s*(\d+)\s*,\s*(\d+)\s*\)?$/.exec(value ?? "");
  return sides ? `${sides[1]} × ${sides[2]}` : value;
}

/** Tag frequencies of a header as [[tag, count or null]], most frequent first. */
export function tagCounts(facts) {
  const source = facts.tag_frequency ?? facts.tags ?? [];
  const pairs = Array.isArray(source)
    ? source.map((entry) => (typeof entry === "string" ? [entry, null] : Array.isArray(entry) ? entry : [entry.name ?? entry.tag, entry.count ?? null]))
    : Object.entries(source);
  return pairs.map(([tag, count]) => [String(tag), Number.isFinite(count) ? count : null]).sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0));
}

define("vs-model-detail", ModelDetail);
