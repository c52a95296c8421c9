// Axes of a sheet: what may stand on one, and what a person typed for it. No calls here.

export const CELLS_MOST = 36;
const RANGE = /^(-?[\d.]+)\s*\.\.\s*(-?[\d.]+)(?:\s*\/\s*(\d+))?$/;
const RANGE_VALUES = 5;

/** Kinds of axes that are lists of numbers: [label, least, most, whole]. */
const NUMBERS = {
  lora_weight: ["Weight", -2, 2, false],
  steps: ["Steps", 1, 200, true],
  guidance: ["Guidance", 0, 40, false],
  seed: ["Seed", 0, 2 ** 32 - 1, true],
  strength: ["Strength", 0, 1, false],
};

/**
 * The axes that a request can have.
 * @param {object} request as POST /api/generations takes it @param {string[]} titles of its LoRAs
 * @returns {{key: string, axis: string, lora?: number, label: string}[]}
 */
export function axesOf(request, titles) {
  return [
    ...titles.map((title, lora) => ({ key: `lora_weight:${lora}`, axis: "lora_weight", lora, label: `Weight of “${title}”` })),
    { key: "steps", axis: "steps", label: "Steps" },
    { key: "guidance", axis: "guidance", label: "Guidance" },
    { key: "sampler", axis: "sampler", label: "Sampler" },
    { key: "seed", axis: "seed", label: "Seed" },
    ...(request.init ? [{ key: "strength", axis: "strength", label: "Strength on the picture" }] : []),
    { key: "prompt", axis: "prompt", label: "Prompt" },
  ];
}

/** What is proposed for an axis, as a person would type it. */
export function proposal(axis, request) {
  const seed = request.seed ?? 1;
  const steps = request.steps ?? 20;
  const unique = (numbers) => [...new Set(numbers)].join(", ");
  return {
    lora_weight: "0, 0.4, 0.7, 1",
    steps: unique([0.5, 1, 1.5, 2].map((part) => Math.max(1, Math.min(200, Math.round(steps * part))))),
    guidance: unique([3, 5, 7, 9]),
    seed: unique([0, 1, 2, 3].map((more) => (seed + more) % 2 ** 32)),
    strength: "0.3, 0.5, 0.7, 0.9",
    prompt: request.prompt ? `${request.prompt}\n` : "",
  }[axis];
}

const round = (number) => Math.round(number * 1000) / 1000;

/**
 * Values of an axis from text: numbers apart by commas, or `0..1/5` for five from 0 to 1; prompts one a line.
 * @returns {{values: (number|string)[], problem: string}}
 */
export function parseValues(axis, text) {
  if (axis === "prompt") {
    const values = text.split("\n").map((line) => line.trim()).filter(Boolean);
    return { values, problem: values.length ? "" : "Write one prompt a line." };
  }
  if (axis === "sampler") {
    const values = text.split(",").map((one) => one.trim()).filter(Boolean);
    return { values, problem: values.length ? "" : "Choose at least one sampler." };
  }
  const [label, least, most, whole] = NUMBERS[axis];
  const values = [];
  for (const part of text.split(/[,;\n]+/).map((one) => one.trim()).filter(Boolean)) {
    const range = RANGE.exec(part);
    if (range) {
      const [from, to, count] = [Number(range[1]), Number(range[2]), Math.min(CELLS_MOST + 1, Math.max(2, Number(range[3] ?? RANGE_VALUES)))];
      for (let at = 0; at < count; at++) values.push(whole ? Math.round(from + ((to - from) * at) / (count - 1)) : round(from + ((to - from) * at) / (count - 1)));
    } else values.push(whole ? Math.round(Number(part)) : Number(part));
  }
  const bad = values.find((value) => !Number.isFinite(value) || value < least || value > most);
  if (bad !== undefined) return { values: [], problem: `${label} goes from ${least} to ${most}; write numbers apart by commas, or 0..1/5 for five from 0 to 1.` };
  return { values: [...new Set(values)], problem: values.length ? "" : "Write at least one value." };
}
