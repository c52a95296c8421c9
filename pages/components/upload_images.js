/** Upload of pictures, one request a file: each has its own progress and its own refusal, and one bad file stops no other. */
import { ApiError, api, define, formatBytes, html, icon, raw, render, session, upload } from "./core.js";
import { field, formError } from "./forms.js";
import "./tag_input.js";
import { Wizard, audience, dropZone, listenForFiles } from "./wizard.js";

const BLANK = { place: "new", gallery_title: "", gallery_id: "", title: "", tags: [], visibility: "public", adult: false };
const IMAGES = ["image/png", "image/jpeg", "image/webp"];
let serial = 0;

class UploadImages extends Wizard {
  /** {key, file, url, state: "waiting"|"sending"|"checking"|"done"|"failed", progress, error, item} */
  pictures = [];
  galleries = [];
  target = null;

  async start() {
    this.limits = (await session()).limits;
    if (!this.isConnected) return;
    listenForFiles(this, (files) => this.#take(files));
    this.on("click", "[data-remove]", (event, button) => this.#remove(Number(button.dataset.remove)));
    this.begin("images", BLANK);
    const mine = await api("/api/galleries", { query: { owner: "me", limit: 100, sort: "newest" }, signal: this.signal }).catch(() => ({ items: [] }));
    if (!this.isConnected) return;
    this.galleries = mine.items;
    const wanted = new URLSearchParams(location.search).get("gallery");
    if (wanted && this.galleries.some((one) => one.id === wanted)) Object.assign(this.draft, { place: "mine", gallery_id: wanted });
    if (this.step === 0) this.#gallery();
  }

  stop() {
    for (const one of this.pictures) URL.revokeObjectURL(one.url);
  }

  publishLabel() {
    const left = this.pictures.filter((one) => one.state !== "done").length;
    return this.pictures.some((one) => one.state === "failed") ? `Try ${left} again` : `Upload ${left} ${left === 1 ? "picture" : "pictures"}`;
  }

  get most() {
    return this.limits.files_per_upload ?? 12;
  }

  problem(step) {
    if (step === 0 && this.draft.place === "new" && !this.draft.gallery_title.trim()) return new ApiError(422, { field: "gallery_title", message: "Give the gallery a title, or put the pictures in none." });
    if (step === 0 && this.draft.place === "mine" && !this.draft.gallery_id) return new ApiError(422, { field: "gallery_id", message: "Choose one of your galleries." });
    if (step === 1 && !this.pictures.length) return new ApiError(422, { field: "files", message: "Choose at least one picture." });
    return null;
  }

  details(panel) {
    const draft = this.draft;
    render(
      panel,
      html`<div class="stack"><h2>Where do they go?</h2>${formError()}<div data-gallery></div>
        ${field({ name: "title", label: "Title of the pictures", value: draft.title, maxlength: 200, hint: "Leave empty to use each file's name. Recipes inside the files are found by themselves." })}
        <div class="field"><label for="up-image-tags">Tags</label><vs-tag-input input-id="up-image-tags"></vs-tag-input><span class="error" data-error="tags"></span></div>
        ${audience(draft)}</div>`,
    );
    panel.querySelector("vs-tag-input").value = draft.tags;
    this.#gallery();
  }

  changed(name) {
    if (name === "place") this.#gallery();
  }

  #gallery() {
    const draft = this.draft;
    const places = [["new", "A new gallery"], ...(this.galleries.length ? [["mine", "One of mine"]] : []), ["none", "No gallery"]];
    if (!places.some(([key]) => key === draft.place)) draft.place = "new";
    render(
      this.content.querySelector("[data-gallery]"),
      html`<div class="stack"><div class="segmented" role="radiogroup" aria-label="Gallery">${places.map(([key, label]) => html`<label data-key="${key}"><input type="radio" name="place" value="${key}" ${draft.place === key ? html`checked` : ""} />${label}</label>`)}</div>
        ${draft.place === "new" ? html`<div data-key="new">${field({ name: "gallery_title", label: "Title of the gallery", value: draft.gallery_title, maxlength: 200 })}</div>` : draft.place === "mine" ? html`<div data-key="mine">${field({ name: "gallery_id", label: "Gallery", value: draft.gallery_id, options: [["", "Choose"], ...this.galleries.map((one) => [one.id, one.title])] })}</div>` : html`<span data-key="none"></span>`}</div>`,
    );
  }

  files(panel) {
    render(panel, html`<div class="stack"><h2>Pictures</h2>${formError()}<div data-zone></div><span class="error-text" data-error="files" role="alert"></span><ul class="upload-grid" data-list></ul></div>`);
    this.#drawFiles();
  }

  #drawFiles(note = "") {
    const list = this.content.querySelector("[data-list]");
    if (!list) return;
    const zone = this.content.querySelector("[data-zone]");
    if (zone) render(zone, this.pictures.length < this.most ? dropZone({ name: "files", title: "Drop pictures here", text: `PNG, JPEG or WebP, up to ${this.most} at a time and ${formatBytes(this.limits.image_bytes ?? 10485760)} each`, accept: IMAGES.join(","), multiple: true, picture: "images" }) : html`<p class="notice">${icon("info")}${this.most} pictures are the most for one upload.</p>`);
    const error = this.content.querySelector("[data-error=files]");
    if (error) error.textContent = note;
    render(list, html`${this.pictures.map((one) => pictureTemplate(one, this.step === 1))}`);
  }

  #take(files) {
    const notes = [];
    for (const file of files) {
      if (!IMAGES.includes(file.type)) notes.push(`${file.name} is not a PNG, JPEG or WebP picture.`);
      else if (file.size > (this.limits.image_bytes ?? Infinity)) notes.push(`${file.name} is larger than ${formatBytes(this.limits.image_bytes)}.`);
      else if (this.pictures.length >= this.most) {
        notes.push(`Only ${this.most} pictures at a time; the rest was left out.`);
        break;
      } else if (!this.pictures.some((one) => one.file.name === file.name && one.file.size === file.size && one.file.lastModified === file.lastModified))
        this.pictures.push({ key: ++serial, file, url: URL.createObjectURL(file), state: "waiting", progress: 0 });
    }
    this.#drawFiles(notes.join(" "));
  }

  #remove(key) {
    const at = this.pictures.findIndex((one) => one.key === key);
    if (at < 0) return;
    URL.revokeObjectURL(this.pictures[at].url);
    this.pictures.splice(at, 1);
    this.#drawFiles();
    if (this.step !== 2) return;
    if (this.pictures.length === 0) this.go(1);
    else if (this.pictures.every((one) => one.state === "done")) this.#finished();
    else this.frame();
  }

  review(panel) {
    const draft = this.draft;
    const gallery = draft.place === "new" ? `New gallery “${draft.gallery_title.trim()}”` : draft.place === "mine" ? `Gallery “${this.galleries.find((one) => one.id === draft.gallery_id)?.title ?? ""}”` : "No gallery";
    render(
      panel,
      html`<div class="stack"><h2>A last look</h2>${formError()}<dl class="facts"><div><dt>Into</dt><dd>${gallery}</dd></div>
        ${draft.title && html`<div><dt>Title</dt><dd>${draft.title}</dd></div>`}
        ${draft.tags.length > 0 && html`<div><dt>Tags</dt><dd class="row">${draft.tags.map((tag) => html`<span class="chip">${tag}</span>`)}</dd></div>`}
        <div><dt>Seen by</dt><dd>${{ private: "You and administrators", unlisted: "Whoever has the address", public: "Everybody" }[draft.visibility]}${draft.adult && ", marked as adult"}</dd></div></dl>
        <ul class="upload-grid" data-list></ul></div>`,
    );
    this.#drawFiles();
  }

  async publish() {
    if (this.busy) return;
    this.busy = true;
    this.frame();
    // One after the other: the first makes the gallery, and their order stays.
    for (const one of this.pictures.filter((picture) => picture.state !== "done")) {
      if (!this.isConnected) return;
      await this.#send(one);
    }
    this.busy = false;
    if (!this.isConnected) return;
    if (this.pictures.every((one) => one.state === "done")) this.#finished();
    else {
      this.frame();
      this.#drawFiles();
    }
  }

  async #send(one) {
    const { draft } = this;
    const body = new FormData();
    if (this.target) body.append("gallery_id", this.target.id);
    else if (draft.place === "mine") body.append("gallery_id", draft.gallery_id);
    else if (draft.place === "new") body.append("gallery_title", draft.gallery_title.trim());
    if (draft.title.trim()) body.append("title", draft.title.trim());
    draft.tags.forEach((tag) => body.append("tags", tag));
    body.append("visibility", draft.visibility);
    body.append("adult", String(Boolean(draft.adult)));
    body.append("files", one.file);
    Object.assign(one, { state: "sending", progress: 0, error: null });
    this.#drawFiles();
    try {
      const answer = await upload("/api/uploads/images", {
        body,
        signal: this.signal,
        onProgress: (part) => {
          Object.assign(one, { progress: part, state: part < 1 ? "sending" : "checking" });
          this.#drawFiles();
        },
      });
      Object.assign(one, { state: "done", item: answer.items[0] });
      if (answer.gallery) this.target = answer.gallery;
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) console.error(error);
      Object.assign(one, { state: "failed", error });
    }
    this.#drawFiles();
  }

  #finished() {
    const count = this.pictures.length;
    const where = this.target ? `/galleries?id=${encodeURIComponent(this.target.id)}` : "/images?owner=me";
    const pictures = this.pictures;
    this.forget();
    this.pictures = [];
    render(
      this,
      html`<div class="empty"><span class="empty-icon">${icon("check", { size: 28 })}</span><h2>${count === 1 ? "The picture is in the library" : `${count} pictures are in the library`}</h2>
        <div class="upload-strip">${pictures.slice(0, 6).map((one) => html`<img src="${raw(one.url)}" alt="" />`)}</div>
        <div class="row center"><a class="btn primary" href="${where}">${this.target ? "Open the gallery" : "See them"}</a><button type="button" class="btn" data-again>Upload more</button></div></div>`,
    );
    this.querySelector("[data-again]").addEventListener("click", () => this.closest("vs-page-upload").restart());
  }
}

function pictureTemplate(one, removable) {
  const words = { waiting: formatBytes(one.file.size), sending: `${Math.round(one.progress * 100)} %`, checking: "Checking", done: "Done", failed: "" }[one.state];
  return html`<li class="upload-picture" data-key="${one.key}" data-state="${one.state}"><div class="upload-thumb"><img src="${raw(one.url)}" alt="" />
      ${(removable || one.state === "failed") && html`<button type="button" class="upload-remove" data-remove="${one.key}" aria-label="Remove ${one.file.name}">${icon("x", { size: 16 })}</button>`}
      ${one.state === "done" && html`<span class="upload-done">${icon("check", { size: 18, label: "Uploaded" })}</span>`}
      ${(one.state === "sending" || one.state === "checking") && html`<div class="progress"><span style="--value:${one.progress.toFixed(3)}"></span></div>`}</div>
    <span class="ellipsis small" title="${one.file.name}">${one.file.name}</span>
    ${one.error ? html`<span class="error-text" role="alert">${one.error instanceof ApiError ? one.error.message : "Something went wrong in this page."} ${one.error.existing && html`<a href="/${one.error.existing.kind === "model" ? "models" : "images"}?id=${encodeURIComponent(one.error.existing.id)}">Open it</a>`}</span>` : html`<span class="faint small">${words}</span>`}</li>`;
}

define("vs-upload-images", UploadImages);
