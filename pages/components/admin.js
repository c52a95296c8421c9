/** Administration: people, base models, live settings, the render queue, the audit log. */
import { api, avatar, debounce, define, emptyState, errorState, formatDate, hasRole, html, icon, loginUrl, openDialog, raw, render, session, timeAgo, toast, toastError } from "./core.js";
import { bindForm, field, formError } from "./forms.js";
import { askBlock, queueTemplate, steerQueue } from "./queue_panel.js";
import { TabbedView } from "./tabs.js";

const ROLES = [
  ["USER", "Member", "Downloads and, where the generator is open to members, renders. Keeps renders in own galleries."],
  ["CURATOR", "Curator", "Also uploads models and pictures and edits what is theirs."],
  ["ADMIN", "Administrator", "Edits everything, manages people, settings and the queue."],
  ["SUPERADMIN", "Owner", "Also names and removes administrators."],
];
const ACCESS = [["admins", "Administrators only"], ["curators", "Curators and administrators"], ["members", "Every member"], ["open", "Everybody with an account"]];
const QUEUE_EVERY_MS = 4000;

class Admin extends TabbedView {
  async start() {
    const now = await session();
    if (!this.isConnected) return;
    if (!hasRole(now, "ADMIN")) {
      render(this, emptyState({ icon: "lock", title: "For administrators", text: now.user ? "Your account has no access to this page." : "Log in with an administrator's account.", actions: html`<a class="btn primary" href="${now.user ? "/" : loginUrl()}">${now.user ? "Go home" : "Log in"}</a>` }));
      return;
    }
    this.now = now;
    this.begin("Administration", {
      people: { label: "People", show: (panel, signal) => this.#people(panel, signal) },
      models: { label: "Base models", show: (panel, signal) => this.#baseModels(panel, signal) },
      settings: { label: "Settings", show: (panel, signal) => this.#settings(panel, signal) },
      queue: { label: "Queue", show: (panel, signal) => this.#queue(panel, signal) },
      audit: { label: "Audit log", show: (panel, signal) => this.#audit(panel, signal) },
    });
  }

  #failed(panel, error) {
    render(panel, errorState(error));
    panel.querySelector("[data-retry]").addEventListener("click", () => this.reload());
  }

  /** Roles that this administrator may give: only owners make administrators. */
  #roles() {
    return ROLES.filter(([key]) => hasRole(this.now, "SUPERADMIN") || key === "USER" || key === "CURATOR");
  }

  /* ---- people */

  #people(panel, signal) {
    render(
      panel,
      html`<div class="row admin-tools"><label class="grow search-field">${icon("search", { size: 18 })}<span class="offscreen">Search people</span><input class="input" type="search" placeholder="Name or e-mail" data-q /></label>
        <select class="select" data-role aria-label="Role"><option value="">All roles</option>${ROLES.map(([key, label]) => html`<option value="${key}">${label}</option>`)}</select>
        <button type="button" class="btn primary" data-new>${icon("plus")}New account</button></div>
        <div data-list></div>`,
    );
    const list = panel.querySelector("[data-list]");
    let items = [];
    let asking = null;
    const load = async (cursor) => {
      asking?.abort();
      asking = new AbortController();
      const call = AbortSignal.any([signal, asking.signal]);
      try {
        const page = await api("/api/users", { query: { q: panel.querySelector("[data-q]").value.trim(), role: panel.querySelector("[data-role]").value, cursor, limit: 50 }, signal: call });
        items = cursor ? [...items, ...page.items] : page.items;
        render(list, this.#peopleTable(items, page.next_cursor));
      } catch (error) {
        if (error.name !== "AbortError") this.#failed(list, error);
      }
    };
    panel.querySelector("[data-q]").addEventListener("input", debounce(() => load(), 200));
    panel.querySelector("[data-role]").addEventListener("change", () => load());
    panel.addEventListener("click", (event) => {
      if (event.target.closest("[data-new]")) this.#newAccount(load);
      const more = event.target.closest("[data-more]");
      if (more) load(more.dataset.more);
      const edit = event.target.closest("[data-person]");
      if (edit) this.#editPerson(items.find((one) => one.id === edit.dataset.person), load);
    });
    load();
  }

  #peopleTable(items, next) {
    if (!items.length) return html`<p class="faint lines-none">Nobody matches.</p>`;
    return html`<div class="table-wrap"><table class="table"><thead><tr><th>Person</th><th>Role</th><th class="wide-only">State</th><th class="wide-only">Last login</th><th class="wide-only">Joined</th><th><span class="offscreen">Edit</span></th></tr></thead><tbody>${items.map((one) => html`<tr data-key="${one.id}">
      <td><span class="person">${avatar(one, 36)}<span class="ellipsis"><b class="ellipsis">${one.name}</b><small class="faint ellipsis">${one.email}</small></span></span></td>
      <td>${!one.is_active && html`<span class="badge err narrow-only">Deactivated</span> `}<span class="badge ${one.role === "SUPERADMIN" || one.role === "ADMIN" ? "accent" : one.role === "CURATOR" ? "cyan" : ""}">${roleName(one.role)}</span></td>
      <td class="wide-only"><span class="badge ${one.is_active ? "ok" : "err"}">${one.is_active ? "Active" : "Deactivated"}</span></td>
      <td class="faint nowrap wide-only" title="${formatDate(one.last_login_at)}">${one.last_login_at ? timeAgo(one.last_login_at) : "never"}</td><td class="faint nowrap wide-only" title="${formatDate(one.created_at)}">${timeAgo(one.created_at)}</td>
      <td class="num"><button type="button" class="btn ghost small" data-person="${one.id}" aria-label="Edit ${one.name}">${icon("edit")}<span class="wide-only">Edit</span></button></td></tr>`)}</tbody></table></div>
      ${next && html`<div class="row center"><button type="button" class="btn" data-more="${next}">Show more</button></div>`}`;
  }

  #roleChoice(current, hint = "") {
    return html`<fieldset class="field"><span class="label">Role</span><div class="roles">${this.#roles().map(([key, label, text]) => html`<label class="role"><input type="radio" name="role" value="${key}" ${raw(key === current ? "checked" : "")} /><span><b>${label}</b><small class="faint">${text}</small></span></label>`)}</div>${hint && html`<span class="hint">${hint}</span>`}<span class="error" data-error="role" role="alert"></span></fieldset>`;
  }

  #newAccount(done) {
    const { el, close } = openDialog({
      title: "New account",
      body: html`<form class="stack">${formError()}
        ${field({ name: "name", label: "Name", required: true, maxlength: 160, autofocus: true })}
        ${field({ name: "email", label: "E-mail", type: "email", required: true, maxlength: 254 })}
        ${field({ name: "password", label: "First password", type: "text", required: true, minlength: 8, maxlength: 1024, hint: "Tell it to the person; they change it on their account page." })}
        ${this.#roleChoice("USER")}
        <div class="row end"><button type="button" class="btn" data-close>Cancel</button><button class="btn primary" type="submit">Make account</button></div></form>`,
    });
    bindForm(el.querySelector("form"), async (person) => {
      await api("/api/users", { json: person });
      close();
      toast(`${person.name} can log in now.`, "ok");
      done();
    });
  }

  #editPerson(person, done) {
    const mine = person.id === this.now.user.id;
    const locked = hasRole({ user: person }, "ADMIN") && !hasRole(this.now, "SUPERADMIN");
    const { el, close } = openDialog({
      title: person.name,
      body: html`<form class="stack"><p class="muted small">${person.email} · joined ${formatDate(person.created_at)}</p>${formError()}
        ${locked ? html`<div class="notice">${icon("lock")}Only the owner changes administrators.</div>` : html`
        ${field({ name: "name", label: "Name", value: person.name, required: true, maxlength: 160 })}
        ${!mine && this.#roleChoice(person.role, "With another role the person has to log in again.")}
        ${!mine && field({ name: "password", label: "New password", minlength: 8, maxlength: 1024, hint: "Leave empty to keep it. A new one ends the person's sessions." })}
        ${!mine && html`<label class="switch"><input type="checkbox" name="is_active" ${raw(person.is_active ? "checked" : "")} /><span>May log in</span></label>`}
        <div class="row end">${!mine && html`<button type="button" class="btn grow-right" data-block>Keep from rendering…</button>`}<button type="button" class="btn" data-close>Cancel</button><button class="btn primary" type="submit">Save</button></div>`}</form>`,
    });
    el.querySelector("[data-block]")?.addEventListener("click", () => {
      close();
      askBlock(person);
    });
    bindForm(el.querySelector("form"), async (values, form) => {
      const change = {};
      if (values.name !== person.name) change.name = values.name;
      if (values.role && values.role !== person.role) change.role = values.role;
      if (values.password) change.password = values.password;
      const active = form.elements.is_active;
      if (active && active.checked !== person.is_active) change.is_active = active.checked;
      if (Object.keys(change).length) await api(`/api/users/${encodeURIComponent(person.id)}`, { method: "PATCH", json: change });
      close();
      done();
    });
  }

  /* ---- base models */

  async #baseModels(panel, signal) {
    const { BaseModelList } = await import("./base_models.js");
    if (!signal.aborted) new BaseModelList(panel, signal).start();
  }

  /* ---- settings */

  async #settings(panel, signal) {
    const settings = await api("/api/settings", { signal }).catch((error) => error);
    if (signal.aborted) return;
    if (settings instanceof Error) return this.#failed(panel, settings);
    render(
      panel,
      html`<section class="card account-grid"><form class="stack"><h2>Live settings</h2><p class="muted small">They apply at once, without a restart. Everything else is an environment variable, listed in the README.</p>${formError()}
        ${field({ name: "site_title", label: "Name of the site", value: settings.site_title, required: true, maxlength: 80 })}
        ${field({ name: "registration", label: "Registration", value: settings.registration, options: [["open", "Open: anybody can make an account"], ["closed", "Closed: administrators make accounts"]] })}
        ${field({ name: "generator_access", label: "Who may render", value: settings.generator_access, options: ACCESS })}
        ${field({ name: "auto_test_sheets", label: "Test sheets of new LoRAs", value: settings.auto_test_sheets ? "on" : "off", options: [["on", "On: rendered when nobody waits"], ["off", "Off: only when somebody asks for one"]] })}
        <div class="row end"><button class="btn primary" type="submit">Save</button></div></form></section>`,
    );
    return bindForm(panel.querySelector("form"), async (values) => {
      await api("/api/settings", { method: "PATCH", json: { ...values, auto_test_sheets: values.auto_test_sheets === "on" } });
      this.now = await session({ refresh: true });
      toast("Saved. It applies from now on.", "ok");
    });
  }

  /* ---- queue */

  async #queue(panel, signal) {
    const load = async () => {
      if (document.hidden) return;
      try {
        const none = () => ({ items: [] });
        const [queue, failures, blocks] = await Promise.all([api("/api/queue", { signal }), api("/api/queue/failures", { query: { limit: 10 }, signal }).catch(none), api("/api/queue/blocks", { signal }).catch(none)]);
        render(panel, queueTemplate(queue, failures.items, blocks.items));
      } catch (error) {
        if (error.name === "AbortError") return;
        clearInterval(timer);
        this.#failed(panel, error);
      }
    };
    const timer = setInterval(load, QUEUE_EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    panel.addEventListener("click", async (event) => {
      try {
        if (!(await steerQueue(event))) return;
      } catch (error) {
        toastError(error);
      }
      await load();
    });
    await load();
  }

  /* ---- audit */

  #audit(panel, signal) {
    render(panel, html`<div class="row admin-tools"><label class="grow search-field">${icon("filter", { size: 18 })}<span class="offscreen">Action</span><input class="input" type="search" placeholder="Action, such as login. or role.changed" data-action /></label></div><div data-list></div>`);
    const list = panel.querySelector("[data-list]");
    let items = [];
    const load = async (cursor) => {
      try {
        const page = await api("/api/audit", { query: { action: panel.querySelector("[data-action]").value.trim(), cursor, limit: 50 }, signal });
        items = cursor ? [...items, ...page.items] : page.items;
        render(list, auditTable(items, page.next_cursor));
      } catch (error) {
        if (error.name !== "AbortError") this.#failed(list, error);
      }
    };
    panel.querySelector("[data-action]").addEventListener("input", debounce(() => load(), 250));
    panel.addEventListener("click", (event) => {
      const more = event.target.closest("[data-more]");
      if (more) load(more.dataset.more);
    });
    load();
  }
}

const roleName = (role) => ROLES.find(([key]) => key === role)?.[1] ?? role;

function auditTable(items, next) {
  if (!items.length) return html`<p class="faint lines-none">No entries.</p>`;
  return html`<div class="table-wrap"><table class="table"><thead><tr><th>When</th><th>Who</th><th>Action</th><th>On</th><th>Detail</th></tr></thead><tbody>${items.map((entry) => html`<tr><td class="faint nowrap" title="${formatDate(entry.at)}">${timeAgo(entry.at)}</td><td>${entry.actor.name || "guest"}</td><td class="nowrap"><code>${entry.action}</code></td><td class="faint">${entry.target}</td><td class="faint small audit-detail">${detailWords(entry.detail)}</td></tr>`)}</tbody></table></div>
    ${next && html`<div class="row center"><button type="button" class="btn" data-more="${next}">Show more</button></div>`}`;
}

const detailWords = (detail) => Object.entries(detail || {}).map(([key, value]) => `${key}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");

define("vs-page-admin", Admin);
