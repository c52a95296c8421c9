// Small parts of the generator's page: who may not render and why, and the strip of renders.
import { html, icon, loginUrl } from "./core.js";
import { isActive } from "./job_feed.js";
import { phaseOf } from "./job_progress.js";

const WHO_MAY = {
  admins: "Rendering is open to administrators at the moment.",
  curators: "Rendering is open to curators and administrators at the moment.",
  members: "Rendering is open to members.",
  open: "Rendering is open to everybody with an account.",
};

/** Why somebody may not render, and what to do about it. @param {object} now the session */
export function refusalOf(now) {
  const reason = WHO_MAY[now.generator_access] ?? "Rendering is not open to you at the moment.";
  if (now.user) return html`<p class="notice warn" role="status">${icon("lock")}<span>${reason} Your settings are kept in this browser; ask an administrator for access.</span></p>`;
  return html`<p class="notice" role="status">${icon("lock")}<span>${reason} Log in and come back: what you typed stays here.</span></p>
    <a class="btn primary large block" href="${loginUrl()}">${icon("login")}Log in to render</a>
    ${now.registration === "open" && html`<a class="btn ghost block" href="/register?next=%2Fgenerate">Create an account</a>`}`;
}

/** One render in the strip over the stage. @param {boolean} shown whether it is the one on the stage */
export function stripItem(job, shown) {
  const image = job.images?.[0];
  const picture = image?.thumb?.small ?? image?.url ?? (isActive(job) ? job.preview : null);
  const signs = { failed: "alert-circle", cancelled: "ban" };
  const label = `${isActive(job) ? phaseOf(job) : job.status}: ${(job.request?.prompt ?? "").slice(0, 120)}`;
  return html`<button type="button" class="vs-strip-item" data-key="${job.id}" data-job="${job.id}" data-status="${job.status}" aria-current="${shown ? "true" : "false"}" aria-label="${label}" title="${label}" style="--value:${job.progress ?? 0}">
    ${picture ? html`<img src="${picture}" alt="" />` : signs[job.status] ? icon(signs[job.status]) : ""}
    ${isActive(job) && html`<span class="vs-strip-ring">${job.status === "running" ? `${Math.round((job.progress ?? 0) * 100)}%` : icon("clock", { size: 16 })}</span>`}
    ${job.images?.length > 1 && html`<small>${job.images.length}</small>`}
  </button>`;
}
