/** Dialogs of the list of base models: add one, change what is said of it, take it off the list. */
import { ApiError, api, formatBytes, html, icon, openDialog, raw } from "./core.js";
import { DTYPE_CHOICES, ROLE_CHOICES, familyName, isFetching, optionLabel, sourceOf } from "./base_model_words.js";
import { bindForm, field, formError } from "./forms.js";

const foot = (words) => html`<div class="row end"><button type="button" class="btn" data-close>Cancel</button><button class="btn primary" type="submit">${words}</button></div>`;
const pathOf = (one) => `/api/base-models/${encodeURIComponent(one.id)}`;

/** @returns {Promise<object|null>} what was added */
export async function addBaseModel() {
  const { el, close, closed } = openDialog({
    title: "Add a base model",
    body: html`<form class="stack">${formError()}
      <div class="segmented" role="radiogroup" aria-label="Where it comes from"><label><input type="radio" name="from" value="hub" checked />${icon("download", { size: 16 })}From a hub</label><label><input type="radio" name="from" value="path" />${icon("storage", { size: 16 })}From the server</label></div>
      <fieldset class="stack" data-from="hub">
        ${field({ name: "repo_id", label: "Repository", required: true, maxlength: 200, autofocus: true, placeholder: "stabilityai/stable-diffusion-xl-base-1.0", hint: "owner/name. Configurations, vocabularies and safetensors weights are downloaded; pickles and code never are." })}
        <div class="fields">${field({ name: "file", label: "One checkpoint of it", maxlength: 255, placeholder: "All of a diffusers folder", hint: "A .safetensors file." })}${field({ name: "revision", label: "Revision", maxlength: 100, placeholder: "main", hint: "Branch, tag or commit." })}</div></fieldset>
      <fieldset class="stack" data-from="path" hidden disabled>
        ${field({ name: "path", label: "Folder or checkpoint", required: true, maxlength: 1000, placeholder: "dreamshaper_8.safetensors", hint: "Its name in the models folder, or a path in one of the folders that VISIONSUIT_BASE_MODEL_DIRS allows. Nothing is copied." })}</fieldset>
      ${field({ name: "label", label: "Name in pickers", maxlength: 180, placeholder: "As its files say" })}
      ${foot("Add")}</form>`,
  });
  const form = el.querySelector("form");
  form.addEventListener("change", (event) => {
    if (event.target.name !== "from") return;
    for (const part of form.querySelectorAll("[data-from]")) part.hidden = part.disabled = part.dataset.from !== event.target.value;
  });
  bindForm(form, async ({ from, label, ...place }) => {
    const named = Object.fromEntries(Object.entries({ ...place, label }).map(([name, value]) => [name, value.trim() || null]));
    close(await api("/api/base-models", { json: named }));
  });
  return closed;
}

/**
 * @param {object} one of GET /api/base-models/all @param {{samplers: object[], schedules: object[]}} names
 * @returns {Promise<object|null>} it, changed
 */
export async function editBaseModel(one, names) {
  const own = one.overrides.default ?? {};
  const said = one.default ?? {};
  // What nobody changed is shown as a placeholder: it follows the files.
  const number = (name, label) => field({ name: `default.${name}`, label, value: own[name] ?? "", placeholder: own[name] === undefined ? (said[name] ?? "") : "As its files say", inputmode: "decimal", maxlength: 6 });
  const choice = (name, label, options) => {
    const files = own[name] === undefined && said[name] ? ` (${optionLabel(options, said[name])})` : "";
    return field({ name: `default.${name}`, label, value: own[name] ?? "", options: [["", `As its files say${files}`], ...options.map(({ id, label: text }) => [id, text])] });
  };
  const renderFields = () => html`<fieldset class="stack tight"><legend class="label">What the generator begins with</legend><p class="hint">Empty fields follow the model's files.</p>
    <div class="bm-numbers">${number("width", "Width")}${number("height", "Height")}${number("steps", "Steps")}${number("guidance", "Guidance")}</div>
    <div class="fields">${choice("sampler", "Sampler", names.samplers.filter(({ id }) => one.samplers.includes(id)))}${choice("schedule", "Schedule", names.schedules)}</div></fieldset>
  ${field({ name: "sizes", label: "Suggested sizes", value: sizeText(one.overrides.sizes ?? []), placeholder: sizeText(one.sizes), hint: `Sides of ${one.min_size} to ${one.max_size} pixels, multiples of ${one.size_step}.` })}`;
  const { el, close, closed } = openDialog({
    title: one.label,
    body: html`<form class="stack bm-edit"><p class="muted small wrap">${[one.family && familyName(one.family), sourceOf(one)].filter(Boolean).join(" · ")}</p>${formError()}
      ${field({ name: "label", label: "Name in pickers", value: one.label, maxlength: 180, hint: "Empty: as its files say." })}
      ${field({ name: "description", label: "Description", value: one.description, rows: 3, maxlength: 2000, hint: "Stands below the name in the generator." })}
      ${one.default
        ? renderFields()
        : html`<p class="hint">What the generator begins with, and which sizes it suggests, can be set once its files are known.</p>`}
      ${field({ name: "dtype", label: "Number format", value: one.dtype, options: DTYPE_CHOICES, hint: "What it is calculated in. Pictures differ a little." })}
      <fieldset class="field"><legend class="label">Who may choose it</legend><div class="row">${ROLE_CHOICES.map(([key, label]) => html`<label class="check"><input type="checkbox" name="allowed_roles" value="${key}" ${raw(one.allowed_roles.includes(key) ? "checked" : "")} /><span>${label}</span></label>`)}</div><span class="hint">None ticked: everybody who may render. Administrators always may.</span><span class="error" data-error="allowed_roles" role="alert"></span></fieldset>
      <label class="switch"><input type="checkbox" name="is_enabled" ${raw(one.is_enabled ? "checked" : "")} /><span>Offered in the generator</span></label>
      <label class="switch"><input type="checkbox" name="is_default" ${raw(one.is_default ? "checked disabled" : "")} /><span>Chosen at first${one.is_default && html`<span class="hint as-line">Make another one the first choice to change this.</span>`}</span></label>
      ${foot("Save")}</form>`,
  });
  bindForm(el.querySelector("form"), async (values, form) => {
    const change = changesOf(one, values, form);
    close(Object.keys(change).length ? await api(pathOf(one), { method: "PATCH", json: change }) : null);
  });
  return closed;
}

/** Of what its files bound. @throws {ApiError} for what is no number */
function renderChangesOf(one, values) {
  const change = {};
  const set = {};
  for (const name of ["width", "height", "steps", "guidance"]) {
    const number = numberOf(values[`default.${name}`], `default.${name}`, name === "guidance");
    if (number !== null) set[name] = number;
  }
  for (const name of ["sampler", "schedule"]) if (values[`default.${name}`]) set[name] = values[`default.${name}`];
  if (!sameValues(set, one.overrides.default ?? {})) change.default = Object.keys(set).length ? set : null;
  const sizes = sizesOf(values.sizes);
  if (JSON.stringify(sizes) !== JSON.stringify(one.overrides.sizes ?? null)) change.sizes = sizes;
  return change;
}

/** Body of the PATCH: only what is different. @throws {ApiError} for what is no number */
function changesOf(one, values, form) {
  const change = {};
  for (const name of ["label", "description"]) {
    if (values[name].trim() !== one[name]) change[name] = values[name].trim() || null;
  }
  if (values.dtype !== one.dtype) change.dtype = values.dtype;
  if (one.default) Object.assign(change, renderChangesOf(one, values));
  const known = ROLE_CHOICES.map(([key]) => key);
  // Others than are shown here were set over REST, and stay.
  const roles = [...one.allowed_roles.filter((role) => !known.includes(role)), ...new FormData(form).getAll("allowed_roles")].sort();
  if (roles.join() !== [...one.allowed_roles].sort().join()) change.allowed_roles = roles;
  const { is_enabled: enabled, is_default: first } = form.elements;
  if (enabled.checked !== one.is_enabled) change.is_enabled = enabled.checked;
  if (first.checked && !one.is_default) change.is_default = true;
  return change;
}

const sameValues = (a, b) => Object.keys({ ...a, ...b }).every((name) => a[name] === b[name]);
const sizeText = (sizes) => sizes.map(([width, height]) => `${width} × ${height}`).join(", ");

function numberOf(text, name, fraction) {
  if (!text.trim()) return null;
  const number = Number(text.trim().replace(",", "."));
  if (!Number.isFinite(number) || (!fraction && !Number.isInteger(number))) throw new ApiError(422, { field: name, message: fraction ? "This is a number." : "This is a whole number." });
  return number;
}

/** "512 × 768, 64x64" as pairs; null for nothing. */
function sizesOf(text) {
  if (!text.trim()) return null;
  return text.split(/[,;\n]+/).filter((part) => part.trim()).map((part) => {
    const size = /^\s*(\d{1,5})\s*[x×*]\s*(\d{1,5})\s*$/i.exec(part);
    if (!size) throw new ApiError(422, { field: "sizes", message: `“${part.trim().slice(0, 40)}” is no size. Write width × height, with commas between.` });
    return [Number(size[1]), Number(size[2])];
  });
}

/** What happens to its files. */
function whatGoes(one) {
  const got = one.size_bytes ?? (one.fetch?.bytes || null);
  if (one.origin === "path") return html`Nothing is deleted from disk: <b class="wrap">${one.folder}</b> stays where it is.`;
  if (one.origin === "found") return "Nothing is deleted from disk: its folder has gone already.";
  if (!one.on_disk) return got ? `${isFetching(one) ? "The download stops, and the" : "The"} ${formatBytes(got)} that came so far are deleted from disk.` : "Nothing of it has been downloaded yet.";
  return html`What was downloaded${got ? ` (${formatBytes(got)} of weights)` : ""} is deleted from disk: <b class="wrap">${one.folder}</b> in the models folder.`;
}

/** Ask, then do it. @returns {Promise<"removed"|"changed"|null>} */
export async function removeBaseModel(one) {
  // It would come back with the next look at the folder.
  const stays = one.origin === "found" && one.on_disk;
  const off = !one.is_enabled;
  const { el, close, closed } = openDialog({
    title: stays ? `${one.label} lies in the models folder` : `Delete ${one.label}?`,
    size: "small",
    body: html`<form class="stack">${formError()}
      ${stays
        ? html`<p class="muted">It was put there by hand, so it is not deleted from here. Remove <b class="wrap">${one.folder}</b> from the models folder first.${off ? " Meanwhile nobody is offered it." : " Until then, it can be hidden from everybody."}</p>`
        : html`<p class="muted">${whatGoes(one)}</p><p class="muted">Pictures rendered with it stay.</p>`}
      <div class="row end"><button type="button" class="btn" data-close ${raw(stays && !off ? "" : "autofocus")}>${stays && off ? "Close" : "Cancel"}</button>${!(stays && off) && html`<button class="btn ${stays ? "primary" : "danger"}" type="submit">${stays ? "Hide it" : "Delete"}</button>`}</div></form>`,
  });
  bindForm(el.querySelector("form"), async () => {
    if (stays) await api(pathOf(one), { method: "PATCH", json: { is_enabled: false } });
    else await api(pathOf(one), { method: "DELETE" });
    close(stays ? "changed" : "removed");
  });
  return closed;
}
