// The render queue as administrators see and steer it.
import { api, confirmDialog, formatBytes, formatDate, formatDuration, html, icon, openDialog, timeAgo, toast } from "./core.js";
import { bindForm, field, formError } from "./forms.js";

const FOR_HOW_LONG = [["", "Until somebody lets them again"], ["1", "For an hour"], ["24", "For a day"], ["168", "For a week"], ["720", "For 30 days"]];

export function queueTemplate(queue, failures, blocks) {
  const jobs = [...queue.running, ...queue.waiting];
  const state = queue.paused ? "Paused" : queue.draining ? "Emptying" : queue.running.length ? "Rendering" : "Idle";
  const stopped = queue.paused || queue.draining;
  return html`<div class="stack loose">
    <section class="card"><div class="row between"><div class="row">${icon(stopped ? "pause" : "activity")}<div><h2>${state}</h2><p class="muted small">${queue.running.length} running, ${queue.waiting.length} waiting, ${queue.workers.length} ${queue.workers.length === 1 ? "worker" : "workers"}</p></div></div>
      <div class="row">${stopped && html`<button type="button" class="btn primary" data-key="resume" data-queue="resume">${icon("play")}Resume</button>`}
      ${!queue.draining && html`<button type="button" class="btn" data-key="drain" data-queue="drain">Take nothing new</button>`}
      ${!queue.paused && html`<button type="button" class="btn" data-key="pause" data-queue="pause">${icon("pause")}Pause</button>`}
      ${queue.waiting.length > 0 && html`<button type="button" class="btn danger" data-key="clear" data-queue-clear="${queue.waiting.length}">Cancel waiting</button>`}</div></div>
      <p class="hint">${queue.paused ? "What runs goes on; new requests are taken and wait." : queue.draining ? "What waits and runs is done; new requests are refused." : ""}</p>
      ${jobs.length > 0 && jobTable(queue)}</section>
    <section class="card"><h2>Workers</h2>${queue.workers.length === 0 ? html`<p class="muted">No worker has reported. Renders wait until one does.</p>` : html`<ul class="lines">${queue.workers.map((worker) => html`<li data-key="${worker.id}">${icon("cpu")}<span class="grow"><b>${worker.host}</b> <span class="faint small">process ${worker.pid}</span><small class="faint">${worker.slots} at a time · heard ${timeAgo(worker.heartbeat_at)}${engineWords(worker.engine)}</small></span></li>`)}</ul>`}</section>
    ${blocks.length > 0 && html`<section class="card"><h2>May not render</h2><ul class="lines">${blocks.map((one) => html`<li data-key="${one.user.id}">${icon("lock")}<span class="grow"><b>${one.user.name}</b><small class="faint">${one.reason} · ${one.until ? `until ${formatDate(one.until)}` : "for good"}</small></span><button type="button" class="btn small" data-unblock="${one.user.id}">Let render again</button></li>`)}</ul></section>`}
    ${failures.length > 0 && html`<section class="card"><h2>Recent failures</h2><ul class="lines">${failures.map((one) => html`<li data-key="${one.id}">${icon("alert")}<details class="grow failure"><summary><b>${one.error.message}</b><small class="faint">${one.owner?.name ?? "Unknown"} · ${one.error.code} · ${timeAgo(one.finished_at || one.created_at)}</small></summary><pre>${one.trace || "No trace."}</pre></details><button type="button" class="btn small" data-queue="jobs/${one.id}/retry">Try again</button></li>`)}</ul></section>`}
  </div>`;
}

function jobTable(queue) {
  const first = queue.waiting[0]?.id;
  const before = Math.min(100, Math.max(0, ...queue.waiting.map((job) => job.priority)) + 1);
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>Job</th><th>Person</th><th>State</th><th class="num">Step</th><th class="num">Left</th><th>Since</th><th><span class="offscreen">What to do</span></th></tr></thead><tbody>${[...queue.running, ...queue.waiting].map((job) => html`<tr data-key="${job.id}"><td class="mono faint">${job.id.slice(0, 8)}</td><td>${job.owner?.name ?? html`<span class="faint">Test sheet</span>`}</td><td><span class="badge ${job.status === "running" ? "accent" : ""}">${job.phase || job.status}</span> <span class="faint small">${job.wait_reason}</span></td><td class="num">${job.steps ? `${job.step} / ${job.steps}` : ""}</td><td class="num">${job.eta_s ? formatDuration(job.eta_s) : ""}</td><td class="faint nowrap">${timeAgo(job.created_at)}</td>
    <td class="num nowrap">${job.status !== "running" && job.id !== first && html`<button type="button" class="btn ghost small" data-first="${job.id}" data-priority="${before}">First</button>`}<button type="button" class="btn ghost small" data-queue="jobs/${job.id}/cancel" aria-label="Cancel the job of ${job.owner?.name ?? "nobody"}">Cancel</button></td></tr>`)}</tbody></table></div>`;
}

/** What a click on the panel asks for, done; whether it was one of its buttons. @param {Event} event */
export async function steerQueue(event) {
  const button = event.target.closest("[data-queue], [data-queue-clear], [data-first], [data-unblock]");
  if (!button) return false;
  const { queue, queueClear, first, priority, unblock } = button.dataset;
  if (queueClear && !(await confirmDialog({ title: "Cancel everything that waits?", text: `${queueClear} ${queueClear === "1" ? "render" : "renders"} of all people end without a picture. What runs goes on.`, confirm: "Cancel them", cancel: "Keep them", danger: true }))) return true;
  button.setAttribute("aria-busy", "true");
  try {
    if (queueClear) await api("/api/queue/clear", { method: "POST" });
    else if (first) await api(`/api/queue/jobs/${encodeURIComponent(first)}`, { method: "PATCH", json: { priority: Number(priority) } });
    else if (unblock) await api(`/api/queue/blocks/${encodeURIComponent(unblock)}`, { method: "DELETE" });
    else await api(`/api/queue/${queue}`, { method: "POST" });
  } finally {
    button.removeAttribute("aria-busy");
  }
  return true;
}

/** Ask why and for how long a person may not render. @param {{id: string, name: string}} person */
export function askBlock(person) {
  const { el, close } = openDialog({
    title: `Keep ${person.name} from rendering`,
    body: html`<form class="stack">${formError()}
      ${field({ name: "reason", label: "Why", required: true, maxlength: 500, autofocus: true, hint: "The person reads it." })}
      ${field({ name: "until", label: "For how long", options: FOR_HOW_LONG })}
      <p class="muted small">Renders of theirs that wait are cancelled. Everything else of the account stays as it is.</p>
      <div class="row end"><button type="button" class="btn" data-close>Cancel</button><button class="btn danger" type="submit">Keep from rendering</button></div></form>`,
  });
  bindForm(el.querySelector("form"), async ({ reason, until }) => {
    const end = until ? new Date(Date.now() + Number(until) * 3600e3).toISOString() : null;
    await api(`/api/queue/blocks/${encodeURIComponent(person.id)}`, { method: "PUT", json: { reason, until: end } });
    close();
    toast(`${person.name} may not render now. The queue's tab undoes it.`, "ok");
  });
}

function engineWords(engine) {
  const { name, device, detail, loaded_models: models = [], memory_used_bytes: used, memory_total_bytes: total, extra } = engine || {};
  const waiting = extra?.in_host_memory ?? [];
  const words = [name && (device ? `${name} on ${device}` : name), detail, models.length > 0 && `holds ${models.join(", ")}`, waiting.length > 0 && `in host memory ${waiting.join(", ")}`, used && total && `${formatBytes(used)} of ${formatBytes(total)} in use`];
  return words.filter(Boolean).map((text) => ` · ${text}`).join("");
}
