/** Upload of a model: what it is, its weights and cover, a last look. Large weights go through a draft. */
import { ApiError, api, define, formatBytes, html, icon, navigate, raw, render, session, toast, upload } from "./core.js";
import { field, formError } from "./forms.js";
import { readHeader } from "./safetensors.js";
import "./tag_input.js";
import { TYPE_LABELS } from "./tile.js";
import { Wizard, audience, dropZone, listenForFiles } from "./wizard.js";

const DRAFT_ABOVE = 64 * 1024 * 1024;
const BLANK = { title: "", trigger: "", type: "LORA", base_model: "", description: "", tags: [], visibility: "public", adult: false };
const IMAGES = ["image/png", "image/jpeg", "image/webp"];

class UploadModel extends Wizard {
  weights = null;
  cover = null;
  facts = null;
  sent = null;

  async start() {
    this.limits = (await session()).limits;
    if (!this.isConnected) return;
    listenForFiles(this, (files, zone) => this.#take(files, zone));
    this.on("click", "[data-remove]", (event, button) => this.#remove(button.dataset.remove));
    this.begin("model", BLANK);
  }

  stop() {
    if (this.cover) URL.revokeObjectURL(this.cover.url);
  }

  publishLabel() {
    return this.draft.visibility === "private" ? "Upload" : "Publish";
  }

  problem(step) {
    const missing = (name, message) => new ApiError(422, { field: name, message });
    if (step === 0) {
      if (!this.draft.title.trim()) return missing("title", "Give the model a title.");
      if (!this.draft.trigger.trim()) return missing("trigger", "Say which words call it in a prompt; a LoRA that needs none has its title.");
    }
    if (step === 1) {
      if (!this.weights) return missing("weights", "Choose the weights: one .safetensors file, or a zip that holds one.");
      if (this.weights.error) return missing("weights", this.weights.error);
      if (!this.cover) return missing("cover", "Choose a cover: a picture made with this model says more than words.");
    }
    return null;
  }

  details(panel) {
    const draft = this.draft;
    render(
      panel,
      html`<div class="stack"><h2>What is it?</h2>${formError()}
        ${field({ name: "title", label: "Title", value: draft.title, required: true, maxlength: 200, autofocus: true })}
        ${field({ name: "trigger", label: "Trigger", value: draft.trigger, required: true, maxlength: 1000, hint: "The words in a prompt that call it. Shown with a copy button." })}
        <div class="fields">${field({ name: "type", label: "Kind", value: draft.type, options: Object.entries(TYPE_LABELS) })}
        <div class="field"><label for="up-base">Base model</label><input class="input" id="up-base" name="base_model" list="up-bases" value="${draft.base_model}" maxlength="100" placeholder="Read from the file" autocomplete="off" /><datalist id="up-bases"></datalist><span class="error" data-error="base_model"></span></div></div>
        ${field({ name: "description", label: "Description", value: draft.description, rows: 5, maxlength: 20000, hint: "Markdown. What it was trained on, which weights work well." })}
        <div class="field"><label for="up-tags">Tags</label><vs-tag-input input-id="up-tags"></vs-tag-input><span class="error" data-error="tags"></span></div>
        ${audience(draft)}</div>`,
    );
    panel.querySelector("vs-tag-input").value = draft.tags;
    api("/api/base-models", { signal: this.signal })
      .then((answer) => render(panel.querySelector("datalist"), html`${[...new Set(["SD 1.5", "SD 2.1", "SDXL", ...answer.items.map((base) => base.label)])].map((label) => html`<option value="${label}"></option>`)}`))
      .catch(() => {});
  }

  files(panel) {
    render(panel, html`<div class="stack"><h2>Files</h2>${formError()}<div class="upload-pair"><div data-place="weights"></div><div data-place="cover"></div></div></div>`);
    this.#drawFiles();
  }

  #drawFiles() {
    const place = (name) => this.content.querySelector(`[data-place=${name}]`);
    if (!place("weights")) return;
    render(
      place("weights"),
      html`<span class="label">Weights</span>${
        this.weights
          ? html`<div class="picked"><span class="empty-icon">${icon(this.weights.error ? "alert" : "file-check", { size: 26 })}</span><b class="wrap">${this.weights.file.name}</b><span class="muted small">${formatBytes(this.weights.file.size)}</span>${this.facts && factList(this.facts)}<button type="button" class="btn small ghost" data-remove="weights">${icon("x")}Remove</button></div>`
          : dropZone({ name: "weights", title: "Drop the weights", text: `One .safetensors file or a zip that holds one, up to ${formatBytes(this.limits.weights_bytes ?? 2147483648)}`, accept: ".safetensors,.zip", picture: "model" })
      }<span class="error-text" data-error="weights" role="alert">${this.weights?.error}</span>`,
    );
    render(
      place("cover"),
      html`<span class="label">Cover</span>${
        this.cover
          ? html`<div class="picked has-picture"><img src="${raw(this.cover.url)}" alt="Chosen cover" /><span class="row between"><span class="small muted ellipsis grow">${this.cover.file.name}</span><button type="button" class="btn small ghost" data-remove="cover">${icon("x")}Remove</button></span></div>`
          : dropZone({ name: "cover", title: "Drop a cover", text: `PNG, JPEG or WebP up to ${formatBytes(this.limits.image_bytes ?? 10485760)}`, accept: IMAGES.join(","), picture: "image" })
      }<span class="error-text" data-error="cover" role="alert"></span>`,
    );
  }

  /** Both zones take both kinds: what a file is decides, not where it fell. */
  async #take(files) {
    const notes = {};
    for (const file of files) {
      if (IMAGES.includes(file.type)) {
        if (file.size > (this.limits.image_bytes ?? Infinity)) notes.cover = `${file.name} is larger than ${formatBytes(this.limits.image_bytes)}.`;
        else this.#setCover(file);
      } else if (/\.(safetensors|zip)$/i.test(file.name)) {
        if (file.size > (this.limits.weights_bytes ?? Infinity)) notes.weights = `${file.name} is larger than ${formatBytes(this.limits.weights_bytes)}.`;
        else await this.#setWeights(file);
      } else if (/\.(ckpt|pt|pth|bin)$/i.test(file.name)) notes.weights = `${file.name} is a pickle file, which may carry programs. Convert it to .safetensors first.`;
      else notes.weights = `${file.name} is neither weights (.safetensors, .zip) nor a picture (PNG, JPEG, WebP).`;
    }
    this.#drawFiles();
    for (const [name, note] of Object.entries(notes)) this.content.querySelector(`[data-error=${name}]`).textContent = note;
  }

  #setCover(file) {
    if (this.cover) URL.revokeObjectURL(this.cover.url);
    this.cover = { file, url: URL.createObjectURL(file) };
  }

  async #setWeights(file) {
    this.weights = { file, error: null };
    this.facts = null;
    if (!/\.safetensors$/i.test(file.name)) return;
    try {
      this.facts = await readHeader(file);
    } catch (error) {
      this.weights.error = error.message;
    }
  }

  #remove(what) {
    if (what === "cover" && this.cover) URL.revokeObjectURL(this.cover.url);
    this[what] = null;
    if (what === "weights") this.facts = null;
    this.#drawFiles();
  }

  review(panel) {
    const draft = this.draft;
    render(
      panel,
      html`<div class="stack"><h2>A last look</h2>${formError()}<div data-existing></div>
        <div class="review"><img src="${raw(this.cover.url)}" alt="Cover" /><dl class="facts">
          <div><dt>Title</dt><dd>${draft.title}</dd></div><div><dt>Trigger</dt><dd class="mono">${draft.trigger}</dd></div>
          <div><dt>Kind</dt><dd>${TYPE_LABELS[draft.type]}${draft.base_model && `, for ${draft.base_model}`}</dd></div>
          ${draft.description && html`<div><dt>Description</dt><dd class="pre">${draft.description}</dd></div>`}
          ${draft.tags.length > 0 && html`<div><dt>Tags</dt><dd class="row">${draft.tags.map((tag) => html`<span class="chip">${tag}</span>`)}</dd></div>`}
          <div><dt>Seen by</dt><dd>${{ private: "You and administrators", unlisted: "Whoever has the address", public: "Everybody" }[draft.visibility]}${draft.adult && ", marked as adult"}</dd></div>
          <div><dt>Weights</dt><dd class="wrap">${this.weights.file.name}, ${formatBytes(this.weights.file.size)}</dd></div></dl></div>
        <div data-progress></div></div>`,
    );
  }

  #progress(label, fraction) {
    render(this.content.querySelector("[data-progress]"), html`<div class="stack tight" role="status"><span class="row between small"><span>${label}</span><span class="faint">${Math.round(fraction * 100)} %</span></span><div class="progress"><span style="--value:${fraction.toFixed(3)}"></span></div></div>`);
  }

  async publish() {
    if (this.busy) return;
    this.busy = true;
    this.frame();
    const place = this.content.querySelector("[data-form-error]");
    place.hidden = true;
    render(this.content.querySelector("[data-existing]"), html``);
    try {
      const card = this.weights.file.size > DRAFT_ABOVE ? await this.#sendDraft() : await this.#sendForm();
      this.busy = false;
      this.forget();
      toast(`“${card.title}” is in the library.`, "ok");
      navigate(`/models?id=${encodeURIComponent(card.id)}`);
    } catch (error) {
      this.busy = false;
      this.frame();
      render(this.content.querySelector("[data-progress]"), html``);
      if (error.name === "AbortError") return;
      this.#refused(error, place);
    }
  }

  #refused(error, place) {
    if (!(error instanceof ApiError)) console.error(error);
    place.hidden = false;
    place.textContent = error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(" ") : "Something went wrong in this page. Nothing you typed is lost.";
    if (error.existing) render(this.content.querySelector("[data-existing]"), html`<a class="btn small" href="/${error.existing.kind === "model" ? "models" : "images"}?id=${encodeURIComponent(error.existing.id)}">${icon("arrow-right")}Open “${error.existing.title}”</a>`);
  }

  #metadata() {
    const { title, trigger, type, base_model, description, tags, visibility, adult } = this.draft;
    return { title: title.trim(), trigger: trigger.trim(), type, base_model: base_model.trim() || null, description, tags, visibility, adult };
  }

  #sendForm() {
    const body = new FormData();
    for (const [name, value] of Object.entries(this.#metadata())) {
      if (Array.isArray(value)) value.forEach((part) => body.append(name, part));
      else if (value !== null) body.append(name, String(value));
    }
    body.append("cover", this.cover.file);
    body.append("file", this.weights.file);
    return upload("/api/uploads/models", { body, signal: this.signal, onProgress: (part) => this.#progress(part < 1 ? "Sending" : "Checking the files", part) });
  }

  /** Raw bytes, one request a file. A refused publication keeps the draft, so what has arrived is not sent again. */
  async #sendDraft() {
    const files = [{ file: this.weights.file, role: "weights" }, { file: this.cover.file, role: "cover" }];
    if (!this.sent || files.some(({ file }, i) => this.sent.files[i] !== file)) {
      const draft = await api("/api/uploads/drafts", { json: { kind: "model", files: files.map(({ file, role }) => ({ name: file.name, size_bytes: file.size, role })) }, signal: this.signal });
      this.sent = { draft, files: files.map(({ file }) => file), arrived: new Set() };
    }
    const { draft, arrived } = this.sent;
    for (const { file, role } of files) {
      if (arrived.has(role)) continue;
      const url = draft.files.find((one) => one.role === role).upload_url;
      await upload(url, { method: "PUT", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: this.signal, onProgress: (part) => this.#progress(part < 1 ? `Sending the ${role}` : `Checking the ${role}`, part) });
      arrived.add(role);
    }
    this.#progress("Making the card", 1);
    return api(`/api/uploads/drafts/${encodeURIComponent(draft.id)}/publish`, { json: this.#metadata(), signal: this.signal });
  }
}

function factList(facts) {
  const shown = [["Tensors", facts.tensors], ["Precision", facts.dtypes.join(", ")], ["Name inside", facts.name], ["Base model", facts.base], ["Rank", facts.rank], ["Trained at", facts.resolution]].filter(([, value]) => value);
  return html`<dl class="facts compact">${shown.map(([label, value]) => html`<div><dt>${label}</dt><dd class="wrap">${value}</dd></div>`)}</dl>`;
}

define("vs-upload-model", UploadModel);
