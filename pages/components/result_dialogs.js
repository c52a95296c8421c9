// What can be made of a finished picture: something a little different, or something larger.
import { fragment, html, icon, openDialog, store } from "./core.js";
import { repeatRequest } from "./generate_form.js";
import { hiresSize } from "./generate_modes.js";

const SCALES = [1.5, 2, 3, 4];
const COUNTS = [1, 2, 4];

function slider(name, label, { least, most, step, value, hints }) {
  const [low, high] = hints;
  return html`<div class="field vs-gen-slider"><label class="label" for="result-${name}">${label}</label>
    <div class="vs-gen-pair"><input type="range" class="vs-range" id="result-${name}" name="${name}" min="${least}" max="${most}" step="${step}" value="${value}" style="--at:${(100 * (value - least)) / (most - least)}%" /><output class="vs-number vs-output" for="result-${name}">${value}</output></div>
    <p class="vs-ends"><span>${low}</span><span>${high}</span></p></div>`;
}

function choices(name, label, values, value, text) {
  return html`<div class="field"><span class="label" id="result-${name}-label">${label}</span><div class="segmented" role="radiogroup" aria-labelledby="result-${name}-label">${values.map(
    (one) => html`<label><input type="radio" name="${name}" value="${one}" ${one === value ? html`checked` : ""} />${text(one)}</label>`,
  )}</div></div>`;
}

/** A form in a dialog; gives its fields as numbers, or null, or the value of another closing button. */
async function ask({ title, image, fields, note, buttons, submit }) {
  const dialog = openDialog({
    title,
    className: "vs-result-dialog",
    body: fragment(html`<form class="vs-result" novalidate><img src="${image.thumb?.large ?? image.url}" alt="" style="aspect-ratio:${image.width} / ${image.height}" /><div class="stack">${fields}<p class="hint" data-note></p></div></form>`),
    footer: html`${buttons}<button type="button" class="btn primary" data-go>${submit}</button>`,
  });
  const form = dialog.el.querySelector("form");
  const values = () => Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, Number(value)]));
  const tell = () => {
    form.querySelector("[data-note]").textContent = note?.(values()) ?? "";
  };
  form.addEventListener("input", (event) => {
    const field = event.target;
    if (field.type === "range") {
      field.style.setProperty("--at", `${(100 * (field.value - field.min)) / (field.max - field.min)}%`);
      field.parentElement.querySelector("output").textContent = field.value;
    }
    tell();
  });
  const send = () => dialog.close(values());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  dialog.el.querySelector("[data-go]").addEventListener("click", send);
  tell();
  return dialog.closed;
}

/** Body of POST /api/generations for a variation of a picture, or null. */
export async function askVariation(job, image) {
  const last = { strength: 0.2, count: 4, ...store.get("vary-last", {}) };
  const answer = await ask({
    title: "Vary this picture",
    image,
    fields: html`${slider("strength", "How different", { least: 0.05, most: 1, step: 0.05, value: last.strength, hints: ["nearly the same", "quite another"] })}
      ${choices("count", "Pictures", COUNTS, last.count, (count) => count)}`,
    buttons: html`<button type="button" class="btn" data-close value="seed">Another seed altogether</button>`,
    submit: html`${icon("shuffle", { size: 18 })}Vary`,
  });
  if (!answer) return null;
  if (answer === "seed") return { ...repeatRequest(job), variation: null };
  store.set("vary-last", answer);
  return { ...repeatRequest(job, image.seed), count: answer.count, variation: { seed: null, strength: answer.strength } };
}

/** Body of POST /api/generations for a larger version of a picture, or null. */
export async function askUpscale(job, image, baseModel) {
  const most = 2 * (baseModel?.max_size ?? Infinity);
  const scales = SCALES.filter((scale) => Math.max(image.width, image.height) * scale <= most);
  const last = { scale: 2, strength: 0.3, ...store.get("upscale-last", {}) };
  if (!scales.length) return { tooLarge: most };
  const answer = await ask({
    title: "Upscale",
    image,
    fields: html`${choices("scale", "Size", scales, scales.includes(last.scale) ? last.scale : scales[0], (scale) => `${scale}×`)}
      ${slider("strength", "New detail", { least: 0.05, most: 1, step: 0.05, value: last.strength, hints: ["as it is", "drawn anew"] })}`,
    note: ({ scale }) => {
      const { width, height } = hiresSize(image, scale, baseModel);
      return `${image.width} × ${image.height} becomes ${width} × ${height}.`;
    },
    submit: html`${icon("expand", { size: 18 })}Upscale`,
  });
  if (!answer) return null;
  store.set("upscale-last", answer);
  const { variation, hires, ...request } = repeatRequest(job, image.seed);
  return {
    ...request,
    count: 1,
    width: image.width,
    height: image.height,
    // The picture as it is, and then the second pass alone.
    init: { generation_image_id: image.id, strength: 0, resize: "stretch" },
    hires: { scale: answer.scale, strength: answer.strength },
  };
}
