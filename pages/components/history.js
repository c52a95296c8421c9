// Everything a person has rendered: filter by state, look, save, repeat, delete, cancel.
import { View, api, confirmDialog, define, emptyState, formatDuration, html, icon, loginUrl, navigate, query, render, session, timeAgo, toast, toastError } from "./core.js";
import { placeholderStyle } from "./dom.js";
import { recipeOf } from "./generate_fill.js";
import { repeatCall } from "./generate_form.js";
import { isActive } from "./job_feed.js";
import { fileName, phaseOf } from "./job_progress.js";
import { openLightbox } from "./lightbox.js";
import "./tile_grid.js";

const saveGeneration = async (...args) => (await import("./save_dialog.js")).saveGeneration(...args);
const FILTERS = [
  ["", "All"],
  ["active", "Running"],
  ["completed", "Done"],
  ["failed", "Failed"],
  ["cancelled", "Cancelled"],
];
const POLL_MS = 2500;
const STATE_ICONS = { failed: "alert-circle", cancelled: "ban", completed: "image" };

class History extends View {
  #status = "";
  #counts = null;
  #session = null;
  #known = null;
  #timer = 0;

  async start() {
    this.on("click", "[data-status]", (event, tab) => navigate(tab.dataset.status ? `/history?status=${tab.dataset.status}` : "/history", { scroll: false }));
    this.on("click", "[data-do]", (event, button) => this.#do(button.dataset.do, button));
    this.listen(window, "vs:navigate", () => location.pathname === "/history" && this.#apply());
    this.#session = await session();
    if (!this.isConnected) return;
    if (!this.#session.user) {
      render(this, emptyState({ icon: "history", title: "Your renders are kept here", text: "Log in to see what you have rendered.", actions: html`<a class="btn primary" href="${loginUrl()}">Log in</a>` }));
      return;
    }
    render(
      this,
      html`<header class="vs-explorer-head"><h1>History</h1><a class="btn" href="/generate">${icon("sparkles", { size: 18 })}New render</a></header>
        <div class="tabs" role="tablist" aria-label="State" data-tabs data-keep></div>
        <vs-tile-grid class="vs-history-grid"></vs-tile-grid>`,
    );
    this.grid = this.querySelector("vs-tile-grid");
    this.grid.configure({
      label: "Your renders",
      tile: historyTile,
      load: (cursor, limit, signal) => api("/api/generations", { query: { status: this.#status, cursor, limit }, signal }),
      empty: () => this.#empty(),
      open: (job) => this.#open(job),
    });
    this.#status = null;
    this.#apply();
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #apply() {
    const asked = query().get("status") ?? "";
    const status = FILTERS.some(([name]) => name === asked) ? asked : "";
    if (status === this.#status || !this.grid) return;
    this.#status = status;
    this.#drawTabs();
    this.grid.reload();
    this.#refresh();
  }

  #drawTabs() {
    const counts = this.#counts;
    const count = (name) => {
      if (!counts) return null;
      if (name === "active") return ["pending", "queued", "running"].reduce((sum, state) => sum + (counts[state] ?? 0), 0);
      if (name) return counts[name] ?? 0;
      return ["pending", "queued", "running", "completed", "failed", "cancelled"].reduce((sum, state) => sum + (counts[state] ?? 0), 0);
    };
    render(
      this.querySelector("[data-tabs]"),
      html`${FILTERS.map(([name, label]) => html`<button type="button" role="tab" data-key="${name || "all"}" data-status="${name}" aria-selected="${name === this.#status ? "true" : "false"}">${label}${count(name) > 0 && html`<small class="faint">${count(name)}</small>`}</button>`)}`,
    );
  }

  /** Counts, and what runs at the moment; again as long as something does. */
  async #refresh() {
    clearTimeout(this.#timer);
    try {
      this.#counts = await api("/api/generations/counts", { signal: this.signal });
      this.#drawTabs();
      const running = this.grid.items.filter(isActive);
      if (running.length) {
        const jobs = await Promise.all(running.map((job) => api(`/api/generations/${encodeURIComponent(job.id)}`, { signal: this.signal }).catch(() => null)));
        for (const job of jobs) if (job) this.grid.replace(job);
      }
    } catch (error) {
      if (error.name === "AbortError") return;
    }
    if (this.isConnected) this.#timer = setTimeout(() => (document.hidden || !this.grid.items.some(isActive) ? this.#wait() : this.#refresh()), POLL_MS);
  }

  #wait() {
    this.#timer = setTimeout(() => this.#refresh(), 4 * POLL_MS);
  }

  #empty() {
    const filtered = this.#status !== "";
    return emptyState({
      icon: "history",
      title: filtered ? "Nothing in this state" : "No renders yet",
      text: filtered ? "Choose another state above." : "What you render is kept here with its recipe, whether you save it to a gallery or not.",
      actions: !filtered && html`<a class="btn primary" href="/generate">${icon("sparkles", { size: 18 })}Render the first picture</a>`,
    });
  }

  /** What samplers and schedules are called; their ids serve where that is not to be had. */
  #names() {
    this.#known ??= api("/api/base-models", { signal: this.signal }).catch(() => ({}));
    return this.#known;
  }

  #open(job) {
    if (job.status !== "completed" || !job.images.length) {
      navigate(`/generate?generation=${encodeURIComponent(job.id)}`);
      return;
    }
    // The pictures of all renders in the list, one after the other.
    const pictures = () => this.grid.items.flatMap((other) => (other.images ?? []).map((image) => ({ ...image, job: other, title: other.request.prompt })));
    openLightbox({
      items: pictures,
      index: pictures().findIndex((picture) => picture.id === job.images[0].id),
      more: () => (this.grid.done ? Promise.resolve(false) : this.grid.loadMore()),
      detail: async (picture) => ({ title: timeAgo(picture.job.created_at), recipe: recipeOf(picture.job, picture, await this.#names()) }),
      actions: (picture) => html`<a class="btn primary small" href="/generate?generation=${encodeURIComponent(picture.job.id)}">${icon("sparkles", { size: 16 })}Open in generator</a>
        <a class="btn small" href="/generate?generation=${encodeURIComponent(picture.job.id)}&picture=${encodeURIComponent(picture.id)}">${icon("image", { size: 16 })}Use as input</a>
        <button type="button" class="btn small" data-run="save">${icon("save", { size: 16 })}Save to gallery</button>
        <a class="btn small" href="${picture.url}" download="${fileName(picture.job, picture)}">${icon("download", { size: 16 })}Download</a>`,
      run: (name, picture) => saveGeneration(picture.job, picture.job.images.length > 1 ? [picture.id] : null),
    });
  }

  async #do(name, button) {
    const job = this.grid.items[Number(button.closest("[data-index]").dataset.index)];
    const path = `/api/generations/${encodeURIComponent(job.id)}`;
    try {
      if (name === "save") await saveGeneration(job);
      if (name === "cancel") {
        await api(`${path}/cancel`, { method: "POST" });
        this.grid.replace(await api(path));
      }
      if (name === "again") {
        const { path: where, json } = repeatCall(job);
        const fresh = await api(where, { json });
        toast("Rendering again", "ok", { action: { label: "Watch", href: `/generate?generation=${encodeURIComponent(fresh.id)}` } });
        this.grid.reload();
      }
      if (name === "delete") await this.#delete(job, path);
      this.#refresh();
    } catch (error) {
      toastError(error);
    }
  }

  async #delete(job, path) {
    const count = job.images?.length ?? 0;
    const sure = await confirmDialog({
      title: "Delete this render?",
      text: html`${count === 0 ? "It leaves your history." : `${count === 1 ? "Its picture" : `Its ${count} pictures`} will be deleted; pictures saved to a gallery stay.`} <strong>This cannot be undone. Gone is gone.</strong>`,
      confirm: "Delete",
      danger: true,
    });
    if (!sure) return;
    await api(path, { method: "DELETE" });
    this.grid.remove(job);
  }
}

function historyTile(job) {
  const image = job.images?.[0];
  const thumb = image?.thumb;
  const prompt = job.request?.prompt || "Untitled";
  const active = isActive(job);
  const tool = (name, sign, label) => html`<button type="button" class="vs-round" data-do="${name}" aria-label="${label}" title="${label}">${icon(sign, { size: 16 })}</button>`;
  return html`<div class="vs-tile vs-render ${image ? "" : "has-no-picture"}" data-state="${job.status}" style="${placeholderStyle(thumb)}">
    <a href="/generate?generation=${encodeURIComponent(job.id)}" aria-label="${prompt.slice(0, 160)}, ${job.status}">
      ${image ? html`<img src="${thumb?.small ?? image.url}" srcset="${thumb ? `${thumb.small} 1x, ${thumb.large} 2x` : ""}" alt="" loading="lazy" decoding="async" draggable="false" />` : active && job.preview ? html`<img src="${job.preview}" alt="" />` : !active && icon(STATE_ICONS[job.status], { size: 34 })}
      ${job.images?.length > 1 && html`<span class="vs-tile-badges"><span class="tag-badge">${icon("images", { size: 12 })}${job.images.length}</span></span>`}
      ${active && html`<span class="vs-render-live"><b>${phaseOf(job)}</b><span class="progress"><span style="--value:${job.progress ?? 0}"></span></span></span>`}
      <span class="vs-tile-info"><b>${prompt}</b><small>${job.status === "failed" ? job.error?.message ?? "Failed" : [timeAgo(job.created_at), job.status === "cancelled" ? "cancelled" : job.duration_s && formatDuration(job.duration_s)].filter(Boolean).join(" · ")}</small></span>
    </a>
    <div class="vs-render-tools">${active
      ? tool("cancel", "x", "Cancel")
      : html`${job.status === "completed" && tool("save", "save", "Save to a gallery")}${tool("again", "refresh", "Render again")}${tool("delete", "trash", "Delete")}`}</div>
  </div>`;
}

define("vs-history", History);
define("vs-page-history", class extends History {});
