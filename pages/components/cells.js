// What one picture of a render is made with, as the server reckons it from the same request. No calls here.

/** Number of the value on each side of a sheet that has it. */
function chosenOf(sheet, place) {
  const chosen = ["x", "y"].filter((side) => sheet[side] && (place[side] ?? null) !== null).map((side) => ({ axis: sheet[side], number: place[side] }));
  // A prompt brings its mix; weights are said of that.
  return chosen.sort((a, b) => Number(b.axis.axis === "prompt") - Number(a.axis.axis === "prompt"));
}

/** Without the LoRAs whose weights change, or without any. */
function withoutLoras(cell, sheet, modelOf) {
  const weighed = [sheet.x, sheet.y].filter((axis) => axis?.axis === "lora_weight").map(modelOf);
  return { ...cell, loras: weighed.length ? cell.loras.filter((lora) => !weighed.includes(lora.model_id)) : [] };
}

function withWeight(loras, model, weight) {
  // The weight is the whole LoRA's: its text encoder part follows.
  const changed = loras.map((lora) => (lora.model_id === model ? { ...lora, weight, text_encoder_weight: null } : lora));
  return changed.filter((lora) => lora.model_id !== model || weight !== 0);
}

/**
 * @param {object} request of a render @param {object} [image] one of its pictures, with its `cell` on a sheet
 * @returns {{seed, prompt, negative_prompt, loras, steps, guidance, sampler, strength, variation_seed}}
 */
export function cellOf(request, image) {
  const { sheet } = request;
  const seed = image?.seed ?? request.seed;
  const { prompt, negative_prompt, loras = [] } = request.pictures?.find((picture) => picture.seed === seed) ?? request;
  const { steps, guidance, sampler } = request;
  const cell = { seed, prompt, negative_prompt, loras, steps, guidance, sampler, strength: request.init?.strength, variation_seed: image?.variation_seed };
  if (!sheet || !image?.cell) return cell;
  const modelOf = (axis) => request.loras[axis.lora]?.model_id;
  const chosen = chosenOf(sheet, image.cell);
  if (!chosen.length) return withoutLoras(cell, sheet, modelOf);
  for (const { axis, number } of chosen) {
    const value = axis.values[number];
    if (axis.axis === "lora_weight") cell.loras = withWeight(cell.loras, modelOf(axis), value);
    else if (axis.axis === "prompt") Object.assign(cell, axis.pictures?.[number] ?? { prompt: value });
    else cell[axis.axis] = value;
  }
  return cell;
}
