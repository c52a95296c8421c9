// Dialog to choose one picture: of one's own renders, or of the library.
import { api, emptyState, fragment, html, openDialog } from "./core.js";
import { placeholderStyle, thumbImage } from "./dom.js";
import "./tile_grid.js";

/**
 * @returns {Promise<{kind: "image"|"render", id: string, url: string, width: number, height: number, title: string}|null>}
 */
export function pickPicture() {
  let source = "render";
  const dialog = openDialog({
    title: "Choose a picture",
    size: "large",
    className: "vs-picker",
    body: fragment(html`<div class="vs-picker-body">
      <div class="vs-picker-tools"><div class="segmented" role="group" aria-label="Where from">
        <button type="button" data-from="render" aria-pressed="true">Your renders</button><button type="button" data-from="image" aria-pressed="false">Library</button></div></div>
      <vs-tile-grid class="vs-picker-grid"></vs-tile-grid></div>`),
  });
  const grid = dialog.el.querySelector("vs-tile-grid");
  grid.configure({
    label: "Pictures",
    tile: (item) => html`<div class="vs-tile vs-pick" style="${placeholderStyle(item.thumb)}"><a href="${item.url}" role="button" aria-label="${item.title || "Untitled"}">
      ${item.thumb ? thumbImage(item.thumb, { sizes: "200px" }) : html`<img src="${item.url}" alt="" />`}
      <span class="vs-tile-info"><b>${item.title || "Untitled"}</b><small>${item.width} × ${item.height}</small></span></a></div>`,
    load: async (cursor, limit, signal) => {
      // What is shown says itself what it is: a click may come before the other source's pictures do.
      if (source === "image") {
        const page = await api("/api/images", { query: { sort: "newest", cursor, limit }, signal });
        return { items: page.items.map((image) => ({ ...image, kind: "image" })), next_cursor: page.next_cursor };
      }
      const page = await api("/api/generations", { query: { status: "completed", cursor, limit }, signal });
      return { items: page.items.flatMap((job) => job.images.map((image) => ({ ...image, kind: "render", title: job.request.prompt }))), next_cursor: page.next_cursor };
    },
    empty: () => emptyState({ icon: "image", title: "No pictures here yet", text: source === "render" ? "What you render appears here." : "Nothing is shared yet." }),
    open: ({ kind, id, url, width, height, title }) => dialog.close({ kind, id, url, width, height, title }),
  });
  dialog.el.addEventListener("click", (event) => {
    const tab = event.target.closest("[data-from]");
    if (!tab || tab.dataset.from === source) return;
    source = tab.dataset.from;
    for (const other of dialog.el.querySelectorAll("[data-from]")) other.setAttribute("aria-pressed", String(other === tab));
    grid.reload();
  });
  grid.reload();
  return dialog.closed;
}
