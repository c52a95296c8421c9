// "Start from a picture": which one, how much of it stays, a mask, and what is painted around it.
import { View, api, define, formatBytes, html, icon, render, session, toastError } from "./core.js";
import { SIDES, freshInit, isOutpainted, outpaintSize } from "./generate_modes.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
/** Longest side of what is sent: more than any base model draws from. */
const SIDE_MOST = 4096;
const RESIZES = [["crop", "Crop", "Fill the size, cut what stands over"], ["fit", "Fit", "Show all of it, extend its edges"], ["stretch", "Stretch", "Pull it to the size"]];
const SIDE_NAMES = { left: "Left", top: "Top", right: "Right", bottom: "Bottom" };

/**
 * `<vs-init-panel>`: set `value` (as `freshInit` makes it) and `canvas` ({width, height, step, most} of the render).
 * Events, bubbling: `init-changed` after each change (detail: {sized: true} if a new picture came).
 */
class InitPanel extends View {
  #value = freshInit();
  #canvas = { width: 512, height: 512, step: 8, most: 2048 };
  #open = false;
  #masks = true;
  #busy = "";
  #error = "";
  #over = false;

  start() {
    this.on("change", "input[type=file]", (event, field) => {
      const [file] = field.files;
      field.value = "";
      if (file) this.take(file);
    });
    this.on("click", "[data-choose]", () => this.#choose().catch(toastError));
    this.on("click", "[data-drop-source]", () => this.#set({ source: null, mask: null }));
    this.on("click", "[data-mask]", () => this.#mask().catch(toastError));
    this.on("click", "[data-unmask]", () => this.#set({ mask: null }));
    this.on("click", "[data-resize]", (event, button) => this.#set({ resize: button.dataset.resize }));
    this.on("input", "[data-init]", (event, field) => this.#number(field, false));
    this.on("change", "[data-init]", (event, field) => this.#number(field, true));
    this.on("click", "[data-no-outpaint]", () => this.#set({ outpaint: freshInit().outpaint }));
    // Files to work from are kept for a day; what a browser remembers may be older. Errors of pictures do not bubble.
    this.listen(this, "error", (event) => event.target.matches?.(".vs-init-preview img") && (this.error = "This picture is no longer here. Choose another one."), { capture: true });
    this.on("dragover", ".vs-init", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (!this.#over) this.#dragging(true);
    });
    this.on("dragleave", ".vs-init", (event, panel) => !panel.contains(event.relatedTarget) && this.#dragging(false));
    this.on("drop", ".vs-init", (event) => {
      event.preventDefault();
      this.#dragging(false);
      const file = [...event.dataTransfer.files].find((one) => one.type.startsWith("image/"));
      if (file) this.take(file);
    });
    this.listen(document, "paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((one) => TYPES.includes(one.type));
      if (file && !this.hidden && !document.querySelector("dialog[open]")) {
        event.preventDefault();
        this.take(file);
      }
    });
    this.listen(this, "toggle", (event) => event.target.matches(".vs-init") && (this.#open = event.target.open), { capture: true });
    this.#draw();
  }

  get value() {
    return this.#value;
  }
  set value(value) {
    if (value === this.#value) return;
    const other = value?.source?.id !== this.#value.source?.id;
    this.#value = value ?? freshInit();
    if (other && this.#value.source) this.#open = true;
    this.#error = "";
    this.#draw();
  }
  set canvas(canvas) {
    const same = Object.keys(canvas).every((name) => canvas[name] === this.#canvas[name]);
    this.#canvas = canvas;
    if (!same) this.#draw();
  }
  /** Whether a part of the picture can be painted anew, or what lies around it. */
  set masks(possible) {
    if (possible === this.#masks) return;
    this.#masks = possible;
    this.#draw();
  }
  set error(text) {
    this.#error = text;
    if (text) this.#open = true;
    this.#draw();
  }

  /** Start from this picture. @param {{kind, id, url, width, height}} source */
  begin(source) {
    this.#open = true;
    this.#set({ source, mask: null, outpaint: freshInit().outpaint }, true);
    this.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  /** Send a file and start from it. @param {File} file */
  async take(file) {
    this.#open = true;
    if (!TYPES.includes(file.type)) {
      this.error = "Only PNG, JPEG and WebP pictures can be used.";
      return;
    }
    this.#busy = "Sending the picture …";
    this.error = "";
    try {
      const limits = (await session()).limits ?? {};
      const sent = await smaller(file, limits.image_bytes ?? 10_000_000);
      const source = await this.#upload(sent, file.name);
      this.#busy = "";
      this.begin({ kind: "input", ...source });
    } catch (error) {
      this.#busy = "";
      if (error.name !== "AbortError") this.error = error.message ?? "The picture could not be read.";
    }
  }

  async #upload(blob, name) {
    const form = new FormData();
    form.append("file", blob, name);
    const { id, url, width, height } = await api("/api/generations/inputs", { form, signal: this.signal });
    return { id, url, width, height };
  }

  async #choose() {
    const { pickPicture } = await import("./picture_picker.js");
    const source = await pickPicture();
    if (source) this.begin(source);
  }

  async #mask() {
    const { source, mask } = this.#value;
    const { editMask } = await import("./mask_editor.js");
    const blob = await editMask({ url: source.url, width: source.width, height: source.height, mask: mask?.url });
    if (!blob) return;
    if (blob.isEmpty) {
      this.#set({ mask: null });
      return;
    }
    try {
      const { id, url } = await this.#upload(blob, "mask.png");
      this.#set({ mask: { id, url } });
    } catch (error) {
      toastError(error);
    }
  }

  #dragging(over) {
    this.#over = over;
    this.#draw();
  }

  #set(values, sized = false) {
    this.#value = { ...this.#value, ...values };
    this.#error = "";
    this.#draw();
    this.dispatchEvent(new CustomEvent("init-changed", { bubbles: true, detail: { sized } }));
  }

  #number(field, done) {
    if (field.type === "number" && !done) return;
    const name = field.dataset.init;
    const side = SIDES.includes(name);
    const before = side ? this.#value.outpaint[name] : this.#value[name];
    const number = Number.parseFloat(field.value);
    let value = Number.isFinite(number) ? Math.min(Number(field.max), Math.max(Number(field.min), number)) : before;
    if (side) value = Math.round(value / this.#canvas.step) * this.#canvas.step;
    this.#set(side ? { outpaint: { ...this.#value.outpaint, [name]: value } } : { [name]: value });
  }

  #draw() {
    if (!this.isConnected) return;
    const { source } = this.#value;
    render(
      this,
      html`<details class="vs-advanced vs-init ${this.#over ? "is-over" : ""}" ${this.#open ? html`open` : ""}>
        <summary>${icon("image", { size: 18 })}Start from a picture${source ? html`<small class="vs-fold-note">${this.#summary()}</small>` : ""}${icon("chevron-down", { size: 18 })}</summary>
        <div class="vs-advanced-body">${this.#busy ? html`<p class="vs-init-busy" role="status" data-key="busy"><span class="spinner"></span>${this.#busy}</p>` : source ? this.#chosen(source) : this.#empty()}
          <p class="error-text" role="alert" data-key="error" ${this.#error ? "" : html`hidden`}>${this.#error}</p></div>
      </details>`,
    );
    // `open` is the person's once it is drawn, but a picture that comes opens it.
    const fold = this.querySelector(".vs-init");
    if (fold.open !== this.#open) fold.open = this.#open;
    for (const field of this.querySelectorAll("[data-init]")) {
      const value = this.#value[field.dataset.init] ?? this.#value.outpaint[field.dataset.init];
      if (field !== document.activeElement || field.type === "range") field.value = value;
      if (field.type === "range") field.style.setProperty("--at", `${(100 * (value - field.min)) / (field.max - field.min)}%`);
    }
  }

  /** What of it counts. */
  get #shown() {
    return this.#masks ? this.#value : { ...this.#value, mask: null, outpaint: freshInit().outpaint };
  }

  #summary() {
    const { strength, mask } = this.#shown;
    return [`strength ${Math.round(strength * 100) / 100}`, mask && "mask", isOutpainted(this.#shown) && "extended"].filter(Boolean).join(" · ");
  }

  #empty() {
    return html`<label class="vs-init-drop" data-key="drop">${icon("upload", { size: 22 })}<span><b>Drop a picture here</b> or choose a file<small>PNG, JPEG or WebP. Pasting works too.</small></span>
        <input type="file" accept="${TYPES.join(",")}" aria-label="Picture to start from" /></label>
      <button type="button" class="btn small" data-choose data-key="choose">${icon("images", { size: 16 })}Choose from your pictures</button>`;
  }

  #chosen(source) {
    const value = this.#value;
    const { mask, outpaint, resize } = this.#shown;
    const odd = Math.abs(source.width / source.height - this.#canvas.width / this.#canvas.height) > 0.01;
    return html`<div class="vs-init-chosen" data-key="chosen">
        ${this.#preview(source)}
        <div class="vs-init-actions">
          ${this.#masks && html`<button type="button" class="btn small ${mask ? "" : "primary"}" data-mask>${icon("brush", { size: 16 })}${mask ? "Edit the mask" : "Draw a mask"}</button>`}
          ${mask && html`<button type="button" class="btn ghost small" data-unmask>Remove the mask</button>`}
          <button type="button" class="btn ghost small" data-choose>${icon("images", { size: 16 })}Another picture</button>
          <button type="button" class="btn ghost small" data-drop-source>${icon("x", { size: 16 })}Remove</button>
          <small class="faint">${source.width} × ${source.height}</small>
        </div>
      </div>
      ${slider("strength", "Strength", { most: 1, step: 0.05, least: 0.05, hint: mask ? "How much of the masked part is drawn anew." : "Low stays close to the picture, high leaves little of it." })}
      ${odd && html`<div class="field" data-key="resize"><span class="label" id="init-resize">When the proportions differ</span>
        <div class="segmented" role="group" aria-labelledby="init-resize">${RESIZES.map(([key, label, title]) => html`<button type="button" data-resize="${key}" aria-pressed="${key === resize ? "true" : "false"}" title="${title}">${label}</button>`)}</div></div>`}
      ${(mask || isOutpainted(this.#shown)) && slider("mask_blur", "Soft edge of the mask", { most: 64, step: 1, least: 0, unit: "px" })}
      ${this.#masks && html`<div class="field" data-key="outpaint"><div class="vs-gen-label"><span class="label">Extend the picture</span>${isOutpainted(value) && html`<button type="button" class="link small" data-no-outpaint>Reset</button>`}</div>
        <div class="vs-init-sides">${SIDES.map(
          (side) => html`<label><span>${SIDE_NAMES[side]}</span><input type="number" class="vs-number" data-init="${side}" min="0" max="${this.#canvas.most}" step="${this.#canvas.step}" value="${outpaint[side]}" aria-label="Pixels to add: ${side}" inputmode="numeric" /></label>`,
        )}</div>
        <p class="hint">${isOutpainted(value) ? this.#total() : "Pixels to paint around it, on each side."}</p></div>`}`;
  }

  #total() {
    const added = outpaintSize(this.#value);
    return `The result is ${this.#canvas.width + added.width} × ${this.#canvas.height + added.height}.`;
  }

  #preview(source) {
    const { mask, outpaint } = this.#shown;
    const added = outpaintSize(this.#shown);
    const [width, height] = [this.#canvas.width + added.width, this.#canvas.height + added.height];
    const percent = (part, whole) => `${Math.round((10000 * part) / whole) / 100}%`;
    const box = `left:${percent(outpaint.left, width)};top:${percent(outpaint.top, height)};width:${percent(this.#canvas.width, width)};height:${percent(this.#canvas.height, height)}`;
    const fitting = { crop: "cover", fit: "contain", stretch: "fill" }[this.#value.resize];
    return html`<div class="vs-init-preview" style="--ratio:${width / height}"><div style="${box}"><img src="${source.url}" alt="The picture to start from" style="object-fit:${fitting}" />${mask && /^[/][\w/.%-]+$/.test(mask.url ?? "") ? html`<i style="mask-image:url(${mask.url});mask-size:${{ crop: "cover", fit: "contain", stretch: "100% 100%" }[this.#value.resize]}"></i>` : ""}</div></div>`;
  }
}

function slider(name, label, { most, step, least, hint, unit }) {
  return html`<div class="field vs-gen-slider" data-key="${name}"><label class="label" for="init-${name}">${label}${unit ? html` <span class="faint">${unit}</span>` : ""}</label>
    <div class="vs-gen-pair"><input type="range" class="vs-range" min="${least}" max="${most}" step="${step}" data-init="${name}" aria-label="${label}" />
    <input type="number" class="vs-number" id="init-${name}" min="${least}" max="${most}" step="${step}" data-init="${name}" inputmode="decimal" /></div>${hint && html`<p class="hint">${hint}</p>`}</div>`;
}

/** A file that is too large to send, made smaller; others as they are. */
async function smaller(file, most) {
  if (file.size <= most) return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`The picture has ${formatBytes(file.size)} and could not be made smaller; ${formatBytes(most)} is the most.`);
  }
  const scale = Math.min(1, SIDE_MOST / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.94));
}

define("vs-init-panel", InitPanel);
