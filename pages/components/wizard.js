/**
 * Three steps with a memory: what is typed stays through a reload, an error, and a way back. Subclasses give `key`,
 * `steps` and the content of each step.
 */
import { View, html, icon, render, store } from "./core.js";
import { showError, clearErrors } from "./forms.js";

export class Wizard extends View {
  step = 0;
  busy = false;

  /** @param {string} key of the memory @param {object} blank a draft with nothing typed */
  begin(key, blank) {
    this.key = `upload:${key}`;
    this.blank = blank;
    this.draft = { ...blank, ...store.get(this.key, {}, sessionStorage) };
    render(this, html`<div class="wizard"><ol class="wizard-steps" data-steps></ol><form class="wizard-panel" novalidate><div data-content></div><footer class="wizard-foot" data-foot></footer></form></div>`);
    this.form = this.querySelector("form");
    this.content = this.querySelector("[data-content]");
    this.listen(this.form, "input", (event) => this.#remember(event.target));
    this.listen(this.form, "change", (event) => this.#remember(event.target));
    this.listen(this.form, "submit", (event) => {
      event.preventDefault();
      if (this.step < 2) this.go(this.step + 1);
    });
    this.on("click", "[data-go]", (event, button) => this.go(Number(button.dataset.go)));
    this.on("click", "[data-publish]", () => this.publish());
    this.listen(window, "beforeunload", (event) => this.busy && event.preventDefault());
    this.go(0);
  }

  #remember(input) {
    if (!input.name && input.nodeName !== "VS-TAG-INPUT") return;
    if (input.nodeName === "VS-TAG-INPUT") this.draft.tags = input.value;
    else if (input.type === "file") return;
    else this.draft[input.name] = input.type === "checkbox" ? input.checked : input.value;
    this.save();
    this.changed?.(input.name || "tags");
  }

  save() {
    store.set(this.key, this.draft, sessionStorage);
  }

  forget() {
    this.draft = { ...this.blank };
    store.set(this.key, null, sessionStorage);
  }

  /** Forward only past what is complete: `problem(step)` gives null or an Error with `field`. */
  go(step) {
    if (this.busy) return;
    for (let before = 0; before < step; before++) {
      const problem = this.problem(before);
      if (!problem) continue;
      if (this.step !== before) this.#open(before);
      clearErrors(this.form);
      showError(this.form, problem);
      return;
    }
    this.#open(step);
  }

  #open(step) {
    this.step = step;
    render(this.content, html``);
    [this.details, this.files, this.review][step].call(this, this.content);
    this.frame();
    if (step > 0) this.content.querySelector("h2")?.focus?.();
    scrollTo({ top: 0 });
  }

  frame() {
    render(
      this.querySelector("[data-steps]"),
      html`${["Details", "Files", "Review"].map((label, i) => html`<li data-key="${i}"><button type="button" data-go="${i}" ${i === this.step ? CURRENT : ""} class="${i < this.step ? "done" : ""}"><i>${i < this.step ? icon("check", { size: 15 }) : i + 1}</i>${label}</button></li>`)}`,
    );
    render(
      this.querySelector("[data-foot]"),
      html`${this.step > 0 ? html`<button type="button" class="btn" data-key="back" data-go="${this.step - 1}">${icon("arrow-left")}Back</button>` : html`<span data-key="none"></span>`}
        ${this.step < 2 ? html`<button type="submit" class="btn primary" data-key="next">Continue${icon("arrow-right")}</button>` : html`<button type="button" class="btn primary large" data-key="publish" data-publish>${icon("upload")}${this.publishLabel()}</button>`}`,
    );
    for (const button of this.querySelectorAll("[data-foot] .btn, [data-steps] button")) button.disabled = this.busy;
  }
}

const CURRENT = html`aria-current="step"`;

/**
 * A place to drop files on or to choose them. @param {{name: string, title: string, text: string, accept: string, multiple?: boolean, picture?: string}} options
 */
export function dropZone({ name, title, text, accept, multiple = false, picture = "upload" }) {
  return html`<label class="drop" data-drop="${name}">${icon(picture, { size: 30 })}<b>${title}</b><span class="muted small">${text}</span><span class="btn small">Choose ${multiple ? "files" : "a file"}</span>
    <input class="offscreen" type="file" accept="${accept}" data-pick="${name}" ${multiple ? html`multiple` : ""} /></label>`;
}

/** Files dropped on or chosen in the zones of `view` go to `take(files, zoneName)`; elsewhere a drop does nothing. */
export function listenForFiles(view, take) {
  view.on("change", "[data-pick]", (event, input) => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files, input.dataset.pick);
  });
  const zoneOf = (event) => (event.target instanceof Element ? event.target.closest("[data-drop]") : null);
  view.listen(window, "dragover", (event) => {
    event.preventDefault();
    const zone = zoneOf(event);
    for (const other of view.querySelectorAll("[data-drop]")) other.classList.toggle("over", other === zone);
  });
  view.listen(window, "dragleave", (event) => event.relatedTarget || view.querySelectorAll("[data-drop]").forEach((zone) => zone.classList.remove("over")));
  view.listen(window, "drop", (event) => {
    event.preventDefault();
    view.querySelectorAll("[data-drop]").forEach((zone) => zone.classList.remove("over"));
    const files = [...(event.dataTransfer?.files ?? [])];
    const zones = view.querySelectorAll("[data-drop]");
    const zone = zoneOf(event) ?? (zones.length === 1 ? zones[0] : null);
    if (files.length && zone) take(files, zone.dataset.drop);
  });
}

/** The part of both wizards' first step that says who sees it. */
export function audience(draft) {
  const choices = [["private", "lock", "Private", "Only you and administrators"], ["unlisted", "link", "Unlisted", "Whoever has the address"], ["public", "globe", "Public", "Everybody, also in search"]];
  return html`<fieldset class="field"><span class="label">Who sees it</span><div class="audience">${choices.map(([key, picture, label, text]) => html`<label class="role"><input type="radio" name="visibility" value="${key}" ${draft.visibility === key ? html`checked` : ""} /><span><b>${icon(picture, { size: 16 })} ${label}</b><small class="faint">${text}</small></span></label>`)}</div></fieldset>
    <label class="switch"><input type="checkbox" name="adult" ${draft.adult ? html`checked` : ""} /><span>Adult content<span class="hint as-line">Shown only to people who switched it on.</span></span></label>`;
}
