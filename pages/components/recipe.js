// How a picture was made: prompt, settings and LoRAs, each to copy; as a panel and as the text other tools read.
import { copyText, html, icon } from "./core.js";

/** The recipe as A1111 writes it under a picture. @param {object} recipe @returns {string} */
export function recipeText(recipe) {
  if (recipe.raw) return recipe.raw;
  const lines = [recipe.prompt ?? ""];
  if (recipe.negative_prompt) lines.push(`Negative prompt: ${recipe.negative_prompt}`);
  const facts = [
    ["Steps", recipe.steps],
    ["Sampler", recipe.sampler],
    ["Schedule type", recipe.schedule],
    ["CFG scale", recipe.guidance],
    ["Seed", recipe.seed],
    ["Size", recipe.width && recipe.height ? `${recipe.width}x${recipe.height}` : null],
    ["Model", recipe.base_model],
  ];
  const loras = (recipe.loras ?? []).map((lora) => `${lora.name}: ${lora.weight}`);
  if (loras.length) facts.push(["LoRAs", `"${loras.join(", ")}"`]);
  lines.push(facts.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => `${name}: ${value}`).join(", "));
  return lines.filter(Boolean).join("\n");
}

function textBlock(label, text, what) {
  return html`<section class="vs-recipe-text">
    <header><h3>${label}</h3><button type="button" class="btn ghost small" data-copy="${text}" data-what="${what} copied" aria-label="Copy ${label.toLowerCase()}">${icon("copy", { size: 15 })}Copy</button></header>
    <p>${text}</p>
  </section>`;
}

function fact(label, value, { copy = false } = {}) {
  if (value === null || value === undefined || value === "") return null;
  return html`<div><dt>${label}</dt><dd>${copy
    ? html`<button type="button" class="vs-copy" data-copy="${value}" data-what="${label} copied" aria-label="Copy ${label.toLowerCase()} ${value}">${value}${icon("copy", { size: 13 })}</button>`
    : value}</dd></div>`;
}

/** Panel of a recipe; copy buttons work where `bindCopy` listens. @param {object|null} recipe */
export function recipeTemplate(recipe) {
  if (!recipe) {
    return html`<div class="vs-recipe is-empty"><p class="muted">This picture carries no recipe. Pictures rendered here, and uploads from tools that embed one, show prompt and settings in this place.</p></div>`;
  }
  return html`<div class="vs-recipe">
    ${recipe.prompt && textBlock("Prompt", recipe.prompt, "Prompt")}
    ${recipe.negative_prompt && textBlock("Negative prompt", recipe.negative_prompt, "Negative prompt")}
    ${recipe.loras?.length > 0 && html`<section><h3>LoRAs</h3><ul class="vs-recipe-loras">${recipe.loras.map(
      (lora) => html`<li>${lora.model_id
        ? html`<a href="/models?id=${encodeURIComponent(lora.model_id)}">${icon("model", { size: 15 })}${lora.title ?? lora.name}</a>`
        : html`<span title="No card in this library has this file">${icon("model", { size: 15 })}${lora.name}</span>`}
        <b>${weightText(lora.weight)}</b></li>`,
    )}</ul></section>`}
    <dl class="vs-recipe-facts">
      ${fact("Seed", recipe.seed, { copy: true })}
      ${fact("Steps", recipe.steps)}
      ${fact("Guidance", recipe.guidance)}
      ${fact("Sampler", recipe.sampler)}
      ${fact("Schedule", recipe.schedule)}
      ${fact("Strength", recipe.strength && recipe.strength !== 1 ? weightText(recipe.strength) : null)}
      ${fact("Second pass", recipe.hires_scale ? `${weightText(recipe.hires_scale)}×, strength ${weightText(recipe.hires_strength)}` : null)}
      ${fact("Variation", recipe.variation_strength ? `${weightText(recipe.variation_strength)} of seed ${recipe.variation_seed}` : null)}
      ${fact("Exact", recipe.bucket ? `Same to the last bit, ${recipe.bucket} at a time` : null)}
      ${fact("Size", recipe.width && recipe.height ? `${recipe.width} × ${recipe.height}` : null)}
      ${fact("Base model", recipe.base_model)}
      ${fact("Made with", recipe.tool)}
    </dl>
    <button type="button" class="btn small" data-copy="${recipeText(recipe)}" data-what="Recipe copied">${icon("copy", { size: 16 })}Copy everything</button>
  </div>`;
}

/** "0.8", "-0.35": at most two places. */
export function weightText(weight) {
  return weight === null || weight === undefined ? "" : String(Math.round(weight * 100) / 100);
}

/** Let every `[data-copy]` below `root` copy its text. */
export function bindCopy(root, options = {}) {
  root.addEventListener(
    "click",
    (event) => {
      const button = event.target.closest?.("[data-copy]");
      if (!button || !root.contains(button)) return;
      event.preventDefault();
      copyText(button.dataset.copy, button.dataset.what ?? "Copied");
    },
    options,
  );
}
