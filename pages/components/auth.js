/** Log in, register, first administrator: a form beside the newest public pictures. */
import { View, api, define, emptyState, html, icon, loginUrl, nextPath, query, render, session } from "./core.js";
import { bindForm, field, formError } from "./forms.js";

const passwordField = (label = "Password", autocomplete = "current-password", hint) => field({ name: "password", label, type: "password", autocomplete, required: true, maxlength: 1024, minlength: autocomplete === "new-password" ? 8 : undefined, hint });
const emailField = (autofocus = true) => field({ name: "email", label: "E-mail", type: "email", autocomplete: "username", required: true, maxlength: 254, autofocus });
const nameField = () => field({ name: "name", label: "Name", autocomplete: "nickname", required: true, maxlength: 160, hint: "What others see beside your pictures." });

class Auth extends View {
  async start() {
    render(this, html`<div class="auth"><section class="auth-form"></section><aside class="auth-art" aria-hidden="true"></aside></div>`);
    this.box = this.querySelector(".auth-form");
    this.#paint();
    const now = await session();
    if (this.isConnected) this.draw(now);
  }

  /** The newest public pictures; a quiet gradient where there are none. */
  async #paint() {
    const answer = await api("/api/images", { query: { limit: 12, sort: "newest" }, signal: this.signal }).catch(() => ({ items: [] }));
    // Whole rows of three.
    const shown = answer.items.slice(0, answer.items.length - (answer.items.length % 3));
    if (shown.length >= 6) render(this.querySelector(".auth-art"), html`${shown.map((item) => html`<img src="${item.thumb?.small}" alt="" decoding="async" />`)}`);
  }

  form(template, send) {
    render(this.box, template);
    const form = this.box.querySelector("form");
    bindForm(form, send);
    form.querySelector("[autofocus]")?.focus();
  }

  /** Load the page anew, so that nothing of a guest's view stays. */
  enter(path) {
    location.assign(path);
  }
}

class Login extends Auth {
  draw(now) {
    if (now.user) return this.enter(nextPath());
    const next = query().get("next");
    return this.form(
      html`<form><h1>Log in</h1><p class="muted">${now.registration === "open" ? html`New here? <a href="/register${next ? `?next=${encodeURIComponent(next)}` : ""}">Make an account</a>.` : "Accounts are made by the administrators of this site."}</p>
        ${formError()}${emailField()}${passwordField()}
        <button class="btn primary large block" type="submit">Log in</button></form>`,
      async ({ email, password }) => {
        await api("/api/auth/login", { json: { email, password } });
        this.enter(nextPath());
      },
    );
  }
}

class Register extends Auth {
  draw(now) {
    if (now.user) return this.enter(nextPath());
    if (now.registration !== "open")
      return render(this.box, emptyState({ icon: "lock", title: "Registration is closed", text: "Ask an administrator of this site for an account. Everything public can be seen without one.", actions: html`<a class="btn primary" href="/images">Browse images</a><a class="btn" href="/login">Log in</a>` }));
    return this.form(
      html`<form><h1>Make an account</h1><p class="muted">Already have one? <a href="${loginUrl()}">Log in</a>.</p>
        ${formError()}${nameField()}${emailField(false)}${passwordField("Password", "new-password", "At least 8 characters; a few words are better than one.")}
        <button class="btn primary large block" type="submit">Register</button></form>`,
      async (person) => {
        await api("/api/auth/register", { json: person });
        this.enter(nextPath());
      },
    );
  }
}

class Setup extends Auth {
  draw() {
    const token = query().get("token");
    if (!token)
      return render(this.box, emptyState({ icon: "key", title: "This link is not complete", text: "Open the address that the server printed when it first started; it carries a one-time token.", actions: html`<a class="btn" href="/">Go home</a>` }));
    return this.form(
      html`<form><span class="badge accent">${icon("key", { size: 13 })}First start</span><h1>Welcome to your VisionSuit</h1>
        <p class="muted">This account owns the site: it may do everything and name other administrators. The link works once.</p>
        ${formError()}${nameField()}${emailField(false)}${passwordField("Password", "new-password", "At least 8 characters; a few words are better than one.")}
        <button class="btn primary large block" type="submit">Make the owner's account</button></form>`,
      async (person) => {
        await api("/api/auth/setup", { json: { ...person, token } });
        this.enter("/");
      },
    );
  }
}

define("vs-page-login", Login);
define("vs-page-register", Register);
define("vs-page-setup", Setup);
