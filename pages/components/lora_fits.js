// Which LoRAs work with which base model, as the server reads it off their files; asked once and remembered.
import { api } from "./core.js";

const known = new Map();
const MOST_AT_ONCE = 100;

const keyOf = (baseModel, id) => `${baseModel.id} ${id}`;

/**
 * What is known by now of a LoRA on a base model.
 * @returns {{fits: boolean|null, reason: string|null}|null} null before `askFits`; `fits` null where nobody can say
 */
export function knownFit(baseModel, id) {
  return (baseModel && known.get(keyOf(baseModel, id))) ?? null;
}

/**
 * Ask about those of the LoRAs that are not known yet.
 * @param {object|null} baseModel item of /api/base-models
 * @param {string[]} ids of model cards
 * @returns {Promise<boolean>} whether something new is known
 * @throws what the call throws
 */
export async function askFits(baseModel, ids, signal) {
  const asked = baseModel ? [...new Set(ids)].filter((id) => !known.has(keyOf(baseModel, id))) : [];
  for (let from = 0; from < asked.length; from += MOST_AT_ONCE) {
    const some = asked.slice(from, from + MOST_AT_ONCE);
    const { items } = await api("/api/loras/fits", { json: { base_model_id: baseModel.id, model_ids: some }, signal });
    for (const id of some) known.set(keyOf(baseModel, id), { fits: null, reason: null });
    for (const { model_id, fits, reason } of items) known.set(keyOf(baseModel, model_id), { fits, reason });
  }
  return asked.length > 0;
}
