// What the generator's form holds, and how it looks. No calls here: the view in generator.js owns the life of it.
import { html, icon } from "./core.js";
import { FRESH_HIRES, can, freshInit, hiresSize, modesRepeated, modesRequest } from "./generate_modes.js";
import "./init_panel.js";
import { mixRequest } from "./lora_mixer.js";

export const PROMPT_MOST = 4000;
/** Characters left when the counter begins to tell of them. */
const PROMPT_NEARLY = 400;
export const SEED_MOST = 2 ** 32 - 1;
export const COUNTS = [1, 2, 3, 4, 6, 8];
const BUCKETS = [1, 2, 4, 8];
const STEPS_MOST = 200;
const GUIDANCE_MOST = 40;

/** A form for a base model: its defaults, and what `kept` brings along. */
export function freshForm(baseModel, kept = {}) {
  const { width, height, steps, guidance, sampler, schedule } = baseModel?.default ?? {};
  return {
    prompt: "",
    negative_prompt: "",
    seed: "",
    count: 1,
    loras: [],
    init: freshInit(),
    ...FRESH_HIRES,
    bucket: 0,
    ...kept,
    base_model_id: baseModel?.id ?? null,
    width: width ?? 512,
    height: height ?? 512,
    steps: steps ?? 30,
    guidance: guidance ?? 7.5,
    sampler: sampler ?? "",
    schedule: schedule ?? "",
  };
}

/** Those of `samplers` that a base model is rendered with. */
export function samplersOf(baseModel, samplers) {
  return baseModel?.samplers ? samplers.filter(({ id }) => baseModel.samplers.includes(id)) : samplers;
}

/** Pictures in every call, where a request or recipe fixed that; else 0. */
export function bucketOf({ bucket }) {
  return BUCKETS.includes(bucket) ? bucket : 0;
}

/** The form as POST /api/generations takes it. An empty seed lets the server choose. */
export function formRequest(form) {
  const request = {
    prompt: form.prompt.trim(),
    negative_prompt: form.negative_prompt.trim(),
    base_model_id: form.base_model_id,
    width: form.width,
    height: form.height,
    steps: form.steps,
    guidance: form.guidance,
    count: form.count,
    sampler: form.sampler || null,
    schedule: form.schedule || null,
    loras: mixRequest(form.loras),
    ...modesRequest(form),
    ...(form.bucket ? { bucket: form.bucket } : {}),
  };
  if (form.seed !== "" && form.seed !== null) request.seed = Number(form.seed);
  return request;
}

/** Body of a repetition of `job`; `seed` undefined lets the server choose anew. */
export function repeatRequest(job, seed) {
  const { prompt, negative_prompt, base_model_id, width, height, steps, guidance, count, sampler, schedule, loras } = job.request;
  const request = { prompt, negative_prompt, base_model_id, width, height, steps, guidance, count, sampler, schedule };
  request.loras = (loras ?? []).map(({ model_id, version_id, weight, text_encoder_weight }) => ({
    model_id,
    ...(version_id ? { version_id } : {}),
    weight,
    ...(text_encoder_weight !== null && text_encoder_weight !== undefined ? { text_encoder_weight } : {}),
  }));
  if (seed !== undefined && seed !== null) request.seed = seed;
  return { ...request, ...modesRepeated(job.request), ...(job.request.bucket ? { bucket: job.request.bucket } : {}) };
}

/** Where and what to send to have `job` once more, with its seed. @returns {{path: string, json: object}} */
export function repeatCall(job) {
  const base = repeatRequest(job, job.request.seed ?? job.images?.[0]?.seed);
  const { sheet } = job.request;
  if (!sheet) return { path: "/api/generations", json: base };
  const axis = ({ axis: name, lora, values, labels }) => ({ axis: name, ...(lora === null || lora === undefined ? {} : { lora }), values, ...(labels ? { labels } : {}) });
  return { path: "/api/generations/sheets", json: { base: { ...base, count: 1 }, x: axis(sheet.x), ...(sheet.y ? { y: axis(sheet.y) } : {}), control: sheet.control } };
}

/** Tokens of a prompt as CLIP's tokenizers make them, near enough to know when it gets long. */
function estimateTokens(text) {
  const parts = text.match(/\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu) ?? [];
  return parts.reduce((sum, part) => sum + Math.max(1, Math.round(part.length / 8)), 0);
}

/**
 * What stands over a prompt. A prompt longer than the text encoder's window is read in parts, not cut.
 * @param {string} text @param {number} window tokens of the base model's text encoder, two of them for begin and end
 */
export function promptCount(text, window = 77) {
  if (!text.trim()) return { text: "", title: "", level: "" };
  if (text.length > PROMPT_MOST - PROMPT_NEARLY) return { text: `${text.length} / ${PROMPT_MOST}`, title: "Characters", level: text.length >= PROMPT_MOST ? "full" : "many" };
  const [tokens, room] = [estimateTokens(text), window - 2];
  const parts = Math.ceil(tokens / room);
  const words = `≈ ${tokens} token${tokens === 1 ? "" : "s"}`;
  if (parts < 2) return { text: words, title: `This base model reads ${room} tokens at a time.`, level: "" };
  return { text: `${words}, read in ${parts} parts`, title: `This base model reads ${room} tokens at a time. Nothing is cut, but what comes first counts most.`, level: "many" };
}

/** A number field's value within its bounds, else what was there. */
export function within(text, least, most, before, whole = true) {
  const number = whole ? Number.parseInt(text, 10) : Number.parseFloat(text);
  return Number.isFinite(number) ? Math.min(most, Math.max(least, number)) : before;
}

/** Bounds of the number fields for a base model. */
export function bounds(baseModel) {
  return {
    steps: [1, STEPS_MOST, true],
    guidance: [0, GUIDANCE_MOST, false],
    width: [baseModel?.min_size ?? 64, baseModel?.max_size ?? 2048, true],
    height: [baseModel?.min_size ?? 64, baseModel?.max_size ?? 2048, true],
    count: [1, 8, true],
    hires_scale: [1.1, 4, false],
    hires_strength: [0.05, 1, false],
  };
}

function error(name) {
  return html`<p class="error-text" data-error="${name}" role="alert" hidden></p>`;
}

function slider(name, label, { most, step = 1, least = 1 }) {
  return html`<div class="field vs-gen-slider" data-control="${name}"><label class="label" for="gen-${name}">${label}</label>
    <div class="vs-gen-pair"><input type="range" class="vs-range" min="${least}" max="${most}" step="${step}" data-bind="${name}" aria-label="${label}" />
    <input type="number" class="vs-number" id="gen-${name}" min="0" step="${step}" data-bind="${name}" inputmode="decimal" /></div>${error(name)}</div>`;
}

function select(name, label, options, value) {
  return html`<div class="field" data-control="${name}"><label class="label" for="gen-${name}">${label}</label>
    <select class="select" id="gen-${name}" data-bind="${name}">${options.map(({ id, label: text }) => html`<option value="${id}" ${id === value ? html`selected` : ""}>${text}</option>`)}</select>${error(name)}</div>`;
}

const sizeText = ({ width, height }) => `${width} × ${height}`;

/** Small drawing of a picture's proportions. */
function shape(width, height) {
  const scale = 18 / Math.max(width, height);
  return html`<i class="vs-shape" style="width:${Math.round(width * scale)}px;height:${Math.round(height * scale)}px"></i>`;
}

/** What the base model cannot do, and so is not sent. */
function leftOut(form, baseModel) {
  const count = form.loras.length;
  const notes = [
    !can(baseModel, "loras") && `takes no LoRAs${count ? `; the ${count === 1 ? "one" : count} in your mix ${count === 1 ? "is" : "are"} left out` : ""}`,
    !can(baseModel, "pictures") && `renders from a prompt alone${form.init.source ? "; your picture is left out" : ""}`,
  ].filter(Boolean);
  return notes.length > 0 && html`<p class="hint vs-left-out" data-key="left-out">${baseModel.label} ${notes.join(", and ")}.</p>`;
}

/**
 * @param {object} form
 * @param {{baseModels: object[], samplers: object[], schedules: object[], baseModel: object, advanced: boolean}} options
 */
export function formTemplate(form, { baseModels, samplers, schedules, baseModel, advanced }) {
  const sizes = baseModel?.sizes ?? [];
  const preset = sizes.some(([width, height]) => width === form.width && height === form.height);
  return html`<form class="vs-gen-form" novalidate aria-label="What to render">
    <div class="field" data-control="prompt">
      <div class="vs-gen-label"><label class="label" for="gen-prompt">Prompt</label><span class="vs-counter" data-counter="prompt" aria-live="off"></span></div>
      <textarea class="textarea vs-gen-prompt" id="gen-prompt" data-bind="prompt" rows="4" maxlength="${PROMPT_MOST}" placeholder="What should the picture show?" aria-keyshortcuts="Control+Enter" data-keep></textarea>
      ${error("prompt")}<div class="vs-notes" data-notes="prompt" aria-live="polite" data-keep></div>
      ${baseModel?.suggestions?.length > 0 && html`<div class="vs-suggestions" aria-label="Ideas">${baseModel.suggestions.map(
        (text) => html`<button type="button" class="chip" data-suggest="${text}" title="${text}"><span class="ellipsis">${text}</span></button>`,
      )}</div>`}
    </div>

    <div class="field" data-control="negative_prompt">
        <div class="vs-gen-label"><label class="label" for="gen-negative">Negative prompt</label><span class="vs-counter" data-counter="negative_prompt"></span></div>
        <textarea class="textarea vs-gen-negative" id="gen-negative" data-bind="negative_prompt" rows="1" maxlength="${PROMPT_MOST}" placeholder="What should stay out of it" data-keep></textarea>${error("negative_prompt")}<div class="vs-notes" data-notes="negative_prompt" aria-live="polite" data-keep></div>
      </div>

    ${baseModels.length > 1 && html`<div class="field" data-control="base_model_id"><span class="label" id="gen-base">Base model</span>
      <div class="vs-bases" role="radiogroup" aria-labelledby="gen-base">${baseModels.map(
        (model) => html`<label data-key="${model.id}"><input type="radio" name="base_model_id" value="${model.id}" data-base /><span><b>${model.label}</b><small>${model.description}</small></span></label>`,
      )}</div>${error("base_model_id")}</div>`}

    <vs-lora-mixer data-control="loras" ${can(baseModel, "loras") ? "" : html`hidden`}></vs-lora-mixer>

    <vs-init-panel data-control="init" ${can(baseModel, "pictures") ? "" : html`hidden`}></vs-init-panel>
    ${leftOut(form, baseModel)}

    <div class="field" data-control="size"><span class="label" id="gen-size">Size</span>
      <div class="vs-sizes" role="group" aria-labelledby="gen-size">${sizes.map(
        ([width, height]) => html`<button type="button" class="vs-size" data-size="${width}x${height}" aria-pressed="${width === form.width && height === form.height ? "true" : "false"}">${shape(width, height)}<span>${width} × ${height}</span></button>`,
      )}${!preset && html`<button type="button" class="vs-size" aria-pressed="true" data-free>${shape(form.width, form.height)}<span>${form.width} × ${form.height}</span></button>`}</div>
      ${error("size")}
    </div>

    <div class="vs-gen-row">
      ${slider("steps", "Steps", { most: 60 })}
      ${slider("guidance", "Guidance", { most: 20, step: 0.1, least: 0 })}
    </div>

    <div class="vs-gen-row">
      <div class="field" data-control="count"><span class="label" id="gen-count">Pictures</span>
        <div class="segmented vs-counts" role="group" aria-labelledby="gen-count">${COUNTS.map(
          (count) => html`<button type="button" data-count="${count}" aria-pressed="${count === form.count ? "true" : "false"}" aria-label="${count} picture${count === 1 ? "" : "s"}">${count}</button>`,
        )}</div>${error("count")}</div>
      <div class="field" data-control="seed"><label class="label" for="gen-seed">Seed</label>
        <div class="vs-seed"><input class="input" id="gen-seed" data-bind="seed" type="text" inputmode="numeric" pattern="[0-9]*" maxlength="10" placeholder="Random" autocomplete="off" />
          <button type="button" class="vs-mini" data-dice aria-label="Random seed each time" title="Random each time">${icon("dice", { size: 18 })}</button>
          <button type="button" class="vs-mini" data-last-seed aria-label="Reuse the last seed" title="Reuse the last seed">${icon("undo", { size: 18 })}</button></div>${error("seed")}</div>
    </div>

    <details class="vs-advanced" data-fold="hires" ${can(baseModel, "pictures") ? "" : html`hidden`} ${form.hires_on ? html`open` : ""}>
      <summary>${icon("expand", { size: 18 })}Second pass, larger${form.hires_on && html`<small class="vs-fold-note">${sizeText(hiresSize(form, form.hires_scale, baseModel))}</small>`}${icon("chevron-down", { size: 18 })}</summary>
      <div class="vs-advanced-body">
        <label class="switch"><input type="checkbox" data-switch="hires_on" ${form.hires_on ? html`checked` : ""} /><span class="grow">Draw it again at a higher resolution<small class="vs-under">${form.hires_on ? `${sizeText(form)} becomes ${sizeText(hiresSize(form, form.hires_scale, baseModel))}` : "Finer detail; takes longer."}</small></span></label>
        ${form.hires_on && html`<div class="vs-gen-row" data-key="hires">${slider("hires_scale", "Scale", { most: 4, step: 0.25, least: 1.25 })}${slider("hires_strength", "Strength", { most: 1, step: 0.05, least: 0.05 })}</div>
        <div class="field" data-control="hires_steps" data-key="steps"><label class="label" for="gen-hires_steps">Steps of the second pass</label><input class="input" id="gen-hires_steps" data-bind="hires_steps" type="text" inputmode="numeric" maxlength="3" placeholder="As many as the first" autocomplete="off" />${error("hires_steps")}</div>`}
        ${error("hires")}
      </div>
    </details>

    <details class="vs-advanced" data-advanced ${advanced ? html`open` : ""}>
      <summary>${icon("sliders", { size: 18 })}Advanced${icon("chevron-down", { size: 18 })}</summary>
      <div class="vs-advanced-body">
        <div class="vs-gen-row">${select("sampler", "Sampler", samplersOf(baseModel, samplers), form.sampler)}${select("schedule", "Schedule", schedules, form.schedule)}</div>
        <div class="vs-gen-row">
          ${["width", "height"].map((name) => html`<div class="field" data-control="${name}"><label class="label" for="gen-${name}">${name === "width" ? "Width" : "Height"}</label>
            <input class="input" type="number" id="gen-${name}" data-bind="${name}" min="${baseModel?.min_size ?? 64}" max="${baseModel?.max_size ?? 2048}" step="${baseModel?.size_step ?? 8}" inputmode="numeric" />${error(name)}</div>`)}
        </div>
        <label class="switch"><input type="checkbox" data-switch="bucket" data-on="1" ${form.bucket ? html`checked` : ""} /><span class="grow">Same to the last bit<small class="vs-under">Slower: the same settings give the same picture bit for bit, whatever else is rendered beside it.</small></span></label>${error("bucket")}
        <button type="button" class="btn ghost small" data-reset>${icon("undo", { size: 16 })}Back to the defaults of ${baseModel?.label ?? "this model"}</button>
      </div>
    </details>
  </form>`;
}
