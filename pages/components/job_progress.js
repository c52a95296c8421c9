// One render: waiting with its place and reason, running with a live preview, then the result or what went wrong.
import { View, define, formatDuration, html, icon, render } from "./core.js";
import { fadeIn, placeholderStyle } from "./dom.js";
import { modeFacts } from "./generate_modes.js";
import { isActive } from "./job_feed.js";
import { isSheet, sheetTemplate } from "./sheet_view.js";

const PHASES = {
  loading: "Loading the model",
  encoding: "Reading the prompt",
  denoising: "Drawing",
  waiting: "Waits while others render",
  decoding: "Developing the picture",
  saving: "Saving",
};

/**
 * `<vs-job>`: set `job`. Events (bubbling): `job-action` with detail {name, job, image?} for cancel, save, again, vary,
 * upscale, input, seed, recipe, settings, delete; `job-view` with detail {job, index} for a picture to look at closely.
 */
export class JobProgress extends View {
  #job = null;
  #timer = 0;

  set job(job) {
    this.#job = job;
    if (this.isConnected) this.#draw();
  }

  get job() {
    return this.#job;
  }

  start() {
    this.on("click", "[data-act]", (event, button) => this.#send("job-action", { name: button.dataset.act, job: this.#job, image: this.#job.images[Number(button.dataset.image)] }));
    this.on("click", "[data-look]", (event, button) => this.#send("job-view", { job: this.#job, index: Number(button.dataset.look) }));
    // Seconds pass between two reports of the server.
    this.#timer = setInterval(() => this.#job?.status === "running" && this.#tick(), 500);
    if (this.#job) this.#draw();
  }

  stop() {
    clearInterval(this.#timer);
  }

  #send(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true }));
  }

  #draw() {
    const job = this.#job;
    // What is finished has the size that came out: a second pass or a picture around it makes it another one.
    const { width = 1, height = 1 } = job.images?.[0] ?? job.request?.hires ?? job.request ?? {};
    this.style.setProperty("--ratio", String(width / height || 1));
    this.style.setProperty("--natural", `${Math.max(width, height)}px`);
    const parts = { completed: () => this.#result(job), failed: () => this.#failure(job), cancelled: () => this.#cancelled(job) };
    render(this, isActive(job) ? this.#running(job) : parts[job.status]());
    this.dataset.status = job.status;
    if (job.status === "completed") fadeIn(this);
    this.#tick();
  }

  #running(job) {
    const step = job.status === "running" && job.step > 0 ? `Step ${job.step} of ${job.steps}` : "";
    return html`<div class="vs-job-frame is-live" data-key="frame">
        <div class="vs-job-canvas">${job.preview ? html`<img src="${job.preview}" alt="Preview of step ${job.step}" />` : html`<div class="vs-job-mist"></div>`}</div>
      </div>
      <div class="vs-job-status" data-key="status">
        <div class="vs-job-line"><b>${phaseOf(job)}</b><span class="muted">${step}</span><span class="grow"></span><span class="muted" data-time></span></div>
        <div class="progress ${job.status === "running" ? "" : "is-waiting"}" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow="${Math.round((job.progress ?? 0) * 100)}"><span style="--value:${job.progress ?? 0}"></span></div>
        <div class="vs-job-line">
          <span class="muted" data-wait>${waitOf(job)}</span><span class="grow"></span>
          <button type="button" class="btn small" data-act="cancel">${icon("x", { size: 16 })}Cancel</button>
        </div>
      </div>`;
  }

  #result(job) {
    const { images } = job;
    const one = images.length === 1;
    if (images.length === 0) return html`<div class="notice warn">${icon("alert")}<span>The pictures of this render are gone.</span></div>`;
    const sheet = isSheet(job);
    return html`${sheet ? sheetTemplate(job) : html`<div class="${one ? "vs-job-frame" : "vs-job-sheet"}" data-key="frame">${images.map(
        (image, index) => html`<figure class="vs-job-canvas" data-key="${image.id}" style="${placeholderStyle(image.thumb)}">
          <button type="button" data-look="${index}" aria-label="Look at picture ${index + 1} closely"><img src="${one ? image.url : image.thumb?.large ?? image.url}" alt="${altOf(job, index)}" ${one ? html`data-soft` : ""} /></button>
          ${!one && html`<figcaption>
            <button type="button" class="vs-round" data-act="save" data-image="${index}" aria-label="Save picture ${index + 1} to a gallery" title="Save to a gallery">${icon("save", { size: 17 })}</button>
            <a class="vs-round" href="${image.url}" download="${fileName(job, image)}" aria-label="Download picture ${index + 1}" title="Download">${icon("download", { size: 17 })}</a>
            <button type="button" class="vs-round" data-act="vary" data-image="${index}" aria-label="Vary picture ${index + 1}" title="Vary">${icon("shuffle", { size: 17 })}</button>
            <button type="button" class="vs-round" data-act="upscale" data-image="${index}" aria-label="Upscale picture ${index + 1}" title="Upscale">${icon("expand", { size: 17 })}</button>
            <button type="button" class="vs-round" data-act="input" data-image="${index}" aria-label="Use picture ${index + 1} as input" title="Use as input">${icon("image", { size: 17 })}</button>
          </figcaption>`}
        </figure>`,
      )}</div>`}
      <div class="vs-job-status" data-key="status">
        <div class="vs-job-actions">
          ${images.every((image) => image.saved)
            ? html`<button type="button" class="btn" data-act="save" data-key="save" title="Save to another gallery">${icon("check", { size: 18 })}Saved</button>`
            : html`<button type="button" class="btn primary" data-act="save" data-key="save">${icon("save", { size: 18 })}Save to gallery</button>`}
          ${one && html`<a class="btn" href="${images[0].url}" download="${fileName(job, images[0])}">${icon("download", { size: 18 })}Download</a>`}
          ${job.sheet && html`<a class="btn" href="${job.sheet.url}" download="${fileName(job, { seed: "sheet" })}" data-key="sheet">${icon("download", { size: 18 })}Download the sheet</a>`}
          ${!sheet && html`<button type="button" class="btn" data-act="vary" data-key="vary" data-image="0" title="Nearly the same, or with another seed">${icon("shuffle", { size: 18 })}Vary</button>`}
          ${one && html`<button type="button" class="btn" data-act="upscale" data-image="0" title="Larger, with more detail">${icon("expand", { size: 18 })}Upscale</button>`}
        </div>
        <div class="vs-job-actions is-quiet">
          <button type="button" class="btn ghost small" data-act="again" title="The same once more">${icon("refresh", { size: 16 })}Regenerate</button>
          ${one && html`<button type="button" class="btn ghost small" data-act="input" data-image="0" data-key="input">${icon("image", { size: 16 })}Use as input</button>`}
          <button type="button" class="btn ghost small" data-act="settings">${icon("sliders", { size: 16 })}Use settings</button>
          <button type="button" class="btn ghost small" data-act="seed" data-image="0">${icon("hash", { size: 16 })}Use seed</button>
          <button type="button" class="btn ghost small" data-act="recipe">${icon("copy", { size: 16 })}Copy recipe</button>
          <button type="button" class="btn ghost small" data-act="delete">${icon("trash", { size: 16 })}Delete</button>
        </div>
        ${this.#caption(job)}
      </div>`;
  }

  #caption(job) {
    const request = job.request ?? {};
    const facts = [
      request.base_model_label,
      `${job.images[0]?.width ?? request.width} × ${job.images[0]?.height ?? request.height}`,
      ...modeFacts(request),
      `${request.steps} steps`,
      `guidance ${request.guidance}`,
      `seed ${job.images[0]?.seed ?? request.seed}`,
      job.duration_s !== null && job.duration_s !== undefined && formatDuration(job.duration_s),
    ].filter(Boolean);
    return html`<p class="vs-job-prompt">${request.prompt}</p><p class="vs-job-facts">${facts.map((fact) => html`<span>${fact}</span>`)}${(request.loras ?? []).map(
      (lora) => html`<a href="/models?id=${encodeURIComponent(lora.model_id)}">${lora.title} <b>${lora.weight}</b></a>`,
    )}</p>`;
  }

  #failure(job) {
    return html`<div class="vs-job-message" role="alert" data-key="status">${icon("alert-circle", { size: 30 })}<h2>This render failed</h2><p>${job.error?.message ?? "The engine gave no reason."}</p>
      <div class="row center"><button type="button" class="btn primary" data-act="again">${icon("refresh", { size: 18 })}Try again</button><button type="button" class="btn" data-act="settings">${icon("sliders", { size: 18 })}Use settings</button><button type="button" class="btn ghost" data-act="delete">Delete</button></div></div>`;
  }

  #cancelled(job) {
    return html`<div class="vs-job-message" data-key="status">${icon("ban", { size: 30 })}<h2>Cancelled</h2><p class="muted">${job.request?.prompt}</p>
      <div class="row center"><button type="button" class="btn" data-act="again">${icon("refresh", { size: 18 })}Render it after all</button><button type="button" class="btn ghost" data-act="delete">Delete</button></div></div>`;
  }

  #tick() {
    const place = this.querySelector("[data-time]");
    if (place) place.textContent = timesOf(this.#job);
  }
}

export function phaseOf(job) {
  if (job.status === "running") return PHASES[job.phase] ?? "Working";
  return job.place > 1 ? `Waiting, place ${job.place}` : "Waiting, next in line";
}

function waitOf(job) {
  if (job.status === "running") return "";
  return job.wait_reason ?? "";
}

function timesOf(job) {
  if (job.status !== "running") return job.eta_s ? `starts in about ${clock(job.eta_s)}` : "";
  // The server's clock may differ from this one: a render first seen here is timed from then.
  const began = job.started_at ? Math.min(Date.now(), Date.parse(job.started_at)) : job.seenRunning;
  const elapsed = clock((Date.now() - began) / 1000);
  const left = job.eta_s ? job.eta_s - (Date.now() - job.etaAt) / 1000 : 0;
  return left > 0 ? `${elapsed} · about ${clock(left)} left` : elapsed;
}

/** Whole seconds, at least one: "7 s", "2:05". */
function clock(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function altOf(job, index) {
  return `Picture ${index + 1} for: ${(job.request?.prompt ?? "").slice(0, 200)}`;
}

export function fileName(job, image) {
  const words = (job.request?.prompt ?? "picture").replace(/[^\p{L}\p{N} -]+/gu, "").trim().replace(/\s+/g, "-").slice(0, 60);
  return `${words || "picture"}-${image.seed}.png`;
}

define("vs-job", JobProgress);
