// Fills the generator's form from elsewhere: a picture's recipe, an earlier render, a model card.
import { cellOf } from "./cells.js";
import { api } from "./core.js";
import { bucketOf, freshForm, samplersOf } from "./generate_form.js";
import { modesOf } from "./generate_modes.js";
import { cleanWeight, rowOf } from "./lora_mixer.js";

const plain = (text) => String(text ?? "").toLowerCase().replace(/[^a-z0-9]+/g, "");

/** The option whose id or label says the same as `name`, whatever its spelling. */
function match(options, name) {
  if (!name) return null;
  const wanted = plain(name);
  return options.find((option) => plain(option.id) === wanted || plain(option.label) === wanted) ?? null;
}

/** Rows of the mix for LoRAs named by id; `missing` collects the names of those that nobody has (any more). */
async function rowsFor(loras, signal, missing) {
  const rows = await Promise.all(
    loras.map(async (lora) => {
      const name = lora.title ?? lora.name ?? "A LoRA";
      if (!lora.model_id) {
        missing.push(name);
        return null;
      }
      try {
        const card = await api(`/api/models/${encodeURIComponent(lora.model_id)}`, { signal });
        return { ...rowOf(card, lora), weight: cleanWeight(lora.weight, 1) };
      } catch (error) {
        if (error.name === "AbortError") throw error;
        missing.push(name);
        return null;
      }
    }),
  );
  return rows.filter(Boolean);
}

/**
 * @param {object} recipe of a picture
 * @param {object} options {form, baseModels, samplers, schedules, signal}
 * @returns {Promise<{form: object, missing: string[]}>} `missing`: LoRAs of the recipe that are not in this library
 */
export async function formFromRecipe(recipe, { form, baseModels, samplers, schedules, signal }) {
  const baseModel = match(baseModels, recipe.base_model) ?? baseModels.find((model) => model.id === form.base_model_id) ?? baseModels[0];
  const filled = freshForm(baseModel, { prompt: recipe.prompt ?? "", negative_prompt: recipe.negative_prompt ?? "", count: 1, seed: recipe.seed ?? "" });
  const known = match(baseModels, recipe.base_model) !== null;
  if (recipe.steps) filled.steps = recipe.steps;
  if (recipe.guidance !== null && recipe.guidance !== undefined) filled.guidance = recipe.guidance;
  // Another model's sizes may be beyond what this one draws.
  const fits = (side) => side >= (baseModel?.min_size ?? 0) && side <= (baseModel?.max_size ?? Infinity);
  if (recipe.width && recipe.height && (known || (fits(recipe.width) && fits(recipe.height)))) {
    filled.width = recipe.width;
    filled.height = recipe.height;
  }
  filled.sampler = match(samplersOf(baseModel, samplers), recipe.sampler)?.id ?? filled.sampler;
  filled.schedule = match(schedules, recipe.schedule)?.id ?? filled.schedule;
  filled.bucket = bucketOf(recipe);
  const missing = [];
  filled.loras = await rowsFor(recipe.loras ?? [], signal, missing);
  return { form: filled, missing };
}

/** The form of an earlier render, with the seed of its first picture. */
export async function formFromJob(job, { baseModels, signal, seed = job.images?.[0]?.seed ?? job.request.seed }) {
  const { request } = job;
  const baseModel = baseModels.find((model) => model.id === request.base_model_id) ?? baseModels[0];
  const missing = [];
  const form = {
    ...freshForm(baseModel),
    prompt: request.prompt,
    negative_prompt: request.negative_prompt ?? "",
    width: request.width,
    height: request.height,
    steps: request.steps,
    guidance: request.guidance,
    count: request.count ?? 1,
    sampler: request.sampler ?? "",
    schedule: request.schedule ?? "",
    seed: seed ?? "",
    bucket: bucketOf(request),
    ...modesOf(request),
    loras: await rowsFor(request.loras ?? [], signal, missing),
  };
  return { form, missing };
}

const labelOf = (options, id) => options.find((option) => option.id === id)?.label ?? id;

/**
 * How a picture of a render was made, as a recipe: for copying and for the lightbox.
 * @param {object} [image] one of the render's pictures
 * @param {{samplers?: object[], schedules?: object[]}} names as GET /api/base-models gives them
 */
export function recipeOf(job, image, { samplers = [], schedules = [] } = {}) {
  const { request } = job;
  const cell = cellOf(request, image);
  return {
    prompt: cell.prompt,
    negative_prompt: cell.negative_prompt,
    seed: cell.seed,
    steps: cell.steps,
    sampler: labelOf(samplers, cell.sampler),
    schedule: labelOf(schedules, request.schedule),
    guidance: cell.guidance,
    width: image?.width ?? request.width,
    height: image?.height ?? request.height,
    base_model: request.base_model_label,
    tool: "VisionSuit",
    strength: cell.strength || null,
    hires_scale: request.hires?.scale,
    hires_strength: request.hires?.strength,
    variation_seed: cell.variation_seed,
    variation_strength: request.variation?.strength,
    bucket: request.bucket || null,
    loras: cell.loras.map((lora) => ({ name: lora.title, weight: lora.weight, model_id: lora.model_id })),
  };
}
