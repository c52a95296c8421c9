// How the LoRAs of the mix get on with each other: a bar and a sentence a pair, from their files alone.
import { View, api, debounce, define, html, icon, render } from "./core.js";

const WAIT_MS = 180;
const AGAIN_MS = 1000;
/** Pairs shown before the rest is asked for. */
const FIRST = 3;
const TROUBLE = new Set(["drowned", "alike", "opposed"]);

/** `<vs-lora-meter>`: give it the mix with `show`. Empty for fewer than two LoRAs. */
class LoraMeter extends View {
  #mix = null;
  #asked = "";
  #answer = null;
  #open = false;
  #timer = 0;
  #call = null;
  #soon = debounce(() => this.#ask(), WAIT_MS);

  start() {
    this.on("click", "[data-all]", () => {
      this.#open = !this.#open;
      this.#draw();
    });
    if (this.#mix) this.#soon();
  }

  stop() {
    clearTimeout(this.#timer);
    this.#call?.abort();
  }

  /**
   * @param {object|null} baseModel item of /api/base-models
   * @param {{model_id: string, title: string, weight: number}[]} loras as POST /api/generations takes them, with titles
   */
  show(baseModel, loras) {
    this.#mix = { base_model_id: baseModel?.id ?? null, loras };
    const key = JSON.stringify(this.#mix);
    if (key === this.#asked) return;
    this.#asked = key;
    if (loras.length < 2) {
      this.#call?.abort();
      clearTimeout(this.#timer);
      this.#answer = null;
      this.#draw();
    } else this.#soon();
  }

  async #ask() {
    if (!this.isConnected || !this.#mix || this.#mix.loras.length < 2) return;
    clearTimeout(this.#timer);
    this.#call?.abort();
    const call = (this.#call = new AbortController());
    const { base_model_id, loras } = this.#mix;
    const json = { base_model_id, loras: loras.map(({ title, ...lora }) => lora) };
    try {
      const answer = await api("/api/loras/conflicts", { json, signal: call.signal });
      if (call.signal.aborted) return;
      this.#answer = { ...answer, titles: loras.map((lora) => lora.title) };
      if (!answer.is_complete) this.#timer = setTimeout(() => this.#ask(), AGAIN_MS);
    } catch (error) {
      if (error.name === "AbortError") return;
      // A guest, or a LoRA that is gone: what matters is said when the request is sent.
      this.#answer = null;
    }
    this.#draw();
  }

  #draw() {
    const answer = this.#answer;
    if (!answer || (answer.is_complete && answer.pairs.length === 0 && answer.unmeasured.length === 0 && answer.partial.length === 0)) {
      this.replaceChildren();
      return;
    }
    const { pairs, titles } = answer;
    const trouble = pairs.filter((pair) => TROUBLE.has(pair.verdict)).length;
    const shown = this.#open ? pairs : pairs.slice(0, FIRST);
    render(
      this,
      html`<section class="vs-meter" aria-label="How the LoRAs get on">
        <header class="vs-meter-head">${icon(trouble ? "alert" : "mix", { size: 15 })}<span>${headline(trouble, answer)}</span>
          ${(pairs.length > FIRST || (pairs.length > 1 && trouble < pairs.length)) && html`<button type="button" class="link" data-all aria-expanded="${this.#open ? "true" : "false"}">${this.#open ? "Less" : pairs.length > FIRST ? `All ${pairs.length} pairs` : "More"}</button>`}</header>
        <div class="vs-meter-pairs" role="list">${shown.map((pair) => pairTemplate(pair, titles, this.#open || pairs.length === 1))}</div>
        ${answer.unmeasured.length > 0 && html`<p class="faint">Not measured: ${answer.unmeasured.map((number) => `“${titles[number]}”`).join(", ")}. The file does not fit the base model, or cannot be read.</p>`}
        ${answer.partial.length > 0 && html`<p class="faint">Counted in part: ${answer.partial.map((number) => `“${titles[number]}”`).join(", ")}. Layers it turns (OFT) and magnitudes (DoRA) depend on the base model and are left out.</p>`}
      </section>`,
    );
  }
}

function headline(trouble, answer) {
  if (!answer.is_complete && answer.pairs.length === 0) return "Comparing the files …";
  if (trouble === 0) return answer.pairs.length ? "These LoRAs get on with each other" : "Nothing to compare";
  return trouble === 1 ? "Two LoRAs get in each other’s way" : `${trouble} pairs get in each other’s way`;
}

/** @param {boolean} wordy the sentence also where all is well */
function pairTemplate(pair, titles, wordy) {
  const [first, second] = [titles[pair.first], titles[pair.second]];
  const percent = Math.round(pair.share * 100);
  const label = `Strength: ${first} ${percent} percent, ${second} ${100 - percent} percent. Overlap ${Math.round(pair.overlap * 100)} percent.`;
  return html`<div class="vs-meter-pair" role="listitem" data-key="${`${pair.first}-${pair.second}`}" data-level="${TROUBLE.has(pair.verdict) ? "warn" : pair.verdict === "similar" ? "note" : "calm"}">
    <div class="vs-meter-names" aria-hidden="true"><span class="ellipsis">${first}</span><span class="vs-meter-overlap" title="How much they do the same thing to the same layers">${overlapText(pair)}</span><span class="ellipsis">${second}</span></div>
    <div class="vs-meter-bar" role="img" aria-label="${label}" style="--share:${percent}%"></div>
    ${(wordy || pair.verdict === "similar" || TROUBLE.has(pair.verdict)) && html`<p>${pair.sentence}</p>`}
  </div>`;
}

function overlapText(pair) {
  const percent = Math.round(Math.abs(pair.overlap) * 100);
  return pair.overlap <= -0.005 ? `${percent} % opposed` : `${percent} % overlap`;
}

define("vs-lora-meter", LoraMeter);
