// The generator: the form on one side, what it makes on the other. The form is kept in this browser; renders live on
// the server, so the page can be closed and comes back to them.
import { ApiError, View, api, debounce, define, emptyState, errorState, formatDuration, html, icon, query, render, session, store, toast, toastError } from "./core.js";
import { formFromJob, formFromRecipe } from "./generate_fill.js";
import { PROMPT_MOST, SEED_MOST, bounds, formRequest, formTemplate, freshForm, samplersOf, within } from "./generate_form.js";
import { can, feasible, freshInit, sizeFor } from "./generate_modes.js";
import { refusalOf, stripItem } from "./generator_parts.js";
import { actOnJob, lookAtJob } from "./job_actions.js";
import { JobFeed, isActive } from "./job_feed.js";
import "./job_progress.js";
import "./lora_mixer.js";
import { PromptChecker, counterOf, notesOf, withoutTags } from "./prompt_check.js";

const FORM_KEY = "generate-form";
const RECENT = 18;
/** Names in errors that belong to a control of another name. */
const CONTROL_OF = { width: "size", height: "size" };
class Generator extends View {
  #session = null;
  #bases = { items: [], samplers: [], schedules: [] };
  #form = freshForm(null);
  #feed = null;
  #order = [];
  #shown = null;
  #advanced = false;
  #submitting = false;
  #unkept = false;
  #checker = null;
  #keepSoon = debounce(() => this.#keepForm(), 250);

  start() {
    this.#feed = new JobFeed(this.signal);
    this.#checker = new PromptChecker(this.signal, () => this.#drawChecks());
    this.#advanced = store.get("generate-advanced", false);
    this.listen(this.#feed, "job", (event) => this.#jobChanged(event.detail));
    this.listen(this.#feed, "gone", (event) => this.#jobGone(event.detail));
    this.listen(window, "vs:navigate", () => location.pathname === "/generate" && this.#fillFromAddress());
    this.listen(window, "pagehide", () => this.#keepForm());
    this.#listenForm();
    this.#listenJobs();
    this.#load();
  }

  /** Whoever leaves at once after the last change finds it here too. */
  stop() {
    this.#keepForm();
  }

  #save() {
    this.#unkept = true;
    this.#keepSoon();
  }

  #keepForm() {
    if (this.#unkept) store.set(FORM_KEY, this.#form);
    this.#unkept = false;
  }

  async #load() {
    render(this, html`<div class="vs-gen is-loading" aria-busy="true"><div class="skeleton"></div><div class="skeleton"></div></div>`);
    try {
      [this.#session, this.#bases] = await Promise.all([session(), api("/api/base-models", { signal: this.signal })]);
    } catch (error) {
      if (error.name === "AbortError") return;
      render(this, errorState(error, "The generator could not be loaded"));
      this.querySelector("[data-retry]")?.addEventListener("click", () => this.#load());
      return;
    }
    if (this.#bases.items.length === 0) {
      render(this, emptyState({ icon: "cpu", title: "No base model yet", text: "The generator needs a base model. An administrator adds one under Administration, Base models: from the models folder, or from a hub." }));
      return;
    }
    this.#form = this.#restore();
    this.#frame();
    await Promise.all([this.#fillFromAddress(), this.#resume()]);
  }

  /** With a sampler that its base model has. */
  #fitting(form) {
    const model = this.#bases.items.find((one) => one.id === form.base_model_id);
    return model?.samplers && !model.samplers.includes(form.sampler) ? { ...form, sampler: model.default.sampler } : form;
  }

  /** What was in the form last time, as far as it still makes sense. */
  #restore() {
    const kept = store.get(FORM_KEY);
    const known = this.#bases.items.find((model) => model.id === kept?.base_model_id);
    if (kept && known) return this.#fitting({ ...freshForm(known), ...kept, loras: Array.isArray(kept.loras) ? kept.loras : [], init: freshInit(kept.init ?? {}) });
    const first = this.#bases.items.find((model) => model.is_default) ?? this.#bases.items[0];
    return freshForm(first, kept ? { prompt: kept.prompt ?? "", negative_prompt: kept.negative_prompt ?? "" } : {});
  }

  get #base() {
    return this.#bases.items.find((model) => model.id === this.#form.base_model_id) ?? this.#bases.items[0];
  }

  #frame() {
    render(
      this,
      html`<h1 class="offscreen">Generate</h1><div class="vs-gen">
        <section class="vs-gen-side" aria-label="Settings"><div data-form></div><div class="vs-gen-submit" data-submit></div></section>
        <section class="vs-gen-stage" aria-label="Pictures"><div class="vs-strip" data-strip role="group" aria-label="Your renders"></div><div data-stage></div></section>
      </div>`,
    );
    this.#drawForm();
    this.#drawSubmit();
    this.#drawStage();
  }

  /* ---------------------------------------------------------------- form */

  #listenForm() {
    this.on("input", "[data-bind]", (event, field) => this.#typed(field, false));
    this.on("change", "[data-bind]", (event, field) => this.#typed(field, true));
    this.on("change", "[data-base]", (event, field) => this.#chooseBase(field.value));
    this.on("click", "[data-size]", (event, button) => {
      const [width, height] = button.dataset.size.split("x").map(Number);
      this.#set({ width, height });
    });
    this.on("click", "[data-count]", (event, button) => this.#set({ count: Number(button.dataset.count) }));
    this.on("click", "[data-dice]", () => this.#set({ seed: "" }));
    this.on("click", "[data-last-seed]", () => this.#reuseSeed());
    this.on("click", "[data-reset]", () => this.#fill(freshForm(this.#base, { prompt: this.#form.prompt, loras: this.#form.loras })));
    this.on("click", "[data-suggest]", (event, button) => this.#suggest(button.dataset.suggest));
    this.on("mix-changed", "vs-lora-mixer", (event, mixer) => {
      this.#form.loras = mixer.rows;
      this.#save();
    });
    this.on("mix-trigger", "vs-lora-mixer", (event) => this.#insert(event.detail));
    this.on("change", "[data-switch]", (event, field) => this.#set({ [field.dataset.switch]: field.dataset.on ? (field.checked ? Number(field.dataset.on) : 0) : field.checked }));
    this.on("init-changed", "vs-init-panel", (event, panel) => {
      const { source } = panel.value;
      this.#form.init = panel.value;
      // The picture's proportions, until somebody chooses others.
      if (event.detail.sized && source) Object.assign(this.#form, sizeFor(source, this.#base));
      this.#save();
      this.#drawForm();
    });
    this.on("click", "[data-take-tags]", () => this.#takeTags());
    this.on("click", "[data-send]", () => this.#submit());
    this.on("click", "[data-sheet]", () => this.#sheet().catch(toastError));
    this.on("submit", "form", (event) => event.preventDefault());
    this.listen(
      this,
      "toggle",
      (event) => {
        if (!event.target.matches("[data-advanced]")) return;
        this.#advanced = event.target.open;
        store.set("generate-advanced", this.#advanced);
        if (this.mixer) this.mixer.advanced = this.#advanced;
      },
      { capture: true }, // toggle does not bubble
    );
    this.listen(document, "keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.#submit();
    });
  }

  #typed(field, done) {
    const name = field.dataset.bind;
    const limit = bounds(this.#base)[name];
    if (limit) {
      // Half-typed numbers are let be; the slider beside them is always whole.
      if (field.type === "number" && !done) return;
      const [least, most, whole] = limit;
      this.#form[name] = within(field.value, least, most, this.#form[name], whole);
    } else if (name === "seed") {
      const digits = field.value.replace(/\D/g, "");
      this.#form.seed = digits === "" ? "" : Math.min(Number(digits), SEED_MOST);
      if (field.value !== digits) field.value = digits;
    } else if (name === "hires_steps") {
      this.#form.hires_steps = field.value.replace(/\D/g, "");
      if (field.value !== this.#form.hires_steps) field.value = this.#form.hires_steps;
    } else this.#form[name] = field.value;
    this.#clearError(name);
    this.#save();
    if (name === "prompt" || name === "negative_prompt") this.#count(field);
    else if (["width", "height", "hires_scale"].includes(name)) this.#drawForm();
    else this.#writeFields();
  }

  #set(values) {
    Object.assign(this.#form, values);
    for (const name of Object.keys(values)) this.#clearError(name);
    this.#save();
    this.#drawForm();
  }

  #fill(form) {
    this.#form = this.#fitting(form);
    this.#save();
    this.#drawForm();
    this.#clearErrors();
  }

  #chooseBase(id) {
    const { prompt, negative_prompt, seed, count, loras, init, bucket } = this.#form;
    const model = this.#bases.items.find((one) => one.id === id);
    if (!model) return;
    const form = freshForm(model, { prompt, negative_prompt, seed, count, loras, init, bucket });
    this.#fill(init.source ? { ...form, ...sizeFor(init.source, model) } : form);
  }

  #reuseSeed() {
    const last = this.#order.map((id) => this.#feed.jobs.get(id)).find((job) => job?.images?.length);
    if (last) this.#set({ seed: last.images[0].seed });
    else toast("No render yet: there is no seed to reuse.", "info");
  }

  #suggest(text) {
    const before = this.#form.prompt;
    this.#set({ prompt: text });
    this.#field("prompt").focus();
    if (before.trim() && !this.#base.suggestions.includes(before.trim())) toast("Prompt replaced", "info", { action: { label: "Undo", run: () => this.#set({ prompt: before }) } });
  }

  #insert(words) {
    const { prompt } = this.#form;
    if (prompt.toLowerCase().includes(words.toLowerCase())) return;
    const text = prompt.trim() ? `${prompt.trim().replace(/,$/, "")}, ${words}` : words;
    this.#set({ prompt: text.slice(0, PROMPT_MOST) });
  }

  #drawForm() {
    const { samplers, schedules, items } = this.#bases;
    const place = this.querySelector("[data-form]");
    if (!place) return;
    render(place, formTemplate(this.#form, { baseModels: items, samplers: samplers ?? [], schedules: schedules ?? [], baseModel: this.#base, advanced: this.#advanced }));
    this.mixer = place.querySelector("vs-lora-mixer");
    if (this.mixer.rows !== this.#form.loras) {
      this.mixer.rows = this.#form.loras;
      this.#form.loras = this.mixer.rows;
    }
    this.mixer.baseModel = this.#base;
    this.initPanel = place.querySelector("vs-init-panel");
    this.initPanel.canvas = { width: this.#form.width, height: this.#form.height, step: this.#base.size_step ?? 8, most: this.#base.max_size ?? 2048 };
    this.initPanel.masks = can(this.#base, "masks");
    this.initPanel.value = this.#form.init;
    this.mixer.advanced = this.#advanced;
    this.#writeFields();
  }

  /** Put the form's values into its fields, but for the one being typed into. */
  #writeFields() {
    for (const field of this.querySelectorAll("[data-bind]")) {
      const value = String(this.#form[field.dataset.bind] ?? "");
      const typing = field === document.activeElement && field.type !== "range" && field.tagName !== "SELECT";
      if (field.value !== value && !(typing && Number(field.value) === Number(value) && value !== "")) field.value = value;
      if (field.type === "range") {
        const [least, most] = [Number(field.min), Number(field.max)];
        field.style.setProperty("--at", `${Math.min(100, Math.max(0, (100 * (Number(value) - least)) / (most - least)))}%`);
      }
      if (field.tagName === "TEXTAREA") this.#count(field);
    }
    this.#drawCost();
    for (const radio of this.querySelectorAll("[data-base]")) radio.checked = radio.value === this.#form.base_model_id;
  }

  #count(field) {
    if (field.dataset.bind === "prompt" && this.mixer) this.mixer.prompt = field.value;
    if (this.#session?.user) this.#checker.look(this.#form);
    this.#drawCheck(field.dataset.bind);
  }

  #drawChecks() {
    for (const name of ["prompt", "negative_prompt"]) this.#drawCheck(name);
  }

  /** Number of tokens over a prompt, and notes under it. */
  #drawCheck(name) {
    const counter = this.querySelector(`[data-counter="${name}"]`);
    if (!counter) return;
    const value = this.#form[name] ?? "";
    const check = this.#checker.of(name, value);
    // Between two answers the last one stands, so that nothing flickers while somebody types.
    const { text, title, level } = counterOf(value, check ?? (value.trim() ? this.#checker.last(name) : null), this.#base.prompt_tokens);
    counter.textContent = text;
    counter.title = title;
    counter.dataset.level = level;
    if (check || !value.trim()) render(this.querySelector(`[data-notes="${name}"]`), notesOf(check));
  }

  /** LoRA tags of the prompt become rows of the mixer, where they have sliders. */
  async #takeTags() {
    const check = this.#checker.of("prompt", this.#form.prompt);
    if (!check?.loras.length) return;
    try {
      for (const { model_id, version_id, weight, text_encoder_weight } of check.loras) await this.mixer.addById(model_id, { version_id, weight, text_encoder_weight });
    } catch (error) {
      toastError(error);
      return;
    }
    const there = new Set(this.mixer.rows.map((row) => row.model_id));
    this.#set({ prompt: withoutTags(this.#form.prompt, check.loras.filter((lora) => there.has(lora.model_id))) });
  }

  #field(name) {
    return this.querySelector(`[data-bind="${name}"]`);
  }

  /* ---------------------------------------------------------------- errors beside their controls */

  #clearError(name) {
    const control = CONTROL_OF[name] ?? name;
    for (const key of [name, control]) {
      const place = this.querySelector(`[data-error="${key}"]`);
      if (place) place.hidden = true;
      this.#field(key)?.removeAttribute("aria-invalid");
    }
  }

  #clearErrors() {
    for (const place of this.querySelectorAll("[data-error]")) place.hidden = true;
    for (const field of this.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    if (this.mixer) this.mixer.error = "";
    if (this.initPanel) this.initPanel.error = "";
    this.#drawSubmit();
  }

  #showError(error) {
    const name = (error.field ?? "").split(".")[0];
    const text = [error.message, error.hint].filter(Boolean).join(" ");
    if (name === "loras") {
      this.mixer.error = text;
      this.mixer.scrollIntoView({ block: "nearest", behavior: "smooth" });
      return;
    }
    if (name === "init") {
      this.initPanel.error = text;
      this.initPanel.scrollIntoView({ block: "nearest", behavior: "smooth" });
      return;
    }
    const own = this.querySelector(`[data-error="${CSS.escape(name)}"]`);
    const place = own ?? this.querySelector(`[data-error="${CONTROL_OF[name] ?? ""}"]`);
    if (!place) {
      this.#drawSubmit(text);
      return;
    }
    const fold = place.closest("details");
    if (fold) fold.open = true;
    place.textContent = text;
    place.hidden = false;
    const field = this.#field(name);
    field?.setAttribute("aria-invalid", "true");
    field?.focus();
  }

  /* ---------------------------------------------------------------- submitting */

  #drawSubmit(problem = "") {
    const place = this.querySelector("[data-submit]");
    if (!place) return;
    const now = this.#session;
    if (!now.may_generate) {
      render(place, refusalOf(now));
      return;
    }
    render(
      place,
      html`${problem && html`<p class="notice err" role="alert">${icon("alert-circle")}<span>${problem}</span></p>`}
        <div class="vs-gen-go"><button type="button" class="btn primary large" data-send aria-busy="${this.#submitting ? "true" : "false"}">${icon("sparkles")}Generate<kbd class="vs-key" aria-hidden="true">Ctrl ↵</kbd></button>
          <button type="button" class="btn icon-only" data-sheet aria-label="Make a sheet" title="Make a sheet: one or two settings in several values">${icon("grid")}</button></div>
        <p class="vs-gen-cost" data-cost data-keep></p>`,
    );
    this.#drawCost();
  }

  async #submit() {
    if (this.#submitting || !this.#session?.may_generate) return;
    this.#clearErrors();
    if (!this.#form.prompt.trim()) {
      this.#showError(new ApiError(422, { field: "prompt", message: "Write what the picture should show." }));
      return;
    }
    await this.#send(formRequest(feasible(this.#form, this.#base)), true);
  }

  async #sheet() {
    this.#clearErrors();
    if (!this.#form.prompt.trim()) {
      this.#showError(new ApiError(422, { field: "prompt", message: "Write what the pictures should show." }));
      return;
    }
    const request = formRequest(feasible(this.#form, this.#base));
    const titles = new Map(this.#form.loras.map((row) => [row.model_id, row.title]));
    const { askSheet } = await import("./sheet_dialog.js");
    await askSheet({
      request,
      titles: request.loras.map((lora) => titles.get(lora.model_id)),
      samplers: samplersOf(this.#base, this.#bases.samplers ?? []),
      secondsPerStep: this.#secondsPerStep(),
      send: async (json) => this.#took(await api("/api/generations/sheets", { json, signal: this.signal })),
    });
  }

  /** What the request will take, as far as earlier ones tell. */
  #drawCost() {
    const place = this.querySelector("[data-submit] [data-cost]");
    if (!place) return;
    const perStep = this.#secondsPerStep();
    const { count, steps, hires_on, hires_scale, hires_steps, hires_strength, init } = feasible(this.#form, this.#base);
    const first = steps * (init.source ? init.strength : 1);
    const second = hires_on ? (Number(hires_steps) || steps) * hires_strength * hires_scale ** 2 : 0;
    place.textContent = perStep === null ? "" : `${count} picture${count === 1 ? "" : "s"}, about ${formatDuration(Math.max(1, perStep * count * (first + second)))} once it is your turn`;
  }

  /** What a step of a picture of this size took lately with this base model, or null. */
  #secondsPerStep() {
    const job = this.#order.map((id) => this.#feed.jobs.get(id)).find((one) => one?.duration_s && one.images?.length && one.request?.base_model_id === this.#form.base_model_id && !one.request.init && !one.request.hires);
    if (!job) return null;
    const { width, height, steps } = job.request;
    return (job.duration_s / (job.images.length * steps)) * ((this.#form.width * this.#form.height) / (width * height));
  }

  /** A request was accepted: look at it. */
  #took(job) {
    this.#order.unshift(job.id);
    this.#feed.take(job);
    this.#show(job.id);
    this.#bringStage();
  }

  /** Where the pictures are below the form, bring them into sight. */
  #bringStage() {
    if (innerWidth <= 980) this.querySelector(".vs-gen-stage").scrollIntoView({ behavior: "smooth", block: "start" });
  }

  /** @param {boolean} fromForm errors go beside the form's controls, else into a toast */
  async #send(json, fromForm = false, path = "/api/generations") {
    this.#submitting = true;
    this.#drawSubmit();
    try {
      this.#took(await api(path, { json, signal: this.signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (fromForm && error instanceof ApiError) {
        this.#submitting = false;
        this.#drawSubmit();
        this.#showError(error);
      } else toastError(error);
    } finally {
      this.#submitting = false;
      this.querySelector("[data-send]")?.setAttribute("aria-busy", "false");
    }
  }

  /* ---------------------------------------------------------------- jobs */

  #listenJobs() {
    this.on("click", "[data-job]", (event, button) => this.#show(button.dataset.job));
    this.on("job-action", "vs-job", (event) => this.#act(event.detail));
    this.on("job-view", "vs-job", (event) => lookAtJob(event.detail.job, event.detail.index, { bases: this.#bases, act: (detail) => this.#act(detail) }));
  }

  /** Renders of this person that run, and the latest that are done. */
  async #resume() {
    if (!this.#session.user && !this.#session.may_generate) return;
    try {
      const [active, latest] = await Promise.all([
        api("/api/generations", { query: { status: "active", limit: 100 }, signal: this.signal }),
        api("/api/generations", { query: { limit: RECENT }, signal: this.signal }),
      ]);
      const jobs = new Map([...active.items, ...latest.items].map((job) => [job.id, job]));
      const old = [...jobs.values()].sort((a, b) => b.created_at.localeCompare(a.created_at)).map((job) => job.id);
      this.#order = [...this.#order, ...old.filter((id) => !this.#order.includes(id))];
      // What was sent or has moved on since these answers is known better.
      for (const job of jobs.values()) if (!this.#feed.jobs.has(job.id)) this.#feed.take(job);
      if (!this.#shown) this.#show(this.#order.find((id) => isActive(jobs.get(id) ?? {})) ?? this.#order[0] ?? null);
    } catch (error) {
      // Without them one can still render; a guest has none.
      if (error.name !== "AbortError" && error.status !== 401) toastError(error);
    }
    this.#drawStrip();
  }

  #show(id) {
    this.#shown = id;
    if (id) this.#feed.focus(id);
    this.#drawStage();
    this.#drawStrip();
  }

  #jobChanged(job) {
    if (!this.#order.includes(job.id)) this.#order.unshift(job.id);
    if (job.id === this.#shown) this.#drawStage();
    if (!isActive(job)) this.#drawCost();
    this.#drawStrip();
  }

  #jobGone(id) {
    this.#order = this.#order.filter((other) => other !== id);
    if (this.#shown === id) this.#show(this.#order[0] ?? null);
    else this.#drawStrip();
  }

  #drawStage() {
    const place = this.querySelector("[data-stage]");
    if (!place) return;
    const job = this.#feed.jobs.get(this.#shown);
    if (!job) {
      render(place, html`<div class="vs-stage-empty" data-key="empty">${icon("sparkles", { size: 34 })}<h2>Your picture appears here</h2><p class="muted">Describe it, mix in a few LoRAs if you like, and press Generate.</p></div>`);
      return;
    }
    let view = place.querySelector("vs-job");
    if (!view) {
      view = document.createElement("vs-job");
      place.replaceChildren(view);
    }
    view.job = job;
  }

  #drawStrip() {
    const place = this.querySelector("[data-strip]");
    if (!place) return;
    const jobs = this.#order.map((id) => this.#feed.jobs.get(id)).filter(Boolean).slice(0, RECENT + 6);
    place.hidden = jobs.length < 2;
    if (place.hidden) return;
    render(
      place,
      html`${jobs.map((job) => stripItem(job, job.id === this.#shown))}<a class="vs-strip-all" href="/history" data-key="all" aria-label="All renders">${icon("history")}<small>All</small></a>`,
    );
  }

  /** What can be done with a render, see job_actions.js. */
  #act(detail) {
    return actOnJob(detail, {
      bases: this.#bases,
      feed: this.#feed,
      signal: this.signal,
      send: (json, path) => this.#send(json, false, path),
      gone: (id) => this.#jobGone(id),
      useSeed: (seed) => this.#set({ seed }),
      useSettings: (job) => this.#fillFrom(formFromJob(job, { baseModels: this.#bases.items, signal: this.signal }), "Settings taken over"),
      begin: (source) => this.#beginWith(source),
    });
  }

  #beginWith(source) {
    this.initPanel.begin(source);
    toast("The next render starts from this picture", "ok", { timeout: 2500 });
  }

  /* ---------------------------------------------------------------- filling the form */

  async #fillFromAddress() {
    const params = query();
    const [lora, image, generation, prompt, start, picture] = ["lora", "image", "generation", "prompt", "start", "picture"].map((name) => params.get(name));
    const watched = params.get("watch");
    if (!lora && !image && !generation && !prompt && !start && !watched) return;
    // Once is enough: a reload keeps what was changed since.
    history.replaceState(history.state, "", "/generate");
    const { items: baseModels, samplers = [], schedules = [] } = this.#bases;
    try {
      if (prompt) this.#set({ prompt: prompt.slice(0, PROMPT_MOST) });
      if (lora) await this.mixer.addById(lora, { weight: 0.8 });
      if (watched) {
        this.#feed.take(await api(`/api/generations/${encodeURIComponent(watched)}`, { signal: this.signal }));
        this.#show(watched);
        this.#bringStage();
      }
      if (start) {
        const { id, url, width, height } = await api(`/api/images/${encodeURIComponent(start)}`, { signal: this.signal });
        this.#beginWith({ kind: "image", id, url, width, height });
      }
      if (image) {
        const picture = await api(`/api/images/${encodeURIComponent(image)}`, { signal: this.signal });
        if (!picture.recipe) toast("This picture carries no recipe, so there is nothing to fill in.", "warn");
        else await this.#fillFrom(formFromRecipe(picture.recipe, { form: this.#form, baseModels, samplers, schedules, signal: this.signal }), `Filled in from “${picture.title || "the picture"}”`);
      }
      if (generation) {
        const job = await api(`/api/generations/${encodeURIComponent(generation)}`, { signal: this.signal });
        this.#feed.take(job);
        this.#show(job.id);
        const source = picture && job.images.find((one) => one.id === picture);
        if (source) this.#beginWith({ kind: "render", id: source.id, url: source.url, width: source.width, height: source.height });
        else await this.#fillFrom(formFromJob(job, { baseModels, signal: this.signal }), "Filled in from your render");
      }
    } catch (error) {
      toastError(error);
    }
  }

  async #fillFrom(filling, message) {
    const { form, missing } = await filling;
    this.#fill(form);
    if (missing.length) toast(`Not in this library, so left out: ${missing.join(", ")}`, "warn", { timeout: 9000 });
    else toast(message, "ok", { timeout: 2500 });
  }
}

define("vs-generator", Generator);
define("vs-page-generate", class extends Generator {});
