// Dialog for a sheet: one or two things in several values each, all on one seed.
import { ApiError, formatDuration, fragment, html, icon, openDialog, render, store } from "./core.js";
import { CELLS_MOST, axesOf, parseValues, proposal } from "./sheet_axes.js";

const NUMERIC_HINT = "Numbers apart by commas, or 0..1/5 for five from 0 to 1.";

/**
 * @param {object} options request: body of POST /api/generations for one picture; titles: of its LoRAs;
 *   samplers: [{id, label}]; secondsPerStep: what a step took lately, or null;
 *   send(json): posts the sheet, throws ApiError
 * @returns {Promise<boolean>} whether it was sent
 */
export async function askSheet({ request, titles, samplers, secondsPerStep, send }) {
  const axes = axesOf(request, titles);
  const last = store.get("sheet-last", {});
  const known = (key, fallback) => (axes.some((one) => one.key === key) ? key : fallback);
  const chosen = { x: known(last.x, axes[0].key), y: known(last.y, ""), control: last.control ?? titles.length > 0 };
  if (chosen.y === chosen.x) chosen.y = "";
  const texts = new Map();
  let problem = null;
  let busy = false;

  const dialog = openDialog({
    title: "Make a sheet",
    size: "medium",
    className: "vs-sheet-dialog",
    body: fragment(html`<form class="vs-sheet-form" novalidate></form>`),
    footer: html`<span class="muted grow" data-cost aria-live="polite"></span><button type="button" class="btn primary" data-send-sheet>${icon("grid", { size: 18 })}Render the sheet</button>`,
  });
  const form = dialog.el.querySelector("form");
  const axisOf = (key) => axes.find((one) => one.key === key);
  const textOf = (key) => texts.get(key) ?? (key === "sampler" ? samplers.slice(0, 4).map((one) => one.id).join(",") : proposal(axisOf(key).axis, request));
  const valuesOf = (key) => parseValues(axisOf(key).axis, textOf(key));

  const plan = () => {
    const x = valuesOf(chosen.x);
    const y = chosen.y ? valuesOf(chosen.y) : { values: [null], problem: "" };
    const cells = x.values.length * y.values.length;
    return { x, y, cells, all: cells + (chosen.control ? 1 : 0) };
  };

  const draw = () => {
    const { x, y, all } = plan();
    render(
      form,
      html`<p class="muted">Every cell is the same picture but for what the axes say: same seed, same settings.</p>
        ${axisField("x", "Across", x)}${axisField("y", "Down", y)}
        ${titles.length > 0 && html`<label class="switch" data-key="control"><input type="checkbox" data-control-cell ${chosen.control ? html`checked` : ""} /><span class="grow">One more cell without ${titles.length === 1 ? "the LoRA" : "the LoRAs"}<small class="vs-under">To see what ${titles.length === 1 ? "it does" : "they do"}.</small></span></label>`}
        <p class="error-text" role="alert" data-key="error" ${problem ? "" : html`hidden`}>${problem}</p>`,
    );
    for (const field of form.querySelectorAll("textarea")) if (field !== document.activeElement) field.value = textOf(chosen[field.dataset.values]);
    const seconds = secondsPerStep === null ? null : secondsPerStep * all * (request.steps ?? 20);
    const cost = dialog.el.querySelector("[data-cost]");
    cost.textContent = all > CELLS_MOST ? `${all} pictures; ${CELLS_MOST} are the most.` : `${all} picture${all === 1 ? "" : "s"}${seconds === null ? "" : `, about ${formatDuration(Math.max(1, seconds))}`}`;
    cost.classList.toggle("error-text", all > CELLS_MOST);
    const button = dialog.el.querySelector("[data-send-sheet]");
    button.disabled = all > CELLS_MOST || Boolean(x.problem || y.problem);
    button.setAttribute("aria-busy", String(busy));
  };

  const axisField = (place, label, { values, problem: wrong }) => {
    const key = chosen[place];
    const options = axes.filter((one) => place === "x" || one.key !== chosen.x);
    return html`<fieldset class="vs-axis" data-key="${place}"><div class="field"><label class="label" for="sheet-${place}">${label}</label>
      <select class="select" id="sheet-${place}" data-axis="${place}">${place === "y" && html`<option value="" ${key ? "" : html`selected`}>Nothing: one row</option>`}${options.map((one) => html`<option value="${one.key}" ${one.key === key ? html`selected` : ""}>${one.label}</option>`)}</select></div>
      ${key === "sampler"
        ? html`<div class="vs-chips" data-key="samplers" role="group" aria-label="Samplers">${samplers.map((one) => html`<button type="button" class="chip" data-sampler="${one.id}" data-place="${place}" aria-pressed="${values.includes(one.id) ? "true" : "false"}">${one.label}</button>`)}</div>`
        : key && html`<div class="field" data-key="values-${key}"><textarea class="textarea vs-axis-values" data-values="${place}" rows="${key === "prompt" ? 3 : 1}" aria-label="Values ${label.toLowerCase()}" data-keep></textarea>
            <p class="hint ${wrong ? "error-text" : ""}">${wrong || (key === "prompt" ? `${values.length} prompt${values.length === 1 ? "" : "s"}, one a line.` : `${values.length} value${values.length === 1 ? "" : "s"}. ${NUMERIC_HINT}`)}</p></div>`}
    </fieldset>`;
  };

  form.addEventListener("change", (event) => {
    const field = event.target;
    if (field.dataset.axis) {
      chosen[field.dataset.axis] = field.value;
      if (chosen.y === chosen.x) chosen.y = "";
    }
    if (field.dataset.controlCell !== undefined) chosen.control = field.checked;
    draw();
  });
  form.addEventListener("input", (event) => {
    const place = event.target.dataset.values;
    if (!place) return;
    texts.set(chosen[place], event.target.value);
    problem = null;
    draw();
  });
  form.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-sampler]");
    if (!chip) return;
    const picked = new Set(valuesOf("sampler").values);
    if (!picked.delete(chip.dataset.sampler)) picked.add(chip.dataset.sampler);
    texts.set("sampler", samplers.map((one) => one.id).filter((id) => picked.has(id)).join(","));
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  const submit = async () => {
    const { x, y } = plan();
    const axis = (key, values) => {
      const { axis: name, lora } = axisOf(key);
      return { axis: name, ...(lora === undefined ? {} : { lora }), values };
    };
    busy = true;
    problem = null;
    draw();
    try {
      store.set("sheet-last", chosen);
      await send({ base: { ...request, count: 1 }, x: axis(chosen.x, x.values), ...(chosen.y ? { y: axis(chosen.y, y.values) } : {}), control: titles.length > 0 && chosen.control });
      dialog.close(true);
      return;
    } catch (error) {
      problem = error instanceof ApiError ? [error.message, error.hint].filter(Boolean).join(" ") : "Something went wrong in this page.";
    }
    busy = false;
    draw();
  };
  dialog.el.querySelector("[data-send-sheet]").addEventListener("click", submit);
  draw();
  return Boolean(await dialog.closed);
}
