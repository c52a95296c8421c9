// Page of one picture: large, with its recipe beside it.
import { define, formatBytes, html, icon } from "./core.js";
import { AssetDetail } from "./detail.js";
import { placeholderStyle } from "./dom.js";
import { openLightbox } from "./lightbox.js";
import { markdown } from "./markdown.js";
import { recipeTemplate } from "./recipe.js";
import { badges } from "./tile.js";

class ImageDetail extends AssetDetail {
  path = "/api/images";
  noun = "picture";
  listName = "Images";
  listKind = "images";

  start() {
    super.start();
    this.on("click", "[data-enlarge]", () => openLightbox({ items: () => [this.item], index: 0, detail: async () => this.item }));
  }

  template(item) {
    return html`<article class="vs-detail">
      ${this.audit(item)}
      <div class="vs-detail-main is-picture">
        <button type="button" class="vs-detail-picture is-whole" data-enlarge aria-label="Enlarge the picture" style="--ratio:${(item.width || 1) / (item.height || 1)};${placeholderStyle(item.thumb)}">
          <img src="${item.url}" alt="${item.title || "Picture"}" data-soft />
        </button>
        <div class="vs-detail-side">
          <p class="vs-badges">${badges(item)}</p>
          <h1>${item.title || "Untitled"}</h1>
          ${this.byline(item, [item.width && `${item.width} × ${item.height}`, item.size_bytes && formatBytes(item.size_bytes)])}
          <div class="vs-detail-actions">
            <a class="btn primary" href="/generate?image=${encodeURIComponent(item.id)}">${icon("sparkles", { size: 18 })}Open in generator</a>
            <a class="btn" href="/generate?start=${encodeURIComponent(item.id)}">${icon("image", { size: 18 })}Use as input</a>
            <a class="btn" href="${item.url}" download="${item.file_name || "picture"}" data-native>${icon("download", { size: 18 })}Download</a>
          </div>
          ${this.tools(item)}
          ${item.description && html`<div class="vs-prose">${markdown(item.description)}</div>`}
          ${this.tags(item)}
          <section class="vs-detail-recipe" aria-label="Recipe">${recipeTemplate(item.recipe)}</section>
        </div>
      </div>
      ${this.galleries(item)}
    </article>`;
  }
}

define("vs-image-detail", ImageDetail);
