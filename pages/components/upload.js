/** Upload: who may, and which of the two wizards. */
import { View, define, emptyState, html, icon, loginUrl, may, navigate, query, render, session } from "./core.js";
import "./upload_images.js";
import "./upload_model.js";

const KINDS = [["model", "A model", "model"], ["images", "Pictures", "images"]];

class Upload extends View {
  async start() {
    const now = await session();
    if (!this.isConnected) return;
    if (!now.user) {
      render(this, emptyState({ icon: "upload", title: "Log in to upload", text: "Models and pictures belong to somebody: you.", actions: html`<a class="btn primary" href="${loginUrl()}">Log in</a>${now.registration === "open" && html`<a class="btn" href="/register">Register</a>`}` }));
      return;
    }
    if (!may(now, "assets:upload")) {
      render(this, emptyState({ icon: "lock", title: "Uploading is for curators", text: "Ask an administrator of this site to make you a curator; your account stays as it is. Pictures that you render here can be kept in your own galleries without that.", actions: html`${now.may_generate && html`<a class="btn primary" href="/generate">${icon("generate")}Render a picture</a>`}<a class="btn" href="/models">Browse models</a>` }));
      return;
    }
    this.on("click", "[data-kind]", (event, button) => navigate(`/upload?kind=${button.dataset.kind}`, { replace: true, scroll: false }));
    this.listen(window, "vs:navigate", () => location.pathname === "/upload" && this.#show());
    this.#show();
  }

  restart() {
    this.kind = null;
    this.#show();
  }

  #show() {
    const kind = query().get("kind") === "images" || query().has("gallery") ? "images" : "model";
    if (kind === this.kind) return;
    this.kind = kind;
    render(
      this,
      html`<div class="upload"><header class="page-head"><h1>Upload</h1><div class="segmented" role="group" aria-label="What to upload">${KINDS.map(([key, label, picture]) => html`<button type="button" data-kind="${key}" aria-pressed="${String(key === kind)}">${icon(picture, { size: 17 })}${label}</button>`)}</div></header><div data-wizard data-keep></div></div>`,
    );
    this.querySelector("[data-wizard]").replaceChildren(document.createElement(`vs-upload-${kind}`));
  }
}

define("vs-page-upload", Upload);
