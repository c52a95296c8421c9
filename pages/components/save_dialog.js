// Save the pictures of a render to a gallery: own or new, and who sees them.
import { api, html, icon, store, toast, toastError } from "./core.js";
import { bindGalleryFields, formDialog, galleryChoice, galleryFields, ownGalleries, visibilityField } from "./edit_dialog.js";

/**
 * @param {object} generation a completed one
 * @param {string[]|null} imageIds which of its pictures; all without it
 * @returns {Promise<object|null>} {items, gallery} as saved, null when the person changed their mind
 */
export async function saveGeneration(generation, imageIds = null) {
  let galleries;
  try {
    galleries = await ownGalleries();
  } catch (error) {
    toastError(error);
    return null;
  }
  const last = store.get("save-last", {});
  // The gallery used last comes first, so that saving the next picture is one click.
  galleries.sort((a, b) => Number(b.id === last.gallery_id) - Number(a.id === last.gallery_id));
  const count = imageIds?.length ?? generation.images.length;
  const saved = await formDialog({
    title: count === 1 ? "Save picture to a gallery" : `Save ${count} pictures to a gallery`,
    size: "small",
    body: html`<form class="vs-form" novalidate>
      ${galleryFields(galleries)}
      ${visibilityField(last.visibility ?? "public")}
      <p class="vs-form-error" role="alert"></p>
    </form>`,
    ready: bindGalleryFields,
    submit: html`${icon("save", { size: 18 })}Save`,
    send: async (form) => {
      const visibility = new FormData(form).get("visibility");
      const json = { ...galleryChoice(form), visibility };
      if (imageIds) json.image_ids = imageIds;
      const saved = await api(`/api/generations/${encodeURIComponent(generation.id)}/save`, { json });
      store.set("save-last", { gallery_id: saved.gallery?.id, visibility });
      return saved;
    },
  });
  if (saved) {
    toast(`Saved to “${saved.gallery?.title ?? "the library"}”`, "ok", saved.gallery ? { action: { label: "Open gallery", href: `/galleries?id=${encodeURIComponent(saved.gallery.id)}` } } : {});
  }
  return saved;
}
