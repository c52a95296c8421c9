/** Account: profile, password and sessions, API tokens. */
import { api, avatar, confirmDialog, copyText, define, emptyState, errorState, formatBytes, formatDate, html, icon, loginUrl, openDialog, raw, render, session, setTheme, theme, timeAgo, toast, toastError } from "./core.js";
import { bindForm, field, formError } from "./forms.js";
import { TabbedView } from "./tabs.js";

const SCOPES = [
  ["read", "Read", "See and download what you may see"],
  ["generate", "Generate", "Render pictures and keep them"],
  ["upload", "Upload", "Upload and edit models, pictures, galleries"],
  ["admin", "Account", "Change the account and, for administrators, the site"],
];
const EXPIRY = [["30", "30 days"], ["90", "90 days"], ["365", "One year"], ["", "Never"]];

class Account extends TabbedView {
  async start() {
    const now = await session();
    if (!this.isConnected) return;
    if (!now.user) {
      render(this, now.failed ? errorState(new Error()) : emptyState({ icon: "user", title: "Log in to see your account", actions: html`<a class="btn primary" href="${loginUrl()}">Log in</a>${now.registration === "open" && html`<a class="btn" href="/register">Register</a>`}` }));
      return;
    }
    this.now = now;
    this.begin("Account", {
      profile: { label: "Profile", show: (panel) => this.#profile(panel) },
      security: { label: "Security", show: (panel, signal) => this.#security(panel, signal) },
      tokens: { label: "API tokens", show: (panel, signal) => this.#tokens(panel, signal) },
    });
    this.listen(window, "vs:theme", () => this.shown === "profile" && this.#marks());
  }

  async #refresh() {
    this.now = await session({ refresh: true });
  }

  /* ---- profile */

  #profile(panel) {
    const { user, limits } = this.now;
    render(
      panel,
      html`<div class="account-grid profile">
        <section class="card account-picture"><div class="account-face" data-face>${avatar(user, 112)}</div>
          <div class="stack tight"><h2>Picture</h2><p class="muted small">PNG, JPEG or WebP up to ${formatBytes(limits.avatar_bytes ?? 5242880)}. It is cut to a square.</p>
          <div class="row"><label class="btn small">${icon("camera")}Choose<input class="offscreen" type="file" accept="image/png,image/jpeg,image/webp" data-avatar /></label>
          <button type="button" class="btn ghost small" data-remove ${raw(user.avatar_url ? "" : "hidden")}>Remove</button></div></div></section>
        <section class="card"><form class="stack"><h2>About you</h2>${formError()}
          ${field({ name: "name", label: "Name", value: user.name, required: true, maxlength: 160, autocomplete: "nickname" })}
          ${field({ name: "bio", label: "About", value: user.bio, rows: 5, maxlength: 5000, placeholder: "What you draw, which models you like, where else you can be found." })}
          <div class="row between"><span class="hint">${user.email}</span><button class="btn primary" type="submit">Save</button></div></form></section>
        <section class="card stack"><h2>What you see</h2>
          <label class="switch"><input type="checkbox" data-adult ${raw(user.shows_adult ? "checked" : "")} /><span class="grow"><b>Show adult pictures and models</b><span class="hint" style="${raw("display:block")}">Off by default. Others are not affected.</span></span></label>
          <div class="row between"><span><b>Appearance</b><span class="hint" style="${raw("display:block")}">Kept in this browser.</span></span>
          <div class="segmented" role="group" aria-label="Theme"><button type="button" data-theme-pick="dark">${icon("moon", { size: 16 })}Dark</button><button type="button" data-theme-pick="light">${icon("sun", { size: 16 })}Light</button></div></div></section>
      </div>`,
    );
    this.#marks();
    bindForm(panel.querySelector("form"), async ({ name, bio }) => {
      await api("/api/users/me", { method: "PATCH", json: { name, bio } });
      await this.#refresh();
      toast("Saved", "ok");
    });
    panel.querySelector("[data-adult]").addEventListener("change", (event) => this.#adult(event.target));
    panel.querySelector("[data-avatar]").addEventListener("change", (event) => this.#setAvatar(panel, event.target));
    panel.querySelector("[data-remove]").addEventListener("click", () => this.#removeAvatar(panel));
    panel.addEventListener("click", (event) => {
      const pick = event.target.closest("[data-theme-pick]");
      if (pick) setTheme(pick.dataset.themePick);
    });
  }

  #marks() {
    for (const button of this.querySelectorAll("[data-theme-pick]")) button.setAttribute("aria-pressed", String(button.dataset.themePick === theme()));
  }

  async #adult(input) {
    try {
      await api("/api/users/me", { method: "PATCH", json: { shows_adult: input.checked } });
      await this.#refresh();
    } catch (error) {
      input.checked = !input.checked;
      toastError(error);
    }
  }

  async #setAvatar(panel, input) {
    const [file] = input.files;
    input.value = "";
    if (!file) return;
    const form = new FormData();
    form.append("file", file);
    try {
      await api("/api/users/me/avatar", { method: "PUT", form });
      await this.#refresh();
      this.#face(panel);
    } catch (error) {
      toastError(error);
    }
  }

  async #removeAvatar(panel) {
    try {
      await api("/api/users/me/avatar", { method: "DELETE" });
      await this.#refresh();
      this.#face(panel);
    } catch (error) {
      toastError(error);
    }
  }

  #face(panel) {
    render(panel.querySelector("[data-face]"), avatar(this.now.user, 112));
    panel.querySelector("[data-remove]").hidden = !this.now.user.avatar_url;
  }

  /* ---- security */

  async #security(panel, signal) {
    const answer = await api("/api/auth/sessions", { signal }).catch((error) => error);
    if (signal.aborted) return;
    const sessions = answer.items ?? [];
    render(
      panel,
      html`<div class="account-grid two">
        <section class="card"><form class="stack"><h2>Password</h2><p class="muted small">Changing it ends every other session.</p>${formError()}
          <input type="email" name="username" autocomplete="username" value="${this.now.user.email}" hidden />
          ${field({ name: "current_password", label: "Current password", type: "password", autocomplete: "current-password", required: true, maxlength: 1024 })}
          ${field({ name: "new_password", label: "New password", type: "password", autocomplete: "new-password", required: true, minlength: 8, maxlength: 1024, hint: "At least 8 characters; a few words are better than one." })}
          <div class="row end"><button class="btn primary" type="submit">Change password</button></div></form></section>
        <section class="card"><div class="row between"><h2>Sessions</h2>${sessions.length > 1 && html`<button type="button" class="btn ghost small" data-end-all>Sign out everywhere else</button>`}</div>
          ${answer instanceof Error ? html`<p class="muted">The list of sessions could not be loaded.</p>` : html`<ul class="lines">${sessions.map((one) => html`<li data-key="${one.id}">${icon(/Mobile|Android|iPhone/.test(one.user_agent) ? "device" : "globe")}<span class="grow"><b>${browserName(one.user_agent)}</b> ${one.current && html`<span class="badge ok">This one</span>`}<small class="faint">${one.address} · ${one.current ? "now" : timeAgo(one.last_seen_at)}</small></span>${!one.current && html`<button type="button" class="btn ghost small" data-end="${one.id}">End</button>`}</li>`)}</ul>`}</section>
      </div>`,
    );
    bindForm(panel.querySelector("form"), async ({ current_password, new_password }, form) => {
      await api("/api/users/me/password", { method: "PUT", json: { current_password, new_password } });
      form.reset();
      toast("Password changed. Other sessions have ended.", "ok");
      this.reload();
    });
    panel.addEventListener("click", async (event) => {
      const one = event.target.closest("[data-end]");
      const all = event.target.closest("[data-end-all]");
      if (!one && !all) return;
      try {
        await api(one ? `/api/auth/sessions/${encodeURIComponent(one.dataset.end)}` : "/api/auth/sessions", { method: "DELETE" });
        this.reload();
      } catch (error) {
        toastError(error);
      }
    });
  }

  /* ---- tokens */

  async #tokens(panel, signal) {
    const answer = await api("/api/auth/tokens", { signal }).catch((error) => error);
    if (signal.aborted) return;
    if (answer instanceof Error) {
      render(panel, errorState(answer));
      panel.querySelector("[data-retry]").addEventListener("click", () => this.reload());
      return;
    }
    render(
      panel,
      html`<section class="card"><div class="row between"><div><h2>API tokens</h2><p class="muted small">For scripts and other programs. Send one as ${raw("<code>Authorization: Bearer …</code>")}; the reference is at <a href="/docs" target="_blank" rel="noopener">/docs</a>.</p></div>
        <button type="button" class="btn primary" data-new>${icon("plus")}New token</button></div>
        ${answer.items.length === 0 ? html`<p class="faint lines-none">No tokens yet.</p>` : html`<ul class="lines">${answer.items.map((token) => html`<li data-key="${token.id}">${icon("key")}<span class="grow"><b>${token.name}</b><span class="row tight">${token.scopes.map((scope) => html`<span class="badge">${scope}</span>`)}</span><small class="faint">Made ${timeAgo(token.created_at)} · ${token.last_used_at ? `used ${timeAgo(token.last_used_at)}` : "never used"} · ${expiry(token)}</small></span><button type="button" class="btn ghost small" data-revoke="${token.id}" data-name="${token.name}">Revoke</button></li>`)}</ul>`}</section>`,
    );
    panel.addEventListener("click", (event) => {
      if (event.target.closest("[data-new]")) this.#newToken();
      const revoke = event.target.closest("[data-revoke]");
      if (revoke) this.#revoke(revoke.dataset);
    });
  }

  #newToken() {
    const { el, close } = openDialog({
      title: "New API token",
      body: html`<form class="stack">${formError()}
        ${field({ name: "name", label: "Name", required: true, maxlength: 80, placeholder: "Nightly upload", autofocus: true })}
        <fieldset class="field"><span class="label">It may</span><div class="stack tight" data-error-for="scopes">${SCOPES.map(([key, label, text]) => html`<label class="check"><input type="checkbox" name="scopes" value="${key}" ${raw(key === "read" ? "checked" : "")} /><span><b>${label}</b> <span class="faint small">${text}</span></span></label>`)}</div><span class="error" data-error="scopes"></span></fieldset>
        ${field({ name: "expires", label: "It ends after", options: EXPIRY, value: "90" })}
        <div class="row end"><button type="button" class="btn" data-close>Cancel</button><button class="btn primary" type="submit">Make token</button></div></form>`,
    });
    bindForm(el.querySelector("form"), async ({ name, expires }, form) => {
      const scopes = new FormData(form).getAll("scopes");
      const made = await api("/api/auth/tokens", { json: { name, scopes, expires_in_days: expires ? Number(expires) : null } });
      close();
      this.reload();
      const shown = openDialog({
        title: "Copy it now",
        body: html`<div class="stack"><p class="muted">This token is shown only this once. Whoever has it acts as you, within its scopes.</p><div class="secret"><code>${made.token}</code><button type="button" class="btn small" data-copy>${icon("copy")}Copy</button></div></div>`,
        footer: html`<button type="button" class="btn primary" data-close>Done</button>`,
      });
      shown.el.querySelector("[data-copy]").addEventListener("click", () => copyText(made.token, "Token copied"));
    });
  }

  async #revoke({ revoke, name }) {
    if (!(await confirmDialog({ title: "Revoke this token?", text: `Programs that use “${name}” stop working at once.`, confirm: "Revoke", danger: true }))) return;
    try {
      await api(`/api/auth/tokens/${encodeURIComponent(revoke)}`, { method: "DELETE" });
      this.reload();
    } catch (error) {
      toastError(error);
    }
  }
}

function expiry(token) {
  if (!token.expires_at) return "does not end";
  return Date.parse(token.expires_at) < Date.now() ? "ended" : `ends ${formatDate(token.expires_at)}`;
}

function browserName(agent) {
  const system = [["Android", /Android/], ["iPhone", /iPhone|iPad/], ["Windows", /Windows/], ["Mac", /Mac OS/], ["Linux", /Linux/]].find(([, test]) => test.test(agent))?.[0];
  const browser = [["Edge", /Edg\//], ["Firefox", /Firefox\//], ["Chrome", /Chrome\//], ["Safari", /Safari\//]].find(([, test]) => test.test(agent))?.[0];
  return [browser || agent.split("/")[0].slice(0, 40) || "Program", system].filter(Boolean).join(" on ");
}

define("vs-page-account", Account);
