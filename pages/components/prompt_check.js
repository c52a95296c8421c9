// What the prompts come to, as the server counts: tokens, chunks, wildcards and LoRA tags, and what is wrong with them.
import { api, debounce, html, icon } from "./core.js";
import { promptCount } from "./generate_form.js";

const WAIT_MS = 350;
const FIELDS = ["prompt", "negative_prompt"];

/** Asks a little after the last change; answers that are overtaken are dropped. */
export class PromptChecker {
  #asked = null;
  #answers = {};
  #call = null;
  #soon = debounce(() => this.#ask(), WAIT_MS);
  #signal;
  #changed;

  /** @param {AbortSignal} signal ends everything @param {() => void} changed a new answer is there */
  constructor(signal, changed) {
    this.#signal = signal;
    this.#changed = changed;
  }

  /** @param {{prompt: string, negative_prompt: string, base_model_id: string|null, seed: number|string}} form */
  look({ prompt, negative_prompt, base_model_id, seed }) {
    const next = { prompt, negative_prompt, base_model_id, seed: seed === "" || seed === null ? 0 : Number(seed) };
    if (this.#asked && Object.keys(next).every((name) => next[name] === this.#asked[name])) return;
    this.#asked = next;
    this.#soon();
  }

  /** What is known of the text as it stands, else null. @param {"prompt"|"negative_prompt"} field */
  of(field, text) {
    const answer = this.#answers[field];
    return answer && answer.source === text && answer.base === this.#asked?.base_model_id ? answer : null;
  }

  /** The last answer, perhaps of a text that is overtaken. */
  last(field) {
    return this.#answers[field] ?? null;
  }

  async #ask() {
    this.#call?.abort();
    const asked = this.#asked;
    if (this.#signal.aborted || FIELDS.every((field) => !asked[field].trim())) {
      this.#answers = {};
      this.#changed();
      return;
    }
    this.#call = new AbortController();
    try {
      const found = await api("/api/prompts/check", { json: asked, signal: AbortSignal.any([this.#signal, this.#call.signal]) });
      for (const field of FIELDS) this.#answers[field] = { ...found[field], source: asked[field], base: asked.base_model_id };
    } catch (error) {
      if (error.name === "AbortError") return;
      // A guest is not answered: the estimate stands.
      this.#answers = {};
    }
    this.#changed();
  }
}

/** What stands over a prompt: counted if the server has, else estimated. */
export function counterOf(text, check, window_) {
  const estimate = promptCount(text, window_);
  if (!check || check.tokens === null || !text.trim() || estimate.level === "full") return estimate;
  const words = `${check.tokens} token${check.tokens === 1 ? "" : "s"}`;
  const title = `This base model reads ${check.room} tokens at a time.`;
  if (check.chunks < 2) return { text: `${check.tokens} / ${check.room} tokens`, title, level: "" };
  return { text: `${words} in ${check.chunks} chunks of ${check.room}`, title: `${title} Nothing is cut, but what comes first counts most.`, level: "many" };
}

/** Hints for programs say nothing to a person. */
const spoken = (hint) => Boolean(hint) && !hint.startsWith("GET ");

/** Notes under a prompt: what is wrong, and LoRA tags that could be in the mixer. */
export function notesOf(check) {
  if (!check) return html``;
  const tags = check.loras ?? [];
  return html`${(check.problems ?? []).map(
      (problem) => html`<p class="vs-note is-bad" data-key="${problem.code + problem.message}">${icon("alert-circle", { size: 15 })}<span>${problem.message} ${spoken(problem.hint) ? html`<span class="faint">${problem.hint}</span>` : ""}</span></p>`,
    )}${tags.length > 0 && html`<p class="vs-note" data-key="tags">${icon("mix", { size: 15 })}<span class="vs-note-tags">${tags.map((tag) => html`<code>${tag.tag}</code>`)}</span>
      <button type="button" class="btn small" data-take-tags>${tags.length === 1 ? "Put into the mixer" : `Put all ${tags.length} into the mixer`}</button></p>`}`;
}

/** The prompt without the tags, and without the commas and blanks they leave. */
export function withoutTags(text, tags) {
  let left = text;
  for (const { tag } of tags) left = left.replace(tag, "\u0000");
  return left.replace(/[ \t]*,?[ \t]*\u0000/g, "").replace(/^[ \t]*,[ \t]*/, "").trimStart();
}
