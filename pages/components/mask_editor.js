// Draws the mask of a picture: brush and eraser over the picture, by mouse, pen, finger or keys.
import { fragment, html, icon, openDialog } from "./core.js";

const SIDE_LEAST = 512;
const SIDE_MOST = 1024;
const UNDO_MOST = 16;
const COLOUR = [139, 92, 246];
const SIZES = { least: 2, most: 60, first: 14 }; // percent of the shorter side

/**
 * @param {{url: string, width: number, height: number, mask?: string|null}} picture `mask`: address of the one to go on with
 * @returns {Promise<Blob|null>} a PNG, white where it is to be painted anew and see-through elsewhere; null: as it was.
 *   An empty mask is a Blob too, of which `blob.isEmpty` is true.
 */
export function editMask(picture) {
  return new MaskEditor(picture).result;
}

class MaskEditor {
  #canvas;
  #paint;
  #cursor;
  #size = SIZES.first;
  #erasing = false;
  #undo = [];
  #at = null;
  #stroke = null;
  #root;

  constructor({ url, width, height, mask }) {
    const scale = Math.min(SIDE_MOST, Math.max(SIDE_LEAST, width, height)) / Math.max(width, height);
    const body = fragment(html`<div class="vs-mask">
      <div class="vs-mask-tools" role="toolbar" aria-label="Mask tools">
        <div class="segmented" role="group" aria-label="Tool">
          <button type="button" data-tool="brush" aria-pressed="true" title="Brush (B)">${icon("brush", { size: 17 })}Brush</button>
          <button type="button" data-tool="eraser" aria-pressed="false" title="Eraser (E)">${icon("eraser", { size: 17 })}Erase</button>
        </div>
        <label class="vs-mask-size"><span>Size</span><input type="range" class="vs-range" min="${SIZES.least}" max="${SIZES.most}" value="${this.#size}" data-size-of-brush aria-label="Brush size" /></label>
        <span class="vs-mask-more">
          <button type="button" class="btn small" data-do="undo" title="Undo (Ctrl+Z)" disabled>${icon("undo", { size: 16 })}Undo</button>
          <button type="button" class="btn small" data-do="invert" title="Invert (I)">${icon("contrast", { size: 16 })}Invert</button>
          <button type="button" class="btn small" data-do="clear">${icon("x", { size: 16 })}Clear</button>
        </span>
      </div>
      <div class="vs-mask-stage"><div class="vs-mask-box" style="--ratio:${width / height}">
        <img src="${url}" alt="" draggable="false" />
        <canvas width="${Math.round(width * scale)}" height="${Math.round(height * scale)}" tabindex="0" role="application" aria-label="Mask. Arrow keys move the brush, Space paints, B and E choose brush and eraser, [ and ] change its size."></canvas>
        <span class="vs-mask-cursor" hidden></span>
      </div></div>
      <p class="faint small">Paint over what is to be drawn anew; everything else stays.</p>
    </div>`);
    const dialog = openDialog({
      title: "Draw a mask",
      size: "large",
      className: "vs-mask-dialog",
      body,
      footer: html`<button type="button" class="btn" data-close>Cancel</button><button type="button" class="btn primary" data-done>${icon("check", { size: 18 })}Use this mask</button>`,
    });
    this.#root = dialog.el;
    this.#canvas = body.querySelector("canvas");
    this.#cursor = body.querySelector(".vs-mask-cursor");
    this.#paint = this.#canvas.getContext("2d", { willReadFrequently: true });
    this.#at = { x: this.#canvas.width / 2, y: this.#canvas.height / 2 };
    this.#listen();
    this.#resize(this.#size);
    if (mask) this.#load(mask);
    this.#canvas.focus({ preventScroll: true });
    this.result = dialog.closed;
    this.#root.querySelector("[data-done]").addEventListener("click", async () => dialog.close(await this.#export()));
  }

  #listen() {
    this.#root.addEventListener("click", (event) => {
      const button = event.target.closest("[data-tool], [data-do]");
      if (button?.dataset.tool) this.#choose(button.dataset.tool === "eraser");
      if (button?.dataset.do) this[{ undo: "undo", invert: "invert", clear: "clear" }[button.dataset.do]]();
    });
    this.#root.querySelector("[data-size-of-brush]").addEventListener("input", (event) => this.#resize(Number(event.target.value)));
    this.#root.addEventListener("keydown", (event) => this.#key(event));
    const canvas = this.#canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.#stroke !== null) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.#stroke = event.pointerId;
      this.#remember();
      this.#to(event, true);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#stroke === event.pointerId) for (const one of event.getCoalescedEvents?.() ?? [event]) this.#to(one, false);
      else if (this.#stroke === null) this.#move(this.#place(event));
    });
    const end = (event) => {
      if (this.#stroke === event.pointerId) this.#stroke = null;
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => this.#stroke === null && (this.#cursor.hidden = true));
    canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && this.#move(this.#at));
  }

  #key(event) {
    const step = this.#radius;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      this.undo();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    if (event.target === this.#canvas && (event.key in moves || event.key === " ")) {
      event.preventDefault();
      if (event.key === " ") {
        if (!event.repeat) this.#remember();
        this.#line(this.#at, this.#at);
      } else {
        const [x, y] = moves[event.key];
        const clamp = (value, most) => Math.min(most, Math.max(0, value));
        this.#move({ x: clamp(this.#at.x + x, this.#canvas.width), y: clamp(this.#at.y + y, this.#canvas.height) });
      }
      return;
    }
    const run = {
      b: () => this.#choose(false),
      e: () => this.#choose(true),
      i: () => this.invert(),
      "[": () => this.#resize(this.#size - 2),
      "]": () => this.#resize(this.#size + 2),
    }[event.key.toLowerCase()];
    if (run) {
      event.preventDefault();
      run();
    }
  }

  get #radius() {
    return (Math.min(this.#canvas.width, this.#canvas.height) * this.#size) / 200;
  }

  #choose(erasing) {
    this.#erasing = erasing;
    for (const button of this.#root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String((button.dataset.tool === "eraser") === erasing));
  }

  #resize(size) {
    this.#size = Math.min(SIZES.most, Math.max(SIZES.least, size));
    const field = this.#root.querySelector("[data-size-of-brush]");
    field.value = this.#size;
    field.style.setProperty("--at", `${(100 * (this.#size - SIZES.least)) / (SIZES.most - SIZES.least)}%`);
    this.#move(this.#at);
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * this.#canvas.width, y: ((event.clientY - box.top) / box.height) * this.#canvas.height };
  }

  #move(at) {
    this.#at = at;
    const { width, height } = this.#canvas;
    Object.assign(this.#cursor.style, { left: `${(100 * at.x) / width}%`, top: `${(100 * at.y) / height}%`, width: `${(200 * this.#radius) / width}%` });
    this.#cursor.hidden = false;
  }

  #to(event, begins) {
    const at = this.#place(event);
    this.#line(begins ? at : this.#at, at);
    this.#move(at);
  }

  #line(from, to) {
    const paint = this.#paint;
    paint.globalCompositeOperation = this.#erasing ? "destination-out" : "source-over";
    paint.strokeStyle = `rgb(${COLOUR})`;
    paint.lineCap = "round";
    paint.lineJoin = "round";
    paint.lineWidth = 2 * this.#radius;
    paint.beginPath();
    paint.moveTo(from.x, from.y);
    // A line of no length draws no dot in some browsers.
    paint.lineTo(to.x + 0.01, to.y);
    paint.stroke();
  }

  #pixels() {
    return this.#paint.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
  }

  #remember() {
    this.#undo.push(this.#pixels());
    if (this.#undo.length > UNDO_MOST) this.#undo.shift();
    this.#root.querySelector("[data-do=undo]").disabled = false;
  }

  undo() {
    const before = this.#undo.pop();
    if (before) this.#paint.putImageData(before, 0, 0);
    this.#root.querySelector("[data-do=undo]").disabled = this.#undo.length === 0;
  }

  invert() {
    this.#remember();
    const pixels = this.#pixels();
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      [data[at], data[at + 1], data[at + 2]] = COLOUR;
      data[at + 3] = 255 - data[at + 3];
    }
    this.#paint.putImageData(pixels, 0, 0);
  }

  clear() {
    this.#remember();
    this.#paint.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  async #load(url) {
    const picture = new Image();
    picture.src = url;
    try {
      await picture.decode();
    } catch {
      return; // it is gone: a new one is drawn
    }
    this.#paint.drawImage(picture, 0, 0, this.#canvas.width, this.#canvas.height);
    const pixels = this.#pixels();
    const { data } = pixels;
    for (let at = 0; at < data.length; at += 4) {
      data[at + 3] = (data[at] * data[at + 3]) / 255; // white counts, black and see-through do not
      [data[at], data[at + 1], data[at + 2]] = COLOUR;
    }
    this.#paint.putImageData(pixels, 0, 0);
    this.#undo = [];
  }

  async #export() {
    const pixels = this.#pixels();
    const { data } = pixels;
    let isEmpty = true;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] > 8) isEmpty = false;
      data[at] = data[at + 1] = data[at + 2] = 255;
    }
    const sheet = document.createElement("canvas");
    sheet.width = pixels.width;
    sheet.height = pixels.height;
    sheet.getContext("2d").putImageData(pixels, 0, 0);
    const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
    return Object.assign(blob, { isEmpty });
  }
}
