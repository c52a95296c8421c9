// Follows renders while they run: the one being looked at through server-sent events, the others by asking now and then.
// A browser opens six connections to a server, so one stream a page, whatever the number of jobs.
import { api } from "./core.js";

const ACTIVE = new Set(["pending", "queued", "running"]);
const POLL_MS = 1500;
const RETRIES = 3;

export function isActive(job) {
  return ACTIVE.has(job.status);
}

/** Events: `job` (detail: the job) after every change, `gone` (detail: id) when the server no longer knows it. */
export class JobFeed extends EventTarget {
  jobs = new Map();
  #focused = null;
  #source = null;
  #failures = 0;
  #timer = 0;
  #signal;

  /** @param {AbortSignal} signal ends everything */
  constructor(signal) {
    super();
    this.#signal = signal;
    signal.addEventListener("abort", () => this.#stop());
  }

  /** Take a job in, or newer facts about a known one. @returns the job as known now */
  take(facts) {
    const job = { ...this.jobs.get(facts.id), ...facts };
    if (isActive(job) && job.status === "running") {
      job.seenRunning ??= Date.now();
      job.etaAt = Date.now();
    }
    this.jobs.set(job.id, job);
    this.dispatchEvent(new CustomEvent("job", { detail: job }));
    if (!isActive(job) && job.id === this.#focused) this.#closeSource();
    this.#schedule();
    return job;
  }

  forget(id) {
    this.jobs.delete(id);
    if (id === this.#focused) this.#closeSource();
  }

  get active() {
    return [...this.jobs.values()].filter(isActive);
  }

  /** Stream this job's progress from now on. */
  focus(id) {
    if (id === this.#focused && this.#source) return;
    this.#closeSource();
    this.#focused = id;
    this.#failures = 0;
    const job = this.jobs.get(id);
    if (job && isActive(job)) this.#open(id);
    this.#schedule();
  }

  #open(id) {
    const source = new EventSource(`/api/generations/${encodeURIComponent(id)}/events`);
    this.#source = source;
    const accept = (event) => {
      if (this.#source !== source) return;
      this.#failures = 0;
      this.take({ ...JSON.parse(event.data || "{}"), id });
    };
    source.addEventListener("progress", accept);
    source.addEventListener("done", (event) => {
      accept(event);
      this.#refresh(id); // the whole answer, with what a stream leaves out
    });
    source.addEventListener("error", () => {
      if (this.#source !== source) return;
      this.#failures += 1;
      // The browser reconnects by itself; after a few failures asking is the better way.
      if (source.readyState === EventSource.CLOSED || this.#failures > RETRIES) {
        this.#closeSource();
        this.#schedule();
      }
    });
  }

  #closeSource() {
    this.#source?.close();
    this.#source = null;
  }

  #stop() {
    this.#closeSource();
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  #schedule() {
    const asked = this.active.some((job) => !this.#source || job.id !== this.#focused);
    if (!asked || this.#timer || this.#signal.aborted) return;
    this.#timer = setTimeout(async () => {
      await this.#poll();
      this.#timer = 0;
      this.#schedule();
    }, POLL_MS);
  }

  async #poll() {
    const ids = this.active.filter((job) => !this.#source || job.id !== this.#focused).map((job) => job.id);
    try {
      const { items } = await api("/api/generations", { query: { status: "active", limit: 100 }, signal: this.#signal });
      const found = new Map(items.map((job) => [job.id, job]));
      for (const id of ids) {
        if (found.has(id)) this.take(found.get(id));
        else await this.#refresh(id);
      }
    } catch {
      // The next turn asks again.
    }
  }

  async #refresh(id) {
    try {
      this.take(await api(`/api/generations/${encodeURIComponent(id)}`, { signal: this.#signal }));
    } catch (error) {
      if (error.status !== 404) return;
      this.forget(id);
      this.dispatchEvent(new CustomEvent("gone", { detail: id }));
    }
  }
}
