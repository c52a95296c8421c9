// A finished sheet as a table: what changes across and down, a picture in each cell.
import { html, icon } from "./core.js";

const text = (axis, number) => axis.labels?.[number] ?? String(axis.values[number]);

/** Whether the pictures of a render have places on a sheet. */
export function isSheet(job) {
  return Boolean(job.request?.sheet) && (job.images ?? []).some((image) => image.cell);
}

/** @param {object} job a completed sheet; cells are buttons `[data-look]` with the number of the picture */
export function sheetTemplate(job) {
  const { x, y } = job.request.sheet;
  const numberOf = new Map(job.images.map((image, number) => [`${image.cell?.x ?? ""} ${image.cell?.y ?? ""}`, number]));
  const control = numberOf.get(" ");
  const cell = (across, down) => {
    const number = numberOf.get(`${across} ${down}`);
    if (number === undefined) return html`<td><span class="vs-xy-none" title="Not rendered">${icon("ban", { size: 18 })}</span></td>`;
    return html`<td>${picture(job, number, [`${x.label}: ${text(x, across)}`, y && `${y.label}: ${text(y, down)}`].filter(Boolean).join(", "))}</td>`;
  };
  const rows = y ? y.values.map((value, down) => [down, text(y, down)]) : [["", ""]];
  return html`<div class="vs-xy" data-key="frame" tabindex="0" role="region" aria-label="Sheet, scrolls sideways">
    <table style="--columns:${x.values.length}"><caption class="offscreen">${x.label}${y && html` and ${y.label}`}</caption>
      <thead>
        <tr>${y && html`<td class="vs-xy-corner"></td>`}<th colspan="${x.values.length}" scope="colgroup" class="vs-xy-name">${x.label}</th></tr>
        <tr>${y && html`<th class="vs-xy-name" scope="col">${y.label}</th>`}${x.values.map((value, across) => html`<th scope="col">${text(x, across)}</th>`)}</tr>
      </thead>
      <tbody>${rows.map(([down, label]) => html`<tr>${y && html`<th scope="row">${label}</th>`}${x.values.map((value, across) => cell(across, down))}</tr>`)}</tbody>
    </table>
    ${control !== undefined && html`<figure class="vs-xy-control">${picture(job, control, "Without LoRAs")}<figcaption>${job.images[control].label ?? "Without LoRAs"}</figcaption></figure>`}
  </div>`;
}

function picture(job, number, label) {
  const image = job.images[number];
  return html`<button type="button" data-look="${number}" aria-label="Look closely: ${label}" title="${label}"><img src="${image.thumb?.small ?? image.url}" alt="${label}" loading="lazy" decoding="async" style="aspect-ratio:${image.width} / ${image.height}" /></button>`;
}
