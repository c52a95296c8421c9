// Rendering from a picture, a second pass at a higher resolution, and variations: what the form holds of them, and how
// requests say it. No calls here.

/** What a form knows of the picture it starts from; `source` null: from nothing. */
export function freshInit(values = {}) {
  return { source: null, strength: 0.65, resize: "crop", mask: null, mask_blur: 4, outpaint: { left: 0, top: 0, right: 0, bottom: 0 }, ...values };
}

/** Fields of the form for the second pass. */
export const FRESH_HIRES = { hires_on: false, hires_scale: 2, hires_strength: 0.5, hires_steps: "" };

export const SIDES = ["left", "top", "right", "bottom"];
/** Kinds of sources, and the field that names each in a request. */
const ID_FIELDS = { image: "image_id", render: "generation_image_id", input: "input_id" };

/** Whether a base model may be asked for "loras", "pictures", "masks" or "variations". */
export function can(baseModel, ability) {
  return baseModel?.abilities?.includes(ability) ?? true;
}

/** The form without what its base model cannot do; there it stays, for another one. */
export function feasible(form, baseModel) {
  const init = can(baseModel, "masks") ? form.init : { ...form.init, mask: null, outpaint: freshInit().outpaint };
  return {
    ...form,
    loras: can(baseModel, "loras") ? form.loras : [],
    ...(can(baseModel, "pictures") ? { init } : { init: freshInit(), hires_on: false }),
  };
}

/** Pixels added on each axis. @returns {{width: number, height: number}} */
export function outpaintSize(init) {
  const { left, top, right, bottom } = init?.outpaint ?? {};
  return { width: (left || 0) + (right || 0), height: (top || 0) + (bottom || 0) };
}

export function isOutpainted(init) {
  const added = outpaintSize(init);
  return added.width + added.height > 0;
}

/** The parts of POST /api/generations that say this; `width` and `height` count what is painted around. */
export function modesRequest(form) {
  const request = {};
  const { init } = form;
  if (init?.source) {
    request.init = { [ID_FIELDS[init.source.kind]]: init.source.id, strength: init.strength, resize: init.resize };
    if (init.mask) Object.assign(request.init, { mask_input_id: init.mask.id, mask_blur: init.mask_blur });
    if (isOutpainted(init)) {
      const added = outpaintSize(init);
      request.init.outpaint = { ...init.outpaint };
      request.init.mask_blur = init.mask_blur;
      request.width = form.width + added.width;
      request.height = form.height + added.height;
    }
  }
  if (form.hires_on) request.hires = { scale: form.hires_scale, strength: form.hires_strength, ...(form.hires_steps ? { steps: Number(form.hires_steps) } : {}) };
  return request;
}

/** The same of an earlier request, to be sent again. */
export function modesRepeated({ init, hires, variation }) {
  const request = {};
  if (init) {
    const field = Object.values(ID_FIELDS).find((name) => init[name]);
    request.init = { [field]: init[field], strength: init.strength, resize: init.resize, mask_blur: init.mask_blur };
    if (init.mask_input_id) request.init.mask_input_id = init.mask_input_id;
    if (init.outpaint) request.init.outpaint = init.outpaint;
  }
  if (hires) request.hires = { scale: hires.scale, strength: hires.strength, ...(hires.steps ? { steps: hires.steps } : {}) };
  if (variation) request.variation = { seed: variation.seed, strength: variation.strength };
  return request;
}

/** Fields of the form for an earlier request. */
export function modesOf({ init, hires, width, height }) {
  const fields = { init: freshInit(), ...FRESH_HIRES };
  if (hires) Object.assign(fields, { hires_on: true, hires_scale: hires.scale, hires_strength: hires.strength, hires_steps: hires.steps ?? "" });
  if (!init) return fields;
  const kind = Object.keys(ID_FIELDS).find((one) => init[ID_FIELDS[one]]);
  if (!kind) return fields;
  fields.init = freshInit({
    source: { kind, id: init[ID_FIELDS[kind]], url: init.url, width: init.source_width, height: init.source_height },
    strength: init.strength,
    resize: init.resize ?? "crop",
    mask: init.mask_input_id ? { id: init.mask_input_id, url: init.mask_url ?? null } : null,
    mask_blur: init.mask_blur ?? 4,
    outpaint: { left: 0, top: 0, right: 0, bottom: 0, ...(init.outpaint ?? {}) },
  });
  const added = outpaintSize(fields.init);
  fields.width = width - added.width;
  fields.height = height - added.height;
  return fields;
}

/** A size for a picture of these sides on a base model: its proportions, no larger than the model's suggestions. */
export function sizeFor({ width, height }, baseModel) {
  const { min_size = 64, max_size = 2048, size_step: step = 8, sizes = [] } = baseModel ?? {};
  const largest = Math.min(max_size, Math.max(...sizes.flat(), min_size));
  const longest = Math.max(width, height);
  const scale = Math.min(1, largest / longest) * Math.max(1, min_size / (Math.min(width, height) * Math.min(1, largest / longest)));
  const side = (pixels) => Math.min(max_size - (max_size % step), Math.max(Math.ceil(min_size / step) * step, Math.round((pixels * scale) / step) * step));
  return { width: side(width), height: side(height) };
}

/** Size after the second pass, as the server rounds it. */
export function hiresSize({ width, height }, scale, baseModel) {
  const step = baseModel?.size_step ?? 8;
  return { width: Math.round((width * scale) / step) * step, height: Math.round((height * scale) / step) * step };
}

/** Words for a caption: "from a picture, strength 0.65". */
export function modeFacts(request) {
  const { init, hires, variation, sheet, bucket } = request;
  const round = (number) => Math.round(number * 100) / 100;
  return [
    init && (init.strength === 0 ? "from a picture" : `from a picture, strength ${round(init.strength)}`),
    init?.mask_input_id && "masked",
    init?.outpaint && "extended",
    hires && `second pass ${round(hires.scale)}×`,
    variation && `variation ${round(variation.strength)}`,
    sheet && "sheet",
    bucket > 0 && "same to the last bit",
  ].filter(Boolean);
}
