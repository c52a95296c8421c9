// Dialogs that change what is in the library: edit, delete, create a gallery, put something into a gallery.
import { ApiError, api, confirmDialog, html, icon, openDialog, toast, toastError } from "./core.js";
import { TYPE_LABELS } from "./tile.js";

const PLURALS = { model: "models", image: "images", gallery: "galleries" };
const NOUNS = { model: "model card", image: "picture", gallery: "gallery" };
const GONE = "This cannot be undone. Gone is gone.";
const VISIBILITIES = [
  ["public", "Public", "Everybody finds it"],
  ["unlisted", "Unlisted", "Whoever has the address"],
  ["private", "Private", "You alone"],
];

function path(item) {
  return `/api/${PLURALS[item.kind]}/${encodeURIComponent(item.id)}`;
}

/** Radio buttons for who may see it. */
export function visibilityField(value) {
  return html`<fieldset class="vs-visibility" data-field="visibility"><legend>Who sees it</legend>
    ${VISIBILITIES.map(
      ([key, label, note]) => html`<label><input type="radio" name="visibility" value="${key}" ${key === value ? html`checked` : ""} /><span><b>${label}</b><small>${note}</small></span></label>`,
    )}
  </fieldset>`;
}

function textField(name, label, value, { max, rows = 0, hint, required = false } = {}) {
  const attributes = html`name="${name}" maxlength="${max}" ${required ? html`required` : ""}`;
  return html`<label class="vs-field" data-field="${name}"><span>${label}</span>
    ${rows ? html`<textarea class="textarea" rows="${rows}" ${attributes}>${value ?? ""}</textarea>` : html`<input class="input" type="text" ${attributes} value="${value ?? ""}" autocomplete="off" />`}
    ${hint && html`<small>${hint}</small>`}<em role="alert"></em></label>`;
}

function editForm(item) {
  const model = item.kind === "model";
  return html`<form class="vs-form" novalidate>
    ${textField("title", "Title", item.title, { max: 180, required: true })}
    ${textField("description", "Description", item.description, { max: 1500, rows: 4, hint: "Simple Markdown: **bold**, *italic*, lists and links." })}
    ${model && html`<div class="vs-form-pair">
      ${textField("trigger", "Trigger", item.trigger, { max: 180, hint: "The words that wake it in a prompt." })}
      ${textField("base_model", "Base model", item.base_model, { max: 80 })}
    </div>
    <label class="vs-field" data-field="type"><span>Type</span><select class="select" name="type">${Object.entries(TYPE_LABELS).map(
      ([key, label]) => html`<option value="${key}" ${key === item.type ? html`selected` : ""}>${label}</option>`,
    )}</select><em role="alert"></em></label>`}
    ${textField("tags", "Tags", (item.tags ?? []).join(", "), { max: 1600, hint: "Separated by commas, up to 24." })}
    ${visibilityField(item.visibility)}
    <label class="vs-check" data-field="adult"><input type="checkbox" name="adult" ${item.adult ? html`checked` : ""} /><span>Adult content<small>Hidden from guests and from members who have not switched it on.</small></span></label>
    <p class="vs-form-error" role="alert"></p>
  </form>`;
}

/** Comma-separated text to tags, without empty ones and repetitions. */
export function parseTags(text) {
  return [...new Set(text.split(",").map((tag) => tag.trim().replace(/^#/, "")).filter(Boolean))];
}

/** Put a refused field's sentence beside it, anything else at the foot of the form. */
export function showFieldError(form, error) {
  for (const place of form.querySelectorAll("[role=alert]")) place.textContent = "";
  const name = error.field?.split(".")[0];
  const place = name && form.querySelector(`[data-field="${CSS.escape(name)}"] [role=alert]`);
  const text = error instanceof ApiError ? error.message : "Something went wrong in this page.";
  (place ?? form.querySelector(".vs-form-error")).textContent = text;
  (place?.closest("[data-field]")?.querySelector("input, textarea, select") ?? form.querySelector(".vs-form-error")).focus?.();
}

/** Run a form in a dialog until `send` succeeds. @returns {Promise<any>} what `send` gave, null when closed */
export async function formDialog({ title, body, submit, send, ready, size = "medium" }) {
  const dialog = openDialog({
    title,
    size,
    body,
    footer: html`<button type="button" class="btn ghost" data-close>Cancel</button><button type="button" class="btn primary" data-send>${submit}</button>`,
  });
  const form = dialog.el.querySelector("form");
  ready?.(form);
  const button = dialog.el.querySelector("[data-send]");
  const run = async () => {
    if (button.disabled) return;
    button.disabled = true;
    try {
      dialog.close(await send(form));
    } catch (error) {
      if (!(error instanceof ApiError)) console.error(error);
      showFieldError(form, error);
      button.disabled = false;
    }
  };
  button.addEventListener("click", run);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  return dialog.closed;
}

/** @param {object} item detail of a model, image or gallery @returns {Promise<object|null>} the changed detail */
export function editAsset(item) {
  return formDialog({
    title: `Edit ${NOUNS[item.kind]}`,
    body: editForm(item),
    submit: "Save changes",
    send: async (form) => {
      const data = new FormData(form);
      const json = {
        title: data.get("title").trim(),
        description: data.get("description"),
        tags: parseTags(data.get("tags")),
        visibility: data.get("visibility"),
        adult: data.get("adult") !== null,
      };
      if (item.kind === "model") {
        Object.assign(json, { trigger: data.get("trigger"), base_model: data.get("base_model").trim() || null, type: data.get("type") });
      }
      const changed = await api(path(item), { method: "PATCH", json });
      toast("Saved", "ok");
      return { ...item, ...changed };
    },
  });
}

function whatGoes(item) {
  if (item.kind === "model") {
    const versions = item.versions?.length ?? 1;
    return `The card “${item.title}”, its cover and ${versions === 1 ? "its file" : `its ${versions} files`} will be deleted.`;
  }
  if (item.kind === "image") return `The picture “${item.title}” and its recipe will be deleted and leave every gallery.`;
  return `The gallery “${item.title}” will be deleted. The ${item.image_count ?? 0} pictures and ${item.model_count ?? 0} models in it stay in the library.`;
}

/** Ask, then delete. @returns {Promise<boolean>} whether it is gone */
export async function deleteAsset(item) {
  const sure = await confirmDialog({
    title: `Delete this ${NOUNS[item.kind]}?`,
    text: html`${whatGoes(item)} <strong>${GONE}</strong>`,
    confirm: "Delete",
    danger: true,
  });
  if (!sure) return false;
  try {
    await api(path(item), { method: "DELETE" });
  } catch (error) {
    toastError(error);
    return false;
  }
  toast(`“${item.title}” is deleted.`, "ok");
  return true;
}

/** @returns {Promise<object|null>} the new gallery */
export function createGallery() {
  return formDialog({
    title: "New gallery",
    size: "small",
    body: html`<form class="vs-form" novalidate>
      ${textField("title", "Title", "", { max: 180, required: true })}
      ${textField("description", "Description", "", { max: 1500, rows: 3 })}
      ${visibilityField("public")}
      <p class="vs-form-error" role="alert"></p>
    </form>`,
    submit: "Create gallery",
    send: (form) => {
      const data = new FormData(form);
      return api("/api/galleries", { json: { title: data.get("title").trim(), description: data.get("description"), visibility: data.get("visibility") } });
    },
  });
}

/** Fields to choose one of the own galleries or name a new one; `galleries` are the own ones. */
export function galleryFields(galleries) {
  return html`<div class="vs-gallery-choice" data-field="gallery_id">
      ${galleries.length > 0 && html`<label class="vs-field"><span>Gallery</span><select class="select" name="gallery_id">
        ${galleries.map((gallery) => html`<option value="${gallery.id}">${gallery.title}</option>`)}
        <option value="">New gallery…</option>
      </select></label>`}
      <em role="alert"></em>
    </div>
    <label class="vs-field" data-field="gallery_title" data-new-title ${galleries.length > 0 ? html`hidden` : ""}><span>Name of the new gallery</span>
      <input class="input" type="text" name="gallery_title" maxlength="180" autocomplete="off" placeholder="Evening renders" /><em role="alert"></em></label>`;
}

/** Show the title field only while "New gallery" is chosen. */
export function bindGalleryFields(form) {
  const select = form.querySelector("[name=gallery_id]");
  select?.addEventListener("change", () => {
    const field = form.querySelector("[data-new-title]");
    field.hidden = select.value !== "";
    if (!field.hidden) field.querySelector("input").focus();
  });
}

/** The chosen gallery as the REST calls take it. */
export function galleryChoice(form) {
  const data = new FormData(form);
  const id = data.get("gallery_id");
  if (id) return { gallery_id: id };
  const title = (data.get("gallery_title") ?? "").trim();
  if (!title) throw new ApiError(422, { code: "invalid_input", field: "gallery_title", message: "Name the gallery." });
  return { gallery_title: title };
}

/** The galleries of the person signed in, newest first. */
export async function ownGalleries() {
  return (await api("/api/galleries", { query: { owner: "me", limit: 100 } })).items;
}

/** Put a picture or model into one of the own galleries. @returns {Promise<object|null>} the gallery */
export async function addToGallery(item) {
  let galleries;
  try {
    galleries = await ownGalleries();
  } catch (error) {
    toastError(error);
    return null;
  }
  const body = html`<form class="vs-form" novalidate>${galleryFields(galleries)}<p class="vs-form-error" role="alert"></p></form>`;
  const gallery = await formDialog({
    title: "Add to a gallery",
    size: "small",
    body,
    ready: bindGalleryFields,
    submit: html`${icon("folder-plus", { size: 18 })}Add`,
    send: async (form) => {
      const choice = galleryChoice(form);
      const gallery = choice.gallery_id ? galleries.find((known) => known.id === choice.gallery_id) : await api("/api/galleries", { json: { title: choice.gallery_title } });
      await api(`/api/galleries/${encodeURIComponent(gallery.id)}/items`, { json: { [`${item.kind}_ids`]: [item.id] } });
      return gallery;
    },
  });
  if (gallery) toast(`Added to “${gallery.title}”`, "ok", { action: { label: "Open", href: `/galleries?id=${encodeURIComponent(gallery.id)}` } });
  return gallery;
}
