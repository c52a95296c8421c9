// Two pictures over each other with a slider between them.
import { fragment, html } from "./core.js";

/**
 * @param {{url: string, title?: string, width: number, height: number}} before left of the slider @param {object} after right of it
 * @returns {Element} `--ratio` is that of `after`
 */
export function compareBox(before, after) {
  const box = fragment(html`<div class="vs-lightbox-picture is-loaded vs-compare" style="--ratio:${(after.width || 1) / (after.height || 1)};--split:50%">
    <img src="${after.url}" alt="Second picture: ${after.title || "untitled"}" draggable="false" />
    <img class="vs-compare-first" src="${before.url}" alt="First picture: ${before.title || "untitled"}" draggable="false" />
    <span class="vs-compare-line" aria-hidden="true"></span>
    <input type="range" min="0" max="100" step="0.5" value="50" aria-label="How much of the first picture is shown" data-compare-at />
  </div>`);
  box.querySelector("input").addEventListener("input", (event) => box.style.setProperty("--split", `${event.target.value}%`));
  return box;
}
