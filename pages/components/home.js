/** Home: what this place is, its newest pictures, models and galleries, and what to do on a fresh machine. */
import { View, api, define, errorState, formatNumber, hasRole, html, icon, may, navigate, raw, render, session } from "./core.js";
import { tileTemplate } from "./tile.js";

const ROWS = [
  { path: "models", title: "New models", limit: 5 },
  { path: "galleries", title: "New galleries", limit: 5 },
];
const SPOTLIGHT = 7;
const COUNTERS = [["images", "pictures"], ["models", "models"], ["galleries", "galleries"], ["generations", "renders"], ["members", "members"]];

class Home extends View {
  async start() {
    this.on("submit", "form", (event, form) => {
      event.preventDefault();
      const prompt = form.elements.prompt.value.trim();
      navigate(prompt ? `/generate?prompt=${encodeURIComponent(prompt)}` : "/generate");
    });
    this.on("click", "[data-retry]", () => this.#load());
    this.#draw({ waiting: true });
    await this.#load();
  }

  async #load() {
    const ask = (path, limit) => api(`/api/${path}`, { query: { sort: "newest", limit }, signal: this.signal });
    const [now, idea, stats, images, ...rows] = await Promise.all([
      session(),
      this.#suggest().catch(() => ""),
      api("/api/meta/stats", { signal: this.signal }).catch(() => null),
      ask("images", SPOTLIGHT).catch((error) => error),
      ...ROWS.map((row) => ask(row.path, row.limit).catch(() => ({ items: [] }))),
    ]);
    if (!this.isConnected || this.signal.aborted) return;
    this.#draw({ now, idea, stats, images, rows });
    this.#fadeIn();
  }

  /** A prompt that goes with what renders here; only for whoever may. */
  async #suggest() {
    if (!(await session()).may_generate) return "";
    const { items } = await api("/api/base-models", { signal: this.signal });
    return (items.find((one) => one.is_default) ?? items[0])?.suggestions[0] ?? "";
  }

  /** Pictures appear over their placeholder once they are here. */
  #fadeIn() {
    for (const picture of this.querySelectorAll(".vs-tile img")) {
      const tile = picture.closest(".vs-tile");
      if (picture.complete && picture.naturalWidth) tile.classList.add("is-loaded");
      else picture.addEventListener("load", () => tile.classList.add("is-loaded"), { once: true });
    }
  }

  #draw({ waiting, now, idea, stats, images, rows }) {
    if (waiting) {
      render(this, html`<div class="home"><div class="hero is-waiting"></div>${spotlight(Array.from({ length: SPOTLIGHT }, (_, i) => html`<div class="vs-tile vs-tile-skeleton" data-key="w${i}"></div>`))}</div>`);
      return;
    }
    if (images instanceof Error) {
      render(this, html`<div class="home">${hero(now, stats, idea)}${errorState(images)}</div>`);
      return;
    }
    const empty = !images.items.length && rows.every((row) => !row.items.length);
    render(
      this,
      html`<div class="home">
        ${hero(now, stats, idea)}
        ${empty ? firstSteps(now) : null}
        ${images.items.length > 0 && html`<section aria-labelledby="home-images"><header class="home-head"><h2 id="home-images">New pictures</h2><a href="/images">All images${icon("arrow-right", { size: 16 })}</a></header>${spotlight(images.items.map(tileTemplate))}</section>`}
        ${rows.map((row, i) => row.items.length > 0 && html`<section aria-labelledby="home-${ROWS[i].path}"><header class="home-head"><h2 id="home-${ROWS[i].path}">${ROWS[i].title}</h2><a href="/${ROWS[i].path}">All ${ROWS[i].path}${icon("arrow-right", { size: 16 })}</a></header><div class="vs-grid home-row">${row.items.map(tileTemplate)}</div></section>`)}
      </div>`,
    );
  }
}

const spotlight = (tiles) => html`<div class="vs-grid home-spotlight" data-count="${tiles.length}">${tiles}</div>`;

function hero(now, stats, idea) {
  return html`<section class="hero">${now.user ? welcome(now, idea) : invitation(now)}${counters(stats)}</section>`;
}

function invitation(now) {
  return html`<h1>Pictures made <em>here</em>,<br />on our own machine.</h1>
    <p>${now.site_title} is a library of LoRAs and pictures with the recipe of each, and a generator that mixes them. Look around; an account lets you download and render.</p>
    <div class="row">
      ${now.may_generate ? html`<a class="btn primary large" href="/generate">${icon("generate")}Start rendering</a>` : now.registration === "open" ? html`<a class="btn primary large" href="/register">Make an account</a>` : html`<a class="btn primary large" href="/login">Log in</a>`}
      <a class="btn large" href="/images">Browse images</a>
    </div>`;
}

function welcome(now, idea) {
  if (!now.may_generate)
    return html`<h1>Hello, ${now.user.name}</h1><div class="row"><a class="btn primary" href="/images">Browse images</a><a class="btn" href="/models">Browse models</a>${may(now, "assets:upload") && html`<a class="btn" href="/upload">${icon("upload")}Upload</a>`}</div>`;
  return html`<h1>What shall it be, ${now.user.name}?</h1>
    <form class="hero-prompt"><label class="offscreen" for="home-prompt">Prompt</label><input id="home-prompt" name="prompt" autocomplete="off" maxlength="4000" placeholder="${idea ? `Try “${idea}”` : "Say what you want to see"}" /><button class="btn primary" type="submit">${icon("generate")}<span>Render</span></button></form>`;
}

function counters(stats) {
  const shown = stats ? COUNTERS.filter(([key]) => stats[key] > (key === "members" ? 1 : 0)) : [];
  return shown.length > 0 && html`<dl class="counters">${shown.map(([key, label]) => html`<div data-key="${key}"><dd>${formatNumber(stats[key])}</dd><dt>${stats[key] === 1 ? label.replace(/s$/, "").replace(/ie$/, "y") : label}</dt></div>`)}</dl>`;
}

/** A fresh machine: the next steps of whoever looks. */
function firstSteps(now) {
  const admin = hasRole(now, "ADMIN");
  const steps = admin
    ? [
        ["generate", "Render the first picture", "A small base model comes with the app, so this works at once.", "/generate", "Open the generator"],
        ["upload", "Upload a LoRA", "Safetensors with a cover picture and its trigger word.", "/upload", "Upload"],
        ["users", "Invite people", "Make accounts, name curators, choose who may render.", "/admin", "Administration"],
      ]
    : now.user
      ? [
          now.may_generate && ["generate", "Render the first picture", "Write what you want to see, save the best ones to a gallery.", "/generate", "Open the generator"],
          may(now, "assets:upload") && ["upload", "Share a LoRA or pictures", "Recipes inside the files are found by themselves.", "/upload", "Upload"],
          ["user", "Make it yours", "Your name, a picture of you, light or dark.", "/account", "Account"],
        ].filter(Boolean)
      : [];
  if (!steps.length) return html`<div class="first"><p class="first-lead">Nothing has been shared here yet. Come back soon${now.registration === "open" ? html`, or <a href="/register">make an account</a> and be the first` : ""}.</p></div>`;
  return html`<section class="first" aria-label="First steps">
    <p class="first-lead">The library is empty. A good way to begin:</p>
    <div class="first-steps">${steps.map(([picture, title, text, path, label]) => html`<a class="first-step" data-key="${path}" href="${path}"><span class="empty-icon">${icon(picture, { size: 26 })}</span><b>${title}</b><span class="muted">${text}</span><span class="first-go">${label}${icon("arrow-right", { size: 16 })}</span></a>`)}</div>
    ${admin && html`<p class="hint">Rather see it filled first? ${raw("<code>visionsuit seed-demo</code>")} renders a demonstration library with the engine itself.</p>`}
  </section>`;
}

define("vs-page-home", Home);
