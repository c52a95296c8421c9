// What can be done with a render: keep it, make something of it, take its settings, delete it.
import { api, confirmDialog, copyText, html, icon, toast, toastError } from "./core.js";
import { recipeOf } from "./generate_fill.js";
import { repeatCall } from "./generate_form.js";
import { can } from "./generate_modes.js";
import { fileName } from "./job_progress.js";
import { openLightbox } from "./lightbox.js";
import { recipeText } from "./recipe.js";

/**
 * @param {{name: string, job: object, image?: object}} detail of the event `job-action`; without `image` the first
 *   picture is meant, or all of them
 * @param {object} page bases: answer of /api/base-models; feed: JobFeed; signal; send(json, path): queue a request;
 *   gone(id), useSeed(seed), useSettings(job), begin(source): start from a picture
 */
export async function actOnJob({ name, job, image }, page) {
  const picture = image ?? job.images?.[0];
  const baseModel = page.bases.items.find((model) => model.id === job.request?.base_model_id);
  const actions = {
    cancel: () => cancel(job, page),
    save: () => keep(job, image && job.images.length > 1 ? [image.id] : null, page),
    again: () => {
      const { path, json } = repeatCall(job);
      return page.send(json, path);
    },
    vary: async () => {
      if (!can(baseModel, "variations")) {
        toast(`${baseModel.label} makes no variations of a seed. Render again, with another one.`, "info");
        return;
      }
      const { askVariation } = await import("./result_dialogs.js");
      const request = await askVariation(job, picture);
      if (request) await page.send(request);
    },
    upscale: async () => {
      if (!can(baseModel, "pictures")) {
        toast(`${baseModel.label} renders from a prompt alone, so it makes no picture larger.`, "info");
        return;
      }
      const { askUpscale } = await import("./result_dialogs.js");
      const request = await askUpscale(job, picture, baseModel);
      if (request?.tooLarge) toast(`This picture is as large as it can be made with this base model: ${request.tooLarge} pixels a side.`, "info");
      else if (request) await page.send(request);
    },
    input: () => page.begin({ kind: "render", id: picture.id, url: picture.url, width: picture.width, height: picture.height }),
    seed: () => {
      page.useSeed(picture?.seed ?? "");
      toast("Seed taken over", "ok", { timeout: 2000 });
    },
    recipe: () => copyText(recipeText(recipeOf(job, picture, page.bases)), "Recipe copied"),
    settings: () => page.useSettings(job),
    delete: () => remove(job, page),
  };
  try {
    await actions[name]?.();
  } catch (error) {
    toastError(error);
  }
}

async function keep(job, ids, { feed }) {
  const { saveGeneration } = await import("./save_dialog.js");
  if (!(await saveGeneration(job, ids))) return;
  const { images } = feed.jobs.get(job.id) ?? job;
  feed.take({ id: job.id, images: images.map((image) => (!ids || ids.includes(image.id) ? { ...image, saved: true } : image)) });
}

async function cancel(job, { feed, signal }) {
  const answer = await api(`/api/generations/${encodeURIComponent(job.id)}/cancel`, { method: "POST", signal });
  feed.take(answer?.id ? answer : { id: job.id, status: "cancelled" });
}

async function remove(job, { feed, signal, gone }) {
  const count = job.images?.length ?? 0;
  const sure =
    count === 0 ||
    (await confirmDialog({
      title: "Delete this render?",
      text: html`${count === 1 ? "Its picture" : `Its ${count} pictures`} will be deleted; pictures saved to a gallery stay. <strong>This cannot be undone. Gone is gone.</strong>`,
      confirm: "Delete",
      danger: true,
    }));
  if (!sure) return;
  await api(`/api/generations/${encodeURIComponent(job.id)}`, { method: "DELETE", signal });
  feed.forget(job.id);
  gone(job.id);
}

/** The pictures of a render, large. @param {{bases: object, act: (detail: object) => void}} page */
export function lookAtJob(job, index, { bases, act }) {
  const box = openLightbox({
    items: () => job.images.map((image) => ({ ...image, title: job.request.prompt })),
    index,
    detail: async (item) => ({ title: item.label ?? "Render", recipe: recipeOf(job, item, bases) }),
    actions: (item) => html`<button type="button" class="btn primary small" data-run="save">${icon("save", { size: 16 })}Save to gallery</button>
      <a class="btn small" href="${item.url}" download="${fileName(job, item)}">${icon("download", { size: 16 })}Download</a>
      <button type="button" class="btn small" data-run="input">${icon("image", { size: 16 })}Use as input</button>
      <button type="button" class="btn ghost small" data-run="seed">${icon("hash", { size: 16 })}Use seed</button>`,
    run: (name, item) => {
      if (name === "input") box.close();
      act({ name, job, image: item });
    },
  });
}
