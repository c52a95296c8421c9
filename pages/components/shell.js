/**
 * The frame around every view: navigation by role, service badges, account menu, search, moves between pages.
 * It stands in the document before Gradio's own scripts run, so a page is there as soon as this module is.
 */
import { View, api, avatar, debounce, define, emptyState, hasRole, html, icon, loginUrl, may, navigate, openDialog, raw, render, session, setTheme, theme, toastError } from "./core.js";

const TITLES = JSON.parse(document.getElementById("vs-pages")?.textContent || "{}");
const STATUS_EVERY_MS = 60_000;
const TROUBLED_EVERY_MS = 5_000;

/** Links of the navigation; `shown` decides from the session. Order is the order on screen. */
const LINKS = [
  { path: "/", label: "Home", icon: "home" },
  { path: "/models", label: "Models", icon: "model" },
  { path: "/images", label: "Images", icon: "image" },
  { path: "/galleries", label: "Galleries", icon: "gallery" },
  { path: "/generate", label: "Generate", icon: "generate", group: true },
  { path: "/history", label: "History", icon: "history", shown: (now) => now.user },
  { path: "/upload", label: "Upload", icon: "upload", shown: (now) => may(now, "assets:upload") || hasRole(now, "CURATOR") },
  { path: "/admin", label: "Admin", icon: "admin", shown: (now) => hasRole(now, "ADMIN") },
];
/** What fits into the bar of a phone; the rest is in its "More" sheet. */
const PHONE = ["/", "/models", "/images", "/generate"];
const KINDS = [["models", "Models", "model"], ["images", "Images", "image"], ["galleries", "Galleries", "gallery"]];

const viewName = (path) => (path === "/" ? "home" : path.slice(1).replace(/\/$/, ""));
const isPlainClick = (event) => event.button === 0 && !event.defaultPrevented && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);

class Shell extends View {
  #now = null;
  #status = null;
  #path = null;

  start() {
    window.vsShell = this;
    this.#frame();
    this.#show();
    this.listen(window, "popstate", () => window.dispatchEvent(new CustomEvent("vs:navigate", { detail: { url: location.href, back: true } })));
    this.listen(window, "vs:navigate", () => this.#show());
    this.listen(window, "vs:session", (event) => this.#accept(event.detail));
    this.listen(window, "vs:theme", () => this.#draw());
    this.listen(document, "click", (event) => this.#follow(event));
    this.listen(document, "keydown", (event) => this.#key(event));
    this.on("click", "[data-run]", (event, button) => this[button.dataset.run]?.(button));
    session().then((now) => this.#accept(now));
    this.#watchStatus();
  }

  #frame() {
    render(
      this,
      html`<a class="skip" href="#view">Skip to content</a>
        <header class="topbar" data-part="topbar"></header>
        <nav class="sidebar" data-part="sidebar" aria-label="Main"></nav>
        <main id="view" class="view" tabindex="-1" data-keep></main>
        <nav class="tabbar" data-part="tabbar" aria-label="Main"></nav>`,
    );
    this.#draw();
  }

  #accept(now) {
    this.#now = now;
    this.#title();
    this.#draw();
  }

  /** The view of the address: swapped when the page changes, left alone when only its query does. */
  #show() {
    const path = location.pathname.replace(/(.)\/$/, "$1");
    if (path === this.#path) return;
    this.#path = path;
    const tag = `vs-page-${viewName(path)}`;
    const main = this.querySelector("#view");
    const known = /^vs-page-[a-z]+$/.test(tag) && customElements.get(tag);
    this.#title();
    this.#draw();
    if (known) main.replaceChildren(document.createElement(tag));
    else render(main, missing());
    document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  }

  #title() {
    const site = this.#now?.site_title || document.title.split(" · ").pop() || "VisionSuit";
    const title = TITLES[this.#path] ?? "Not found";
    document.title = this.#path === "/" ? site : `${title} · ${site}`;
  }

  /** Links of this site change the view without loading the page anew. */
  #follow(event) {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link || !isPlainClick(event) || link.target || link.hasAttribute("download")) return;
    const target = new URL(link.href, location.href);
    if (target.origin !== location.origin || !(target.pathname in TITLES) || (target.hash && target.pathname === location.pathname)) return;
    event.preventDefault();
    link.closest("[popover]")?.hidePopover();
    link.closest("dialog")?.close();
    navigate(target.href);
  }

  #key(event) {
    const typing = event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable=true]");
    const palette = (event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey);
    if (!palette || event.defaultPrevented || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    this.search();
  }

  #links() {
    const now = this.#now;
    return LINKS.filter((link) => link.path in TITLES && (!link.shown || (now && link.shown(now))));
  }

  #draw() {
    const now = this.#now;
    const links = this.#links();
    const current = (link) => raw(link.path === this.#path ? 'aria-current="page"' : "");
    const item = (link) => html`<a class="nav-link" data-key="${link.path}" href="${link.path}" ${current(link)}>${icon(link.icon)}<span>${link.label}</span></a>`;
    const brand = html`<a class="brand" href="/" aria-label="${now?.site_title || "VisionSuit"}, home"><i class="logo" aria-hidden="true"></i><span class="ellipsis">${now?.site_title || "VisionSuit"}</span></a>`;
    const main = links.filter((link) => ["/", "/models", "/images", "/galleries"].includes(link.path));
    const work = links.filter((link) => !main.includes(link));
    const part = (name, template) => render(this.querySelector(`[data-part=${name}]`), template);

    part("sidebar", html`
      ${brand}
      <button type="button" class="nav-search" data-run="search" aria-label="Search everything">${icon("search", { size: 18 })}<span>Search</span><kbd>/</kbd></button>
      <div class="nav-group">${main.map(item)}</div>
      <div class="nav-group">${work.map(item)}</div>
      <div class="nav-space"></div>
      ${this.#badges()}
      ${this.#account()}`);
    part("topbar", html`${brand}<span class="grow"></span>
      <button type="button" class="btn ghost icon-only" data-run="search" aria-label="Search everything">${icon("search")}</button>
      ${now && !now.user && html`<a class="btn small primary" href="${this.#path === "/login" ? "/login" : loginUrl()}">Log in</a>`}
      ${now?.user && html`<button type="button" class="account-round" data-run="menu" aria-label="Account of ${now.user.name}" aria-haspopup="menu">${avatar(now.user, 34)}</button>`}`);
    part("tabbar", html`${links.filter((link) => PHONE.includes(link.path)).map(item)}
      <button type="button" class="nav-link" data-run="more" aria-haspopup="dialog">${icon("menu")}<span>More</span></button>`);
  }

  #badges() {
    const names = [["web", "Web", "web"], ["database", "Data", "database"], ["storage", "Files", "storage"], ["engine", "Engine", "cpu"]];
    return html`<div class="services" role="group" aria-label="Services">${names.map(([key, label, picture]) => {
      const part = this.#status?.[key];
      const state = part?.state || "unknown";
      const words = { ok: "working", starting: "starting", degraded: "degraded", down: "not working", unknown: "not known yet" }[state] || state;
      return html`<span class="service" data-key="${key}" tabindex="0" aria-label="${label}: ${words}${part?.detail ? `. ${part.detail}` : ""}">${icon(picture, { size: 15 })}<i class="led" data-state="${state}"></i><span class="service-tip" role="tooltip"><b>${label}: ${words}</b>${part?.detail}</span></span>`;
    })}</div>`;
  }

  #account() {
    const now = this.#now;
    if (!now) return html`<div class="account is-waiting" aria-hidden="true"></div>`;
    if (!now.user)
      return html`<div class="account-guest">
        <a class="btn primary small block" href="${this.#path === "/login" || this.#path === "/register" ? "/login" : loginUrl()}">Log in</a>
        ${now.registration === "open" && html`<a class="btn small block" href="/register">Register</a>`}
        <button type="button" class="btn ghost small icon-only" data-run="switchTheme" aria-label="${theme() === "dark" ? "Light" : "Dark"} theme">${icon(theme() === "dark" ? "sun" : "moon")}</button>
      </div>`;
    return html`<button type="button" class="account" data-run="menu" aria-haspopup="menu">
      ${avatar(now.user, 36)}<span class="grow"><b class="ellipsis">${now.user.name}</b><small>${ROLE_NAMES[now.user.role] || now.user.role}</small></span>${icon("chevron-up", { size: 16 })}
    </button>`;
  }

  /* ---- what buttons run */

  menu(button) {
    document.querySelector(".menu.account-menu")?.remove();
    const menu = document.createElement("div");
    menu.className = "menu account-menu";
    menu.popover = "auto";
    menu.setAttribute("role", "menu");
    render(menu, html`
      <a role="menuitem" href="/account">${icon("user")}Account</a>
      <a role="menuitem" href="/account?tab=security">${icon("key")}Security and tokens</a>
      <button role="menuitem" type="button" data-pick="theme">${icon(theme() === "dark" ? "sun" : "moon")}${theme() === "dark" ? "Light" : "Dark"} theme</button>
      <hr />
      <button role="menuitem" type="button" data-pick="logout">${icon("logout")}Log out</button>`);
    this.append(menu);
    menu.showPopover();
    const from = button.getBoundingClientRect();
    const box = menu.getBoundingClientRect();
    const below = from.top < innerHeight / 2;
    menu.style.left = `${Math.max(8, Math.min(from.left, innerWidth - box.width - 8))}px`;
    menu.style.top = below ? `${from.bottom + 8}px` : `${from.top - box.height - 8}px`;
    menu.addEventListener("toggle", (event) => event.newState === "closed" && menu.remove());
    menu.addEventListener("click", (event) => {
      const pick = event.target.closest("[data-pick]")?.dataset.pick;
      if (pick) menu.hidePopover();
      if (pick === "theme") this.switchTheme();
      if (pick === "logout") this.logout();
    });
    menu.addEventListener("keydown", (event) => {
      if (!["ArrowDown", "ArrowUp"].includes(event.key)) return;
      event.preventDefault();
      const items = [...menu.querySelectorAll("[role=menuitem]")];
      const next = items.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
      items.at(next % items.length).focus();
    });
    menu.querySelector("[role=menuitem]").focus();
  }

  switchTheme() {
    setTheme(theme() === "dark" ? "light" : "dark");
  }

  async logout() {
    try {
      await api("/api/auth/logout", { method: "POST" });
      // Everything on screen was this person's: start anew.
      location.assign("/");
    } catch (error) {
      toastError(error);
    }
  }

  more() {
    const links = this.#links().filter((link) => !PHONE.includes(link.path));
    const user = this.#now?.user;
    const { el, close } = openDialog({
      title: "More",
      className: "sheet",
      body: html`<div class="sheet-links">
        ${links.map((link) => html`<a class="nav-link" href="${link.path}">${icon(link.icon)}<span>${link.label}</span></a>`)}
        ${user ? html`<a class="nav-link" href="/account">${icon("user")}<span>Account</span></a>` : html`<a class="nav-link" href="${loginUrl()}">${icon("login")}<span>Log in</span></a>`}
        <button type="button" class="nav-link" data-pick="theme">${icon(theme() === "dark" ? "sun" : "moon")}<span>${theme() === "dark" ? "Light" : "Dark"} theme</span></button>
        ${user && html`<button type="button" class="nav-link" data-pick="logout">${icon("logout")}<span>Log out</span></button>`}
      </div>${this.#badges()}`,
    });
    el.addEventListener("click", (event) => {
      const pick = event.target.closest("[data-pick]")?.dataset.pick;
      if (!pick) return;
      close();
      if (pick === "theme") this.switchTheme();
      if (pick === "logout") this.logout();
    });
  }

  /** One box over everything: a few hits of each kind while typing, Enter goes to the list. */
  search() {
    const { el, close } = openDialog({
      label: "Search everything",
      className: "palette",
      body: html`<label class="palette-box">${icon("search")}<span class="offscreen">Search everything</span><input type="search" placeholder="Search models, images, galleries" autocomplete="off" spellcheck="false" maxlength="200" autofocus /></label><div class="palette-hits" data-hits></div>`,
    });
    const input = el.querySelector("input");
    const hits = el.querySelector("[data-hits]");
    let asking = null;
    const section = KINDS.find(([path]) => location.pathname === `/${path}`)?.[0] || "images";
    const ask = debounce(async () => {
      asking?.abort();
      const text = input.value.trim();
      if (!text) return render(hits, html``);
      asking = new AbortController();
      const { signal } = asking;
      const answers = await Promise.all(KINDS.map(([path]) => api(`/api/${path}`, { query: { q: text, limit: 4 }, signal }).catch(() => ({ items: [] }))));
      if (signal.aborted) return undefined;
      return render(hits, hitList(text, answers));
    }, 160);
    input.addEventListener("input", ask);
    el.addEventListener("keydown", (event) => {
      const rows = [...hits.querySelectorAll("a")];
      const at = rows.indexOf(document.activeElement);
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        (rows[at + (event.key === "ArrowDown" ? 1 : -1)] || input).focus();
      } else if (event.key === "Enter" && document.activeElement === input && input.value.trim()) {
        event.preventDefault();
        close();
        navigate(`/${section}?q=${encodeURIComponent(input.value.trim())}`);
      }
    });
  }

  /* ---- services */

  async #watchStatus() {
    let timer = 0;
    const ask = async () => {
      clearTimeout(timer);
      if (document.hidden) return; // asked when it is looked at again
      try {
        this.#status = await api("/api/meta/status", { signal: this.signal });
      } catch (error) {
        if (error.name === "AbortError") return;
        this.#status = error.code === "offline" ? { web: { state: "down", detail: "The server does not answer." } } : null;
      }
      this.#draw();
      // What is not well may be so any moment.
      const well = Object.values(this.#status ?? {}).every((part) => part.state === "ok");
      timer = setTimeout(ask, well && this.#status ? STATUS_EVERY_MS : TROUBLED_EVERY_MS);
    };
    this.signal.addEventListener("abort", () => clearTimeout(timer));
    this.listen(document, "visibilitychange", ask);
    await ask();
  }
}

const ROLE_NAMES = { USER: "Member", CURATOR: "Curator", ADMIN: "Administrator", SUPERADMIN: "Owner" };

function hitList(text, answers) {
  const found = answers.some((answer) => answer.items.length);
  if (!found) return html`<p class="palette-none">Nothing matches “${text}”.</p>`;
  return html`${KINDS.map(([path, label, picture], i) => answers[i].items.length > 0 && html`<section data-key="${path}">
    <h3><a href="/${path}?q=${encodeURIComponent(text)}">${label}</a></h3>
    ${answers[i].items.map((item) => {
      const thumb = item.cover || item.thumb;
      return html`<a class="hit" data-key="${path + item.id}" href="/${path}?id=${encodeURIComponent(item.id)}">
        ${thumb ? html`<img src="${thumb.small}" alt="" width="44" height="44" decoding="async" />` : html`<span class="hit-blank">${icon(picture)}</span>`}
        <span class="grow"><b class="ellipsis">${item.title || "Untitled"}</b><small class="ellipsis">${item.owner?.name}</small></span></a>`;
    })}</section>`)}`;
}

function missing() {
  return emptyState({
    icon: "help",
    title: "There is no page here",
    text: "The address may be mistyped, or what was here has moved.",
    actions: html`<a class="btn primary" href="/">Go home</a><a class="btn" href="/images">Browse images</a>`,
  });
}

define("vs-shell", Shell);
